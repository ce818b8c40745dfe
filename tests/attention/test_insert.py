import copy
import pickle
import subprocess
import sys
from collections import OrderedDict
from fnmatch import fnmatch

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import resnet18, video
from torchvision.ops import StochasticDepth

from cbam3d import CBAM, create_model, insert_attention, list_insertions, remove_attention
from cbam3d.runs.network import keep_hooks_and_sync_batchnorm

IMAGE, CLIP = (2, 3, 64, 64), (2, 3, 8, 64, 64)

# name -> (how to build it, an input's shape)
SMALL = {
    "ours_2d": (lambda: create_model("resnet10", 5, ndim=2, width=8), IMAGE),
    "ours_3d": (lambda: create_model("resnet50", 5, ndim=3, width=4), (2, 3, 4, 32, 32)),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=5), IMAGE),
    "resnet50": (lambda: torchvision.models.resnet50(num_classes=5, width_per_group=8), IMAGE),
    "r3d_18": (lambda: video.r3d_18(num_classes=5), (2, 3, 4, 32, 32)),
    "timm_resnet18": (lambda: create_model("timm/resnet18", 5, ndim=2), IMAGE),
    "mobilenet_v3_small": (lambda: torchvision.models.mobilenet_v3_small(num_classes=5), IMAGE),
    "x3d_xs": (lambda: create_model("pytorchvideo/x3d_xs", 5), (2, 3, 4, 160, 160)),
}


def randomised(model: nn.Module) -> nn.Module:
    """A network as if trained: norms with statistics, so that no branch is silent."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            module.weight.data.copy_(torch.rand(module.weight.shape, generator=generator) + 0.5)
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    return model


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    make, shape = SMALL[name]
    return randomised(make()), torch.randn(shape)


def logits(model: nn.Module, x: torch.Tensor, train: bool) -> torch.Tensor:
    """Of a copy, as training mode moves the statistics; dropout from a fixed state."""
    torch.manual_seed(3)
    return copy.deepcopy(model).train(train)(x)


def host_of(model: nn.Module, insertion) -> nn.Module:
    """The module whose output a block changes; of a slot, the residual block around it."""
    name = insertion.where
    return model.get_submodule(name.removesuffix(".attention"))


@pytest.mark.parametrize("position", ["residual", "block", pytest.param("stage", marks=pytest.mark.slow), "last_stage"])
@pytest.mark.parametrize("name", SMALL)
def test_identity_insertion_keeps_logits_keys_and_comes_out_again(name, position):
    model, x = build(name)
    before = {train: logits(model, x, train) for train in (False, True)}
    keys = list(model.state_dict())
    next(model.children()).eval()  # a part that is frozen
    modes = {module: module.training for module in model.modules()}
    assert insert_attention(model, "cbam", position, example=x, reduction=4) is model
    assert all(module.training == mode for module, mode in modes.items())
    assert all(one.block.training == modes[host_of(model, one)] for one in list_insertions(model))
    model.train()
    for train, expected in before.items():
        assert torch.equal(logits(model, x, train), expected)

    new = [key for key in model.state_dict() if key not in keys]
    assert set(keys) <= set(model.state_dict())
    assert all("attention" in key for key in new)
    missing = model.load_state_dict({key: model.state_dict()[key] for key in keys}, strict=False)
    assert (set(missing.missing_keys), missing.unexpected_keys) == (set(new), [])

    remove_attention(model)
    assert list(model.state_dict()) == keys
    assert list_insertions(model) == []
    assert torch.equal(logits(model, x, False), before[False])
    insert_attention(model, "cbam", position, example=x, reduction=4)  # and in again
    assert [key for key in model.state_dict() if key not in keys] == new


@pytest.mark.parametrize(
    ("name", "position", "where"),
    [
        ("ours_2d", "residual", [f"layer{i}.0.attention" for i in (1, 2, 3, 4)]),
        ("ours_2d", "block", [f"layer{i}.0" for i in (1, 2, 3, 4)]),
        ("resnet18", "residual", [f"layer{i}.{j}.bn2" for i in (1, 2, 3, 4) for j in (0, 1)]),
        ("resnet18", "stage", [f"layer{i}.1" for i in (1, 2, 3, 4)]),
        ("resnet50", "last_stage", ["layer4.2"]),
        ("r3d_18", "residual", [f"layer{i}.{j}.conv2.1" for i in (1, 2, 3, 4) for j in (0, 1)]),
        ("timm_resnet18", "block", [f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)]),
        ("mobilenet_v3_small", "last_stage", ["features.12.2"]),
        ("x3d_xs", "stage", ["blocks.1", "blocks.2", "blocks.3", "blocks.4"]),
        ("resnet18", "layer[34].*.conv1", [f"layer{i}.{j}.conv1" for i in (3, 4) for j in (0, 1)]),
        ("resnet18", ["maxpool", "layer2"], ["maxpool", "layer2.1"]),
        ("ours_2d", ["maxpool", "residual"], ["maxpool", *(f"layer{i}.0.attention" for i in (1, 2, 3, 4))]),
    ],
)
def test_where_it_goes(name, position, where):
    model, _ = build(name)
    insert_attention(model, "cbam", position)
    assert sorted(i.where for i in list_insertions(model)) == sorted(where)


def test_residual_attention_acts_before_the_addition():
    """torchvision's block with attention that gives zero is the shortcut alone."""
    model, _ = build("resnet18")
    insert_attention(model, "cbam", "layer1.0.bn2")
    (insertion,) = list_insertions(model)
    insertion.block.forward = torch.zeros_like
    features = torch.rand(1, 64, 8, 8)
    assert torch.equal(model.layer1[0](features), features)


def test_the_map_is_applied_to_what_the_module_puts_out():
    model, x = build("resnet18")
    plain = copy.deepcopy(model)
    torch.manual_seed(5)
    insert_attention(model, "cbam", "layer4", init="paper")
    (insertion,) = list_insertions(model)
    assert isinstance(insertion.block, CBAM)
    assert insertion.block.ndim == 2
    seen = {}
    plain.layer4.register_forward_hook(lambda m, a, out: seen.update(out=out))
    plain.eval()(x)
    expected = plain.fc(insertion.block.eval()(seen["out"]).mean((2, 3)))
    torch.testing.assert_close(model.eval()(x), expected)


def test_every_new_parameter_that_can_has_moved_after_a_step():
    model, x = build("r3d_18")
    insert_attention(model, "cbam", reduction=4, bias=True, example=x)
    before = {key: p.detach().clone() for key, p in model.named_parameters() if "inserted_attention" in key}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    nn.functional.cross_entropy(model.train()(x), torch.tensor([0, 1])).backward()
    optimizer.step()
    for key, parameter in model.named_parameters():
        if "inserted_attention" in key:
            # Behind a last layer of zeros nothing moves in the first step.
            hidden = fnmatch(key, "*.mlp.0.*")
            assert torch.equal(parameter, before[key]) == hidden, key


@pytest.mark.parametrize("name", ["ours_3d", "resnet18", "r3d_18"])
def test_copies_pickles_and_state_dicts_carry_the_attention(name):
    model, x = build(name)
    insert_attention(model, "cbam", init="paper", example=x)
    expected = model.eval()(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), expected)
        assert [i.where for i in list_insertions(other)] == [i.where for i in list_insertions(model)]
        for insertion in list_insertions(other):
            nn.init.zeros_(next(insertion.block.parameters()))
        assert torch.equal(model(x), expected)  # nothing is shared
        remove_attention(other)
        assert not torch.equal(other(x), expected)
    fresh, _ = build(name)
    insert_attention(fresh, "cbam", init="paper", example=x)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.eval()(x), expected)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_identity_insertion_on_a_gpu(dtype, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    model, x = build("r3d_18")
    model, x = model.to("cuda", dtype, memory_format=torch.channels_last_3d).eval(), x.to("cuda", dtype)
    before = model(x)
    insert_attention(model, "cbam")
    assert {p.device.type for i in list_insertions(model) for p in i.block.parameters()} == {"cuda"}
    assert torch.equal(model(x), before)


def test_a_hook_registered_in_a_new_process_does_not_replace_the_attention(tmp_path):
    """torch numbers hooks from 0 in every process: an unpickled model must keep its own."""
    model, x = build("resnet18")
    insert_attention(model, "cbam", init="paper")
    torch.save((model.eval(), x, model(x)), tmp_path / "model.pt")
    code = (
        "import torch; model, x, expected = torch.load('model.pt', weights_only=False)\n"
        "[m.register_forward_hook(lambda *a: None) for m in model.modules()]\n"
        "assert torch.equal(model(x), expected)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


@pytest.mark.parametrize("name", ["ours_3d", "resnet18"])
def test_export_and_compile(name):
    model, x = build(name)
    insert_attention(model, "cbam", init="paper")
    model.eval()
    with torch.no_grad():
        expected = model(x)
        exported = torch.export.export(model, (x,)).module()
        torch.testing.assert_close(exported(x), expected)
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), expected)


def test_swins_channels_last_and_mvits_tokens():
    """Networks that do not put out (N, C, *S): attention sees the clip, the network its own layout."""
    torch.manual_seed(0)
    swin = video.swin_transformer.SwinTransformer3d(
        patch_size=[2, 4, 4], embed_dim=24, depths=[1, 1], num_heads=[2, 2], window_size=[2, 4, 4], num_classes=5
    )
    x = torch.randn(1, 3, 4, 64, 64)
    before = swin.eval()(x)
    insert_attention(swin, "cbam", "stage")
    assert [i.where for i in list_insertions(swin)] == ["features.0.0", "features.2.0"]
    assert torch.equal(swin(x), before)
    block = list_insertions(swin)[0].block
    block.forward = lambda clip: clip * (torch.arange(24).view(1, 24, 1, 1, 1) == 3)
    out = swin.features[0](swin.patch_embed(x))
    assert out[..., 3].abs().sum() > 0
    assert out[..., :3].abs().sum() == out[..., 4:].abs().sum() == 0

    settings = [video.mvit.MSBlockConfig(1, 16, 32, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 2, 2])]
    settings += [video.mvit.MSBlockConfig(2, 32, 32, [3, 3, 3], [3, 3, 3], [1, 2, 2], [1, 1, 1])]
    settings += [video.mvit.MSBlockConfig(2, 32, 32, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 1, 1])]
    mvit = video.MViT((64, 64), 4, settings, True, False, 0.0, 0.0, 0.0, num_classes=5)
    before = mvit.eval()(x)
    insert_attention(mvit, "cbam", "stage", example=x)
    assert [i.where for i in list_insertions(mvit)] == ["blocks.0", "blocks.1"]  # of the last, the class token is read
    assert torch.equal(mvit(x), before)
    seen = []
    block = list_insertions(mvit)[1].block
    block.forward = lambda clip: seen.append(clip.shape) or clip
    mvit(x)
    assert seen == [(1, 32, 2, 8, 8)]  # without the class token
    remove_attention(mvit)
    with pytest.raises(ValueError, match=r"blocks\.2: attention there would receive no gradient.*1 of 2 places"):
        insert_attention(mvit, "cbam", ["blocks.1", "blocks.2"], example=x)
    assert list_insertions(mvit) == []
    insert_attention(mvit, "cbam", "blocks.2", example=x, check=False)
    mvit(x).sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in list_insertions(mvit)[0].block.parameters())


DDP_SCRIPT = """
import torch
from lightning_fabric import Fabric
from cbam3d import create_model, insert_attention, list_insertions

if __name__ == "__main__":
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    torch.manual_seed(fabric.global_rank)  # DDP must make the replicas equal
    model = insert_attention(create_model("torchvision/resnet18", 3, ndim=2), "cbam", "stage")
    model, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    fabric.backward(model(torch.randn(2, 3, 32, 32)).square().sum())
    optimizer.step()
    value = torch.cat([p.flatten() for i in list_insertions(model.module) for p in i.block.parameters()])
    gathered = fabric.all_gather(value)
    assert torch.equal(gathered[0], gathered[1]) and value.abs().sum() > 0
"""


@pytest.mark.slow
def test_two_processes_train_the_same_attention(tmp_path):
    (tmp_path / "script.py").write_text(DDP_SCRIPT)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


class SharedWithVectors(nn.Module):
    """One activation for feature maps and for vectors."""

    def __init__(self):
        super().__init__()
        self.conv, self.act, self.fc = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Linear(8, 5)

    def forward(self, x):
        return self.act(self.fc(self.act(self.conv(x)).mean((2, 3))))


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (lambda: build("resnet18")[0], {"mechanism": "cbma"}, "unknown attention 'cbma': did you mean 'cbam'?"),
        (lambda: build("resnet18")[0], {"reducton": 4}, "did you mean 'reduction'?"),
        (lambda: build("resnet18")[0], {"position": "residul"}, "'residul' is not a position (residual, block, stage"),
        (lambda: build("resnet18")[0], {"position": "layer9.*"}, "matches no module of ResNet"),
        (lambda: build("resnet18")[0], {"position": "fc"}, "fc does not output a feature map"),
        (lambda: build("resnet18")[0], {"init": "zero"}, "init must be"),
        (lambda: torchvision.models.resnet50(), {"position": "layer1.0.relu"}, "layer1.0.relu is used 3 times"),
        (SharedWithVectors, {"position": "act", "example": torch.zeros(1, 3, 9, 8)}, "act is used 2 times"),
        (lambda: torchvision.models.densenet121(), {"position": "stage"}, "runs its children itself"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3)), {}, "nothing to attach to: no position 'residual' in Sequential"),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3)),
            {"example": torch.zeros(1, 3, 9, 8)},
            "feature maps come from 1 (4 x 7 x 6), 2 (6 x 5 x 4)",
        ),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 4, 3)),
            {"position": "1", "example": torch.zeros(1, 3, 9, 8)},
            "matches no module of Sequential; feature maps come from 0 (4 x 7 x 6)",
        ),
        (lambda: nn.Linear(3, 4), {}, "give example="),
        (
            lambda: build("resnet18")[0],
            {"example": torch.zeros(1, 5, 64, 64)},
            "the last failure: with (1, 5, 64, 64) RuntimeError",
        ),
    ],
)
def test_refusals_leave_the_model_as_it_was(model, arguments, message):
    model = model()
    keys = list(model.state_dict())
    with pytest.raises(ValueError, match=r".+") as error:
        insert_attention(model, **{"mechanism": "cbam", **arguments})
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert list(model.state_dict()) == keys
    assert not any(module._forward_hooks for module in model.modules())
    assert model.training


def test_channels_are_the_axis_that_does_not_grow():
    """Outputs with the channels last, of a module that also convolves: nothing but a second size can tell."""

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 24, 3, stride=4, padding=1)

        def forward(self, x):
            return self.conv(x).permute(0, 2, 3, 1)

    model = nn.Sequential(Last(), nn.Linear(24, 16), nn.Flatten())
    x = torch.randn(1, 3, 40, 48)
    before = model(x)
    insert_attention(model, "cbam", ["0", "1"])
    assert [i.block.channel.mlp[2].out_features for i in list_insertions(model)] == [24, 16]
    assert torch.equal(model(x), before)


def test_blocks_of_somebody_else_are_left_alone():
    """A user's own layer called attention is no slot, and a pre-activation block has no norm at its branch's end."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
            self.bn2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
            self.attention = nn.Conv2d(8, 8, 1)
            self.branch = self.downsample = None

        def forward(self, x):
            out = self.conv1(self.bn1(x).relu())
            return x + self.attention(self.conv2(self.bn2(out).relu()))

    model = nn.Sequential(nn.Conv2d(3, 8, 3), Own())
    assert list_insertions(model) == []
    with pytest.raises(ValueError, match="nothing to attach to: no position 'residual'"):
        insert_attention(model, "cbam")
    insert_attention(model, "cbam", "1.attention")
    remove_attention(model)
    assert isinstance(model[1].attention, nn.Conv2d)


def test_attention_does_not_go_in_twice():
    model, _ = build("ours_2d")
    insert_attention(model, "cbam")
    with pytest.raises(ValueError, match=r"layer1\.0\.attention has attention already"):
        insert_attention(model, "cbam")


def test_a_network_created_with_attention_has_the_keys_of_one_that_got_it_later():
    later = insert_attention(create_model("resnet10", 5, width=8), "cbam")
    created = create_model("resnet10", 5, width=8, attention="cbam", attention_options={"init": "identity"})
    assert list(later.state_dict()) == list(created.state_dict())


@pytest.mark.parametrize(
    ("name", "counts", "first"),
    [
        ("convnext_atto", (12, 12, 4, 1), "stages.0.blocks.0.drop_path"),
        ("efficientnet_b0", (9, 9, 5, 1), "blocks.1.1.drop_path"),
        ("regnetx_002", (13, 13, 4, 1), "s1.b1.drop_path"),
    ],
)
def test_positions_in_timms_networks(name, counts, first):
    model = pytest.importorskip("timm").create_model(name).eval()
    x = torch.randn(1, 3, 64, 64)
    before = model(x)
    for position, count in zip(("residual", "block", "stage", "last_stage"), counts, strict=True):
        insert_attention(model, "se", position)
        assert len(list_insertions(model)) == count, position
        assert position != "residual" or list_insertions(model)[0].where == first
        assert torch.equal(model(x), before)
        remove_attention(model)


@pytest.mark.parametrize(
    ("build", "where"),
    [
        (lambda: create_model("timm/swin_tiny_patch4_window7_224", 5), [f"layers.{i}" for i in range(4)]),
        (
            lambda: torchvision.models.regnet_y_400mf(),
            [f"trunk_output.block{name}" for name in ("1.block1-0", "2.block2-2", "3.block3-5", "4.block4-5")],
        ),
    ],
)
def test_stages_of_swin_and_regnet(build, where):
    model = insert_attention(build(), "se", "stage")
    assert [insertion.where for insertion in list_insertions(model)] == where


class Stage(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.ReLU())

    def forward(self, x):
        return self.layers(x)


class LikeHuggingFace(nn.Module):
    """As their ResNet: stages below an encoder, and an output that is no tensor."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 3), nn.Linear(16, 2)
        self.encoder = nn.Module()
        self.encoder.stages = nn.ModuleList([Stage(4), Stage(8)])

    def forward(self, x):
        x = self.stem(x)
        for stage in self.encoder.stages:
            x = stage(x)
        return {"logits": self.head(x.mean((2, 3))), "hidden_states": None}


def test_stages_below_an_encoder():
    model = LikeHuggingFace()
    insert_attention(model, "se", "stage")
    assert [insertion.where for insertion in list_insertions(model)] == ["encoder.stages.0", "encoder.stages.1"]


def test_networks_of_tokens_are_told_what_is_missing():
    vit = pytest.importorskip("timm").create_model("vit_tiny_patch16_224")
    with pytest.raises(ValueError, match=r"no position 'block' .*tokens of unknown height and width"):
        insert_attention(vit, "se", "block")
    with pytest.raises(ValueError, match=r"blocks\.0 does not output a feature map .*shape \(1, 197, 192\): tokens"):
        insert_attention(vit, "se", "stage")
    with pytest.raises(ValueError, match=r"blocks\.0 does not output a feature map .*shape \(1, 197, 192\): tokens"):
        insert_attention(vit, "se", "blocks.0")


def test_a_network_whose_branches_start_at_zero_is_no_dead_one():
    """timm's residual branches end with a norm that starts at 0, and heads may start at 0 as well."""
    model = pytest.importorskip("timm").create_model("resnet18")
    assert not model.layer1[0].bn2.weight.any()
    insert_attention(model, "cbam")
    remove_attention(model)
    nn.init.zeros_(model.fc.weight)
    insert_attention(model, "cbam")
    assert len(list_insertions(model)) == 8


def test_removed_after_norms_were_synchronised():
    model = torchvision.models.resnet18()
    insert_attention(model, "cbam", "residual")
    keys = list(torchvision.models.resnet18().state_dict())
    for convert in (nn.SyncBatchNorm.convert_sync_batchnorm, keep_hooks_and_sync_batchnorm):
        converted = remove_attention(convert(copy.deepcopy(model)))
        assert list(converted.state_dict()) == keys
        assert not any(module._forward_hooks for module in converted.modules())
        assert list_insertions(converted) == []


@pytest.mark.parametrize(
    ("name", "residual"),
    [
        (
            "timm/repvgg_a0",
            {"stages.0.1", *(f"stages.1.{i}" for i in (1, 2, 3)), *(f"stages.2.{i}" for i in range(1, 14))},
        ),
        ("timm/mobilevit_xxs", {"stages.0.0", "stages.1.1", "stages.1.2"}),
        ("timm/hgnet_tiny", {"stages.2.blocks.1"}),
    ],
)
def test_only_blocks_that_add_their_input_are_residual(name, residual):
    model = create_model(name, 5, ndim=2)
    insert_attention(model, "eca")
    assert {one.where.removesuffix(".drop_path") for one in list_insertions(model)} == residual


def test_hooks_that_were_there_see_what_attention_makes_of_the_output():
    """As those of a network that ends at its features and goes on with another head."""
    model, x = build("resnet18")
    seen = {}
    model.layer4.register_forward_hook(lambda module, args, output: seen.update(out=output))
    insert_attention(model, "cbam", "layer4.1", init="paper")
    model.layer4[1].inserted_attention.forward = torch.zeros_like
    model.eval()(x)
    assert not seen["out"].any()
    remove_attention(model)
    model(x)
    assert seen["out"].any()


class DropBlock(nn.Module):
    """As timm's blocks: a branch that ends with stochastic depth, of features (N, H, W, C)."""

    def __init__(self, width: int, uses: int = 1) -> None:
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(width), nn.Linear(width, width)
        self.drop_path, self.uses = StochasticDepth(1.0, "row"), uses

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.uses):
            x = x + self.drop_path(self.fc(self.norm(x)))
        return x


class DropNetwork(nn.Module):
    def __init__(self, *uses: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, stride=4)
        self.layers = nn.Sequential(*(DropBlock(16, count) for count in uses))
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.stem(x).movedim(1, -1)).mean((1, 2)))


def test_what_is_dropped_is_dropped_with_its_attention():
    network = DropNetwork(1, 1).train()
    x = torch.randn(4, 3, 64, 64)
    before = network(x)
    insert_attention(network, "gc", init="paper")
    for parameter in network.layers[0].drop_path.inserted_attention.parameters():
        nn.init.normal_(parameter)
    torch.testing.assert_close(network(x), before)  # every branch is dropped
    assert not torch.allclose(network.eval()(x), before)
    remove_attention(network)
    torch.testing.assert_close(network.train()(x), before)


def test_an_example_whose_height_is_the_width_of_a_layer():
    network = DropNetwork(1)
    insert_attention(network, "se", example=torch.zeros(1, 3, 64, 64))  # 16 x 16 positions of 16 channels
    seen = []
    network.layers[0].drop_path.inserted_attention.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    network(torch.zeros(1, 3, 64, 80))
    assert seen == [(1, 16, 16, 20)]


def test_a_width_that_does_not_grow_is_no_channel_axis():
    """Of a stride of 64, 32 pixels more may be one position more along one axis, and none along the other."""
    network = nn.Sequential(nn.Conv2d(3, 16, 64, stride=64), nn.BatchNorm2d(16))
    insert_attention(network, "cbam", position="1", example=torch.zeros(1, 3, 112, 64), check=False)
    assert network(torch.zeros(1, 3, 128, 128)).shape == (1, 16, 2, 2)


def test_stochastic_depth_of_two_branches_is_left_out():
    network = insert_attention(DropNetwork(2, 1), "se")
    assert [one.where for one in list_insertions(network)] == ["layers.1.drop_path"]
    with pytest.raises(ValueError, match=r"layers.0.drop_path is used 2 times"):
        insert_attention(DropNetwork(2), "se")


def test_stages_that_are_numbered_modules():
    def stage(before: int, after: int) -> nn.Module:
        parts = {"conv": nn.Conv2d(before, after, 3, 2, 1), "blocks": nn.Sequential(nn.ReLU(), nn.ReLU())}
        return nn.Sequential(OrderedDict(parts))

    stages = OrderedDict((f"stage{i}", stage(3 if i == 1 else 8, 8)) for i in (1, 2, 3))
    network = insert_attention(nn.Sequential(stages), "eca", position="stage", check=False)
    assert [one.where for one in list_insertions(network)] == [f"stage{i}.blocks.1" for i in (1, 2, 3)]

    two = nn.ModuleDict({name: copy.deepcopy(nn.Sequential(stages)) for name in ("rgb", "flow")})
    two.forward = lambda x: (two["rgb"](x), two["flow"](x))
    with pytest.raises(ValueError, match=r"stages may be rgb.stage1 … rgb.stage3 and flow.stage1 … flow.stage3"):
        insert_attention(two, "eca", position="stage", example=torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("in_place", [False, True])
def test_a_network_that_was_compiled_follows(in_place):
    network, x = resnet18(num_classes=5).eval(), torch.randn(1, 3, 64, 64)
    compiled = network
    if in_place:
        network.compile(backend="eager")
    else:
        compiled = torch.compile(network, backend="eager")
    with torch.no_grad():
        plain = compiled(x)
        insert_attention(network, "se", init="paper")
        assert not torch.allclose(compiled(x), plain)
        remove_attention(network)
        torch.testing.assert_close(compiled(x), plain)


def test_attention_of_replaced_norms_is_said_not_to_run():
    network = nn.SyncBatchNorm.convert_sync_batchnorm(insert_attention(resnet18(), "se"))
    with pytest.warns(UserWarning, match=r"attention at layer1.0.bn2 \(8 of 8 places\) does not run"):
        assert len(list_insertions(network)) == 8
    remove_attention(network)
    assert list_insertions(insert_attention(network, "se", check=False))[0].where == "layer1.0.bn2"
