"""What runs on a GPU, on tensors that have no values: no host waits, no mixed devices, few copies."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cbam3d import create_attention, create_model, list_attentions
from cbam3d.data.augment import BatchTransform, Mix, train_crops, train_transforms
from cbam3d.data.batch import Packed, SampleIndex
from cbam3d.data.crops import EvalCrops
from tests.engine.test_train import Points, trainer
from tests.fake_gpu import fake_gpu


@pytest.mark.parametrize(
    "mistake",
    [
        lambda x: x.sum().item(),
        lambda x: float(x.mean()),
        lambda x: x.tolist(),
        lambda x: bool((x > 0).all()),
        lambda x: x[x > 0].numpy(),
        lambda x: x + torch.ones(4),  # of the host
        lambda x: torch.ones(4).to(x.device),  # the host waits
        lambda x: torch.tensor([1.0, 2.0], device=x.device),
        lambda x: x.cpu(),
    ],
)
def test_mistakes_are_seen(mistake):
    with fake_gpu(), pytest.raises(Exception, match=r"."):
        mistake(torch.ones(4, device="cuda"))


def packed(shapes, epoch=0) -> Packed:
    sizes = sum(torch.Size(shape).numel() for shape in shapes)
    indices = [SampleIndex(epoch, i) for i in range(len(shapes))]
    labels = torch.zeros(len(shapes), dtype=torch.long)
    return Packed(indices, labels, torch.zeros(sizes, dtype=torch.uint8), shapes, [])


TRANSFORMS = {
    "everything": (train_crops(16, crop_padding=2), train_transforms(True, (0.2, 0.2, 0.2, 0.1), 10, 0.3)),
    "resized": (train_crops(16, crop_scale=(0.5, 1.0)), train_transforms(True)),
    "rand_augment": (train_crops(16, crop_scale=(0.5, 1.0), rand_augment=(2, 9)), []),
    "evaluation": ([EvalCrops(16, num_crops=3, flip=True)], []),
}


@pytest.mark.parametrize("shapes", [[(3, 4, 20, 24)] * 4, [(3, 4, 20, 24), (3, 4, 18, 30), (3, 4, 20, 24)]])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_batch_travels_in_three_copies(name, shapes):
    transform = BatchTransform(*TRANSFORMS[name], (0.5,) * 3, (0.25,) * 3, 0)
    mix = Mix(5, 0.2, 1.0, 0)
    with fake_gpu() as copies:
        copies.allowed = True
        transform(packed(shapes).to(torch.device("cuda")))  # mean, std: once
        copies.allowed = False
        for epoch in range(10 * (name == "rand_augment")):  # until each operation has been drawn
            transform(packed(shapes, epoch).to(torch.device("cuda")))
        copies.number = 0
        there = packed(shapes).to(torch.device("cuda"))
        inputs = transform(there)
        assert inputs.device.type == "cuda"
        assert inputs.shape[1:] == (3, 4, 16, 16)
        if name != "evaluation":
            mixed, targets = mix(there.indices, inputs, there.labels)
            assert mixed.device.type == targets.device.type == "cuda"
        assert copies.number <= 3


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("name", list_attentions())
def test_every_mechanism(name, ndim):
    options = {"num_frames": 4} if name == "tam" else {}
    with fake_gpu() as copies:
        copies.allowed = True
        try:
            with torch.device("cuda"):
                block = create_attention(name, 16, ndim=ndim, **options)
        except ValueError:  # needs clips
            assert ndim == 2
            return
        x = torch.randn(2, 16, *(4, 8, 8)[-ndim:], device="cuda")
        copies.allowed, copies.number = False, 0
        assert block(x).shape == x.shape
        assert copies.number == 0


@pytest.mark.parametrize("name", [name for name in list_attentions() if name != "stn"])  # no affine_grid on "meta"
def test_backward_passes_read_nothing(name):
    """On tensors without values of the device "meta": those of a GPU have no backward pass without one."""
    options = {"num_frames": 4} if name == "tam" else {}
    with torch.device("meta"):
        block, x = create_attention(name, 16, ndim=3, **options), torch.randn(2, 16, 4, 8, 8, requires_grad=True)
    block(x).sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("name", ["resnet10", "resnet50"])
def test_networks(name):
    with fake_gpu() as copies:
        copies.allowed = True
        with torch.device("cuda"):
            network = create_model(name, num_classes=5, ndim=3, attention="cbam", width=8)
        copies.allowed, copies.number = False, 0
        assert network(torch.randn(2, 3, 4, 32, 32, device="cuda")).shape == (2, 5)
        assert copies.number == 0


class NoReading(TorchDispatchMode):
    """Reading a number of a tensor is an error, but for one that is always on the host."""

    def __init__(self, on_host):
        super().__init__()
        self.on_host = on_host

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            assert args[0] is self.on_host, "the host waits for a number"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_step_reads_nothing(tmp_path, optimizer, clip):
    """With the optimiser of a GPU, here on the CPU: no number is read between the batch and the readings."""
    loop = trainer(tmp_path, ema=0.9, clip_grad_norm=clip, accumulate=2, optimizer=optimizer, fused=True)
    batches = list(Points())
    loop.step(batches[0])
    with NoReading(loop.average.n_averaged):
        loop._learn(batches[1].inputs, batches[1].targets, 16.0)
    for group in loop.update.optimizer.param_groups:
        group["fused"] = False
    with NoReading(loop.average.n_averaged), pytest.raises(AssertionError, match="the host waits"):
        loop._learn(batches[2].inputs, batches[2].targets, 16.0)
