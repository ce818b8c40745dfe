"""The fast form of pooled gates against the literal one, in which autograd derives every operation."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from cbam3d import CBAM, create_attention
from cbam3d.attention.ops import fused, kernels
from cbam3d.attention.ops.convolve import convolve

GATES = [
    ("channel",),
    ("spatial",),
    ("temporal",),
    ("channel", "spatial"),
    ("channel", "spatial", "temporal"),
    ("channel", "temporal", "spatial"),
    ("spatial", "temporal"),
]
BLOCKS = {"+".join(gates): ("cbam", {"gates": gates, "kernel_size": (3, 7, 7)}) for gates in GATES}
BLOCKS |= {"norm": ("cbam", {"batch_norm": True}), "bias": ("cbam", {"bias": True}), "identity": ("cbam", {})}
BLOCKS |= {name: (name, {}) for name in ("se", "eca")}
LAYOUTS = [torch.contiguous_format, torch.channels_last_3d]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """The fast form also for small features, in several blocks of samples and of positions."""
    monkeypatch.setattr(fused, "_LEAST", 0)
    monkeypatch.setattr(kernels, "_CACHE", 5000)


def build(name: str, dtype: torch.dtype = torch.float64, spread: float = 1.0) -> nn.Module:
    torch.manual_seed(0)
    mechanism, options = BLOCKS[name]
    block = create_attention(mechanism, 8, ndim=3, reduction=2, **options) if mechanism != "eca" else None
    block = block or create_attention("eca", 8, ndim=3)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=spread)
    return block.to(dtype)


def derived(block: nn.Module, x: torch.Tensor, grad: torch.Tensor, fast: bool) -> list[torch.Tensor]:
    """Output, and the gradients of input and parameters."""
    fused.enabled = fast
    try:
        block.zero_grad()
        x = x.clone().requires_grad_()
        out = block(x)
        out.backward(grad)
    finally:
        fused.enabled = True
    assert x.grad is not None
    return [out.detach(), x.grad, *(p.grad.clone() for p in block.parameters() if p.grad is not None)]


def test_a_backward_pass_within_autocast_is_the_same(monkeypatch):
    monkeypatch.setattr(kernels, "_CACHE", 2**20)
    block, x = build("channel+spatial+temporal", torch.float32, 0.3), torch.randn(2, 8, 8, 40, 40, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = block(x).square().sum()
    (outside,) = torch.autograd.grad(loss, x, retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        (inside,) = torch.autograd.grad(loss, x)
    assert torch.equal(inside, outside)  # places above 256 are no bfloat16


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", BLOCKS)
def test_values_and_gradients_are_those_of_the_literal_form(name, layout):
    block = build(name)
    for size in ((3, 8, 4, 6, 5), (1, 8, 1, 7, 9), (2, 8, 20, 9, 11)):
        x, grad = (
            torch.randn(size, dtype=torch.float64).to(memory_format=layout),
            torch.randn(size, dtype=torch.float64),
        )
        assert "_Gated" in type(block(x.requires_grad_()).grad_fn).__name__
        state = {key: value.clone() for key, value in block.state_dict().items()}
        literal = derived(block, x.detach(), grad, fast=False)
        moved = {key: value.clone() for key, value in block.state_dict().items()}
        block.load_state_dict(state)
        fast = derived(block, x.detach(), grad, fast=True)
        for one, other in zip(fast, literal, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
        for key, value in block.state_dict().items():  # batch statistics are counted once
            assert torch.equal(value, moved[key])


@pytest.mark.parametrize("name", BLOCKS)
def test_gradcheck(name):
    block = build(name).eval()
    x = torch.randn(2, 8, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    parameters = list(block.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: block(x), (x, *parameters))


@pytest.mark.parametrize("name", ["channel+spatial+temporal", "se"])
def test_second_derivatives(name):
    block = build(name).eval()
    for parameter in block.parameters():
        parameter.data.abs_()  # no hidden unit at the kink
    x = torch.rand(1, 8, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(block, (x,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_single_and_half_precision(dtype):
    block, x = build("channel+spatial+temporal", torch.float32, 0.3), torch.randn(2, 8, 4, 12, 11)
    expected = derived(block, x, torch.ones_like(x), fast=False)
    found = derived(block.to(dtype), x.to(dtype), torch.ones_like(x, dtype=dtype), fast=True)
    limit = {torch.float32: 1e-5, torch.bfloat16: 0.1, torch.float16: 0.02}[dtype]
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype
        assert (one.float() - other).abs().mean() <= limit * other.abs().mean()


@pytest.mark.parametrize("features", [torch.float32, torch.bfloat16])
def test_mixed_precision(features):
    block, x = build("channel+spatial", torch.float32, 0.3), torch.randn(2, 8, 4, 12, 11)
    with torch.autocast("cpu", torch.bfloat16):
        found = derived(block, x.to(features), torch.ones_like(x, dtype=features), fast=True)
    expected = derived(block, x, torch.ones_like(x), fast=False)
    assert found[0].dtype == features
    for one, other in zip(found, expected, strict=True):  # on the whole: rounding may move a maximum
        assert (one.float() - other).abs().mean() <= 0.1 * other.abs().mean()


def test_of_equal_maxima_the_first_gets_the_gradient():
    class Highest(nn.Module):
        """A gate that is the maximum itself."""

        pools_max = True

        def gate(self, mean, maximum):
            return maximum

    x = torch.tensor([[[1.0, 3.0, 3.0], [2.0, 3.0, 1.0]]], requires_grad=True)  # (1, 2 channels, 3 positions)
    fused.gated(x, None, [Highest()]).sum().backward()
    # y = x·M, dy/dx = M, and at the first maximum of each position the sum of the position's x more
    assert torch.equal(x.grad, torch.tensor([[[2.0, 9.0, 7.0], [5.0, 3.0, 3.0]]]))
    x.grad = None
    fused.gated(x, Highest(), []).sum().backward()
    assert torch.equal(x.grad, torch.tensor([[[3.0, 10.0, 3.0], [3.0, 9.0, 3.0]]]))


def test_values_that_are_no_numbers_pass_through():
    block, x = build("channel+spatial"), torch.randn(1, 8, 2, 3, 3, dtype=torch.float64)
    x[0, 2, 1, 1, 1] = float("nan")
    out, grad, *_ = derived(block, x, torch.ones_like(x), fast=True)
    assert out.isnan().any()
    assert grad.isnan().any()


def test_what_is_saved_is_little_more_than_the_features():
    block, x = CBAM(64), torch.randn(2, 64, 8, 14, 14, requires_grad=True)
    sizes: dict[int, int] = {}

    def note(saved: torch.Tensor) -> torch.Tensor:
        sizes[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
        block(x)
    assert sum(sizes.values()) <= 1.2 * x.nbytes


@pytest.mark.parametrize(
    "stray",
    [
        lambda: torch.randn(2, 4, 8, 6, 5).transpose(1, 2),  # frames before channels
        lambda: torch.randn(2, 8, 6, 5, 4).movedim(4, 2),
        lambda: torch.randn(2, 16, 4, 6, 5)[:, ::2],
        lambda: torch.randn(1, 8, 4, 6, 5).expand(2, -1, -1, -1, -1),
        lambda: torch.randn(0, 8, 4, 6, 5),
    ],
)
def test_features_in_any_order_in_memory(stray):
    block, x = build("channel+spatial+temporal"), stray().double()
    for grad in (torch.randn(x.shape, dtype=torch.float64), torch.ones((), dtype=torch.float64).expand(x.shape)):
        fast, literal = (derived(block, x, grad, way) for way in (True, False))
        for one, other in zip(fast, literal, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_what_does_not_learn_is_not_derived():
    block, x = build("channel+spatial"), torch.randn(2, 8, 2, 4, 4, dtype=torch.float64)
    block(x).sum().backward()  # the parameters alone
    assert all(p.grad is not None for p in block.parameters())
    frozen = build("channel+spatial").requires_grad_(False)
    (grad,) = torch.autograd.grad(frozen(x.requires_grad_()).sum(), x)
    assert grad.shape == x.shape
    with torch.no_grad():
        assert torch.equal(block(x), frozen(x))
    with torch.inference_mode():
        assert torch.equal(block(x.detach()), frozen(x.detach()))


def test_hooks_of_parameters_run_once():
    block, x = build("channel+spatial"), torch.randn(1, 8, 2, 4, 4, dtype=torch.float64)
    once = derived(block, x, torch.ones_like(x), fast=True)
    for parameter in block.parameters():
        parameter.register_hook(lambda grad: 2 * grad)
    for twice, one in zip(derived(block, x, torch.ones_like(x), fast=True)[2:], once[2:], strict=True):
        torch.testing.assert_close(twice, 2 * one)


def test_parametrised_and_swapped_weights():
    block, x = build("channel+spatial"), torch.randn(1, 8, 2, 4, 4, dtype=torch.float64)
    expected = block(x)
    swapped = {key: value * 1 for key, value in block.state_dict().items()}
    torch.testing.assert_close(torch.func.functional_call(block, swapped, (x,)), expected)
    conv = block.spatial.conv
    nn.utils.parametrizations.weight_norm(conv)
    torch.testing.assert_close(block(x), expected)
    nn.utils.parametrize.remove_parametrizations(conv, "weight")
    prune.random_unstructured(conv, "weight", 0.5)
    block(x).sum().backward()
    assert (conv.weight_orig.grad[conv.weight_mask == 0] == 0).all()


def test_flops_are_those_of_the_literal_form():
    block, x = build("channel+spatial", torch.float32).eval(), torch.randn(1, 8, 4, 12, 12)
    counted = []
    for fused.enabled in (True, False):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            block(x)
        counted.append(counter.get_total_flops())
    fused.enabled = True
    assert counted[0] == counted[1]


def test_activation_checkpointing_gives_the_same_gradients():
    block, x = build("channel+spatial+temporal"), torch.randn(2, 8, 4, 6, 5, dtype=torch.float64)
    expected = derived(block, x, torch.ones_like(x), fast=True)
    block.zero_grad()
    again = x.clone().requires_grad_()
    checkpoint(block, again, use_reentrant=False).sum().backward()
    assert again.grad is not None
    torch.testing.assert_close(again.grad, expected[1])


def test_one_pass_may_be_derived_twice():
    block, x = build("channel+spatial"), torch.randn(1, 8, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    out = block(x).sum()
    first = torch.autograd.grad(out, x, retain_graph=True)
    assert torch.equal(first[0], torch.autograd.grad(out, x)[0])


def test_functorch_and_compile_take_the_literal_form():
    block, x = build("channel+spatial", torch.float32).eval(), torch.randn(3, 8, 2, 6, 5)
    expected = block(x)
    each = torch.func.vmap(lambda one: block(one[None])[0])(x)
    torch.testing.assert_close(each, expected)
    compiled = torch.compile(block, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), expected)


@pytest.mark.parametrize(("kernel", "bias"), [((7, 7), False), ((3, 7, 7), True), ((5,), False)])
def test_the_convolution_of_planes_is_the_librarys(kernel, bias):
    ndim = len(kernel)
    make = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[ndim]
    conv = make(2, 1, kernel, padding=tuple(k // 2 for k in kernel), bias=bias).double()
    planes = torch.randn(2, 2, *(6, 9, 8)[:ndim], dtype=torch.float64, requires_grad=True)
    assert torch.equal(convolve(conv, planes), conv(planes))
    parameters = list(conv.parameters())
    expected = torch.autograd.grad(conv(planes).square().sum(), [planes, *parameters])
    for one, other in zip(
        torch.autograd.grad(convolve(conv, planes).square().sum(), [planes, *parameters]), expected, strict=True
    ):
        torch.testing.assert_close(one, other)
    assert torch.autograd.gradgradcheck(lambda x: convolve(conv, x).square(), (planes[:1].detach().requires_grad_(),))
