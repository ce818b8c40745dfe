"""The operators of gates against plain PyTorch, and the blocks built of them."""

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch.autograd import forward_ad
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from cbam3d import CBAM, create_attention
from cbam3d.attention.ops import cpu, gating, planes, reference
from cbam3d.attention.ops.gating import pool_axis, pool_channels, pool_positions, scale
from cbam3d.attention.ops.planes import PLANE_CONV

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
    """Several blocks of samples, channels and positions also for small features, and of planes."""
    monkeypatch.setattr(cpu, "_CACHE", 5000)
    monkeypatch.setattr(planes, "_LEAST", 0)


@pytest.fixture
def plain(monkeypatch):
    """Called with True, blocks consist of ordinary operations."""
    usual = gating.is_plain, planes.must_be_plain

    def switch(on: bool) -> None:
        monkeypatch.setattr(gating, "is_plain", (lambda x: True) if on else usual[0])
        monkeypatch.setattr(planes, "must_be_plain", (lambda x: True) if on else usual[1])

    return switch


def build(name: str, dtype: torch.dtype = torch.float64, spread: float = 1.0) -> nn.Module:
    torch.manual_seed(0)
    mechanism, options = BLOCKS[name]
    block = create_attention(mechanism, 8, ndim=3, reduction=2, **options) if mechanism != "eca" else None
    block = block or create_attention("eca", 8, ndim=3)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=spread)
    return block.to(dtype)


def derived(block: nn.Module, x: torch.Tensor, grad: torch.Tensor) -> list[torch.Tensor]:
    """Output, and the gradients of input and parameters."""
    block.zero_grad()
    x = x.clone().requires_grad_()
    out = block(x)
    out.backward(grad)
    assert x.grad is not None
    return [out.detach(), x.grad, *(p.grad.clone() for p in block.parameters() if p.grad is not None)]


def arguments(layout: torch.memory_format = torch.contiguous_format, dtype: torch.dtype = torch.float64):
    """Of every operator: features of several blocks, gates, gradients."""
    torch.manual_seed(0)
    shape = (3, 8, 4, 6, 5)
    x, grad, dx = (torch.randn(shape, dtype=dtype).to(memory_format=layout) for _ in range(3))
    a, plane = torch.rand(3, 8, dtype=dtype), (3, 1, 4, 6, 5)
    b, d_mean, d_maximum = (torch.rand(plane, dtype=dtype) for _ in range(3))
    of_channels = torch.randn(2, 3, 8, 1, 1, 1, dtype=dtype)
    x[0, 0], x[1, :, 2] = x.amax(), x.amin()  # tied maxima of a channel, and of positions
    for finds in (True, False):
        yield "pool_positions", (x, finds)
    _, highest, which = torch.ops.cbam3d.pool_positions(x, True)
    yield "pool_positions_backward_", (x, highest, which, *of_channels, dx)
    for gate in (a, None):
        for finds in (True, False):
            yield "pool_channels", (x, gate, finds)
        _, highest, which = torch.ops.cbam3d.pool_channels(x, gate, True)
        yield "pool_channels_backward_", (x, gate, highest, which, d_mean, d_maximum, dx)
    for gates in ((a, b), (a, None), (None, b)):
        yield "scale", (x, *gates)
        yield "scale_backward", (x, *gates, grad)


def planes_and_weight(dtype: torch.dtype = torch.float64):
    return torch.randn(2, 2, 3, 6, 5, dtype=dtype), torch.randn(1, 2, 3, 5, 1, dtype=dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_kernels_are_the_reference(layout):
    for name, given in arguments(layout):
        operator, written = getattr(torch.ops.cbam3d, name), getattr(reference, name.removesuffix("_"))
        if name.endswith("_"):  # adds to its last argument
            *others, which, d_mean, d_maximum, dx = given
            found = [dx.clone()]
            found += [more for more in [operator(*others, which, d_mean, d_maximum, *found)] if more is not None]
            expected = written(*others, d_mean, d_maximum)
            expected = list(expected) if isinstance(expected, tuple) else [expected]
            expected[0] = dx + expected[0]
        elif name.startswith("pool"):
            found, expected = operator(*given)[:2], written(*given[:-1])
        else:
            found, expected = operator(*given), written(*given)
            found, expected = ((one,) if isinstance(one, torch.Tensor) else one for one in (found, expected))
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_operators_are_sound():
    for name, given in arguments(torch.contiguous_format):
        torch.library.opcheck(getattr(torch.ops.cbam3d, name), given)
    maps, weight = planes_and_weight()
    torch.library.opcheck(torch.ops.cbam3d.convolve_planes, (maps, weight))
    torch.library.opcheck(torch.ops.cbam3d.convolve_planes_backward, (maps, weight, maps[:, :1]))


def test_operators_say_which_layout_they_return():
    for name, given in arguments(torch.channels_last_3d):
        torch.library.opcheck(getattr(torch.ops.cbam3d, name), given, test_utils=("test_schema", "test_faketensor"))


def chained(pooled):
    """A function of all three results of a pool."""
    x, mean, maximum = pooled
    gates = (mean * maximum, None) if mean.shape[2:].numel() == 1 else (None, mean * maximum)
    return scale(x, *gates)


@pytest.mark.parametrize("with_a", [True, False])
def test_derivatives_of_the_operators(with_a):
    x = torch.randn(2, 3, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    a = torch.rand(2, 3, 1, 1, 1, dtype=torch.float64, requires_grad=True) if with_a else None
    b = torch.rand(2, 1, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda x: pool_positions(x)[1:], (x,))
        assert check(lambda x: chained(pool_positions(x)), (x,))
        assert check(lambda x, a: pool_channels(x, a)[1:], (x, a))
        assert check(lambda x, a: chained(pool_channels(x, a)), (x, a))
        assert check(scale, (x, a, b))


def test_reference_derivatives_are_autograds():
    x = torch.randn(2, 3, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    a, b = torch.rand(2, 3, dtype=torch.float64, requires_grad=True), torch.rand(2, 1, 2, 4, 3, dtype=torch.float64)
    b.requires_grad_()
    for one, given, derive in (
        (reference.pool_positions, (x,), reference.pool_positions_backward),
        (reference.pool_channels, (x, a), reference.pool_channels_backward),
        (reference.scale, (x, a, b), reference.scale_backward),
    ):
        out = one(*given)
        outs = out if isinstance(out, tuple) else (out,)
        grads = [torch.randn_like(o) for o in outs]
        expected = torch.autograd.grad(outs, given, grads)
        found = derive(*given, *outs[1:], *grads)
        for left, right in zip(found if isinstance(found, tuple) else (found,), expected, strict=True):
            torch.testing.assert_close(left, right)


def test_a_backward_pass_within_autocast_is_the_same(monkeypatch):
    monkeypatch.setattr(cpu, "_CACHE", 2**20)
    block, x = build("channel+spatial+temporal", torch.float32, 0.3), torch.randn(2, 8, 8, 40, 40, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = block(x).square().sum()
    (outside,) = torch.autograd.grad(loss, x, retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        (inside,) = torch.autograd.grad(loss, x)
    assert torch.equal(inside, outside)  # places above 256 are no bfloat16


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_are_those_of_ordinary_operations(name, layout, plain):
    block = build(name)
    for size in ((3, 8, 4, 6, 5), (1, 8, 1, 7, 9), (2, 8, 20, 9, 11)):
        x, grad = (
            torch.randn(size, dtype=torch.float64).to(memory_format=layout),
            torch.randn(size, dtype=torch.float64),
        )
        assert type(block(x.requires_grad_()).grad_fn).__name__ == "_ScaleBackward"
        state = {key: value.clone() for key, value in block.state_dict().items()}
        plain(True)
        literal = derived(block, x.detach(), grad)
        plain(False)
        moved = {key: value.clone() for key, value in block.state_dict().items()}
        block.load_state_dict(state)
        fast = derived(block, x.detach(), grad)
        for one, other in zip(fast, literal, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
        for key, value in block.state_dict().items():  # batch statistics are counted once
            torch.testing.assert_close(value, moved[key], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", BLOCKS)
def test_gradcheck(name):
    block = build(name).eval()
    x = torch.randn(2, 8, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    parameters = list(block.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: block(x), (x, *parameters), fast_mode=True)


@pytest.mark.parametrize("name", ["channel+spatial+temporal", "se"])
def test_second_derivatives(name):
    block = build(name).eval()
    for parameter in block.parameters():
        parameter.data.abs_()  # no hidden unit at the kink
    x = torch.rand(1, 8, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(block, (x,), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_single_and_half_precision(dtype, plain):
    block, x = build("channel+spatial+temporal", torch.float32, 0.3), torch.randn(2, 8, 4, 12, 11)
    plain(True)
    expected = derived(block, x, torch.ones_like(x))
    plain(False)
    found = derived(block.to(dtype), x.to(dtype), torch.ones_like(x, dtype=dtype))
    limit = {torch.float32: 1e-5, torch.bfloat16: 0.1, torch.float16: 0.02}[dtype]
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype
        assert (one.float() - other).abs().mean() <= limit * other.abs().mean()


@pytest.mark.parametrize("features", [torch.float32, torch.bfloat16])
def test_mixed_precision(features, plain):
    block, x = build("channel+spatial", torch.float32, 0.3), torch.randn(2, 8, 4, 12, 11)
    with torch.autocast("cpu", torch.bfloat16):
        found = derived(block, x.to(features), torch.ones_like(x, dtype=features))
    plain(True)
    expected = derived(block, x, torch.ones_like(x))
    assert found[0].dtype == features
    for one, other in zip(found, expected, strict=True):  # on the whole: rounding may move a maximum
        assert (one.float() - other).abs().mean() <= 0.1 * other.abs().mean()


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 4, 5, 6)])
def test_pooling_an_axis(shape):
    x = torch.randint(0, 4, shape).double().requires_grad_()  # with equal maxima
    for axis in range(1, len(shape)):
        passed, mean, maximum = pool_axis(x, axis)
        expected = x.mean(axis, keepdim=True), x.amax(axis, keepdim=True)
        weights = [torch.randn_like(passed), *(torch.randn_like(one) for one in expected)]
        torch.testing.assert_close((mean, maximum), expected)
        (found,) = torch.autograd.grad((scale(passed), mean, maximum), x, weights)
        (wanted,) = torch.autograd.grad((x * 1, *expected), x, weights)
        torch.testing.assert_close(found, wanted)


def test_equal_maxima_share_the_gradient():
    x = torch.tensor([[[1.0, 3.0, 3.0], [2.0, 3.0, 1.0]]], requires_grad=True)  # (1, 2 channels, 3 positions)
    passed, _, maximum = pool_channels(x)
    scale(passed, None, maximum).sum().backward()
    # y = x·M, dy/dx = M, and at the maxima of a position the sum of its x more: 3, 6 for two of them, 4
    assert torch.equal(x.grad, torch.tensor([[[2.0, 6.0, 7.0], [5.0, 6.0, 3.0]]]))
    x.grad = None
    passed, _, maximum = pool_positions(x)
    scale(passed, maximum).sum().backward()
    # at the maxima of a channel: 7 for two of them, 6
    assert torch.equal(x.grad, torch.tensor([[[3.0, 6.5, 6.5], [3.0, 9.0, 3.0]]]))


def test_values_that_are_no_numbers_pass_through():
    block, x = build("channel+spatial"), torch.randn(1, 8, 2, 3, 3, dtype=torch.float64)
    x[0, 2, 1, 1, 1] = float("nan")
    out, grad, *_ = derived(block, x, torch.ones_like(x))
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
def test_features_in_any_order_in_memory(stray, plain):
    block, x = build("channel+spatial+temporal"), stray().double()
    for grad in (torch.randn(x.shape, dtype=torch.float64), torch.ones((), dtype=torch.float64).expand(x.shape)):
        fast = derived(block, x, grad)
        plain(True)
        literal = derived(block, x, grad)
        plain(False)
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
    once = derived(block, x, torch.ones_like(x))
    for parameter in block.parameters():
        parameter.register_hook(lambda grad: 2 * grad)
    for twice, one in zip(derived(block, x, torch.ones_like(x))[2:], once[2:], strict=True):
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


def test_flops_are_those_of_ordinary_operations(plain):
    block, x = build("channel+spatial", torch.float32).eval(), torch.randn(1, 8, 4, 12, 12)
    counted = []
    for on in (True, False):
        plain(on)
        with FlopCounterMode(display=False) as counter:
            block(x).sum().backward()
        counted.append(counter.get_total_flops())
    assert counted[0] == counted[1]


def test_activation_checkpointing_gives_the_same_gradients():
    block, x = build("channel+spatial+temporal"), torch.randn(2, 8, 4, 6, 5, dtype=torch.float64)
    expected = derived(block, x, torch.ones_like(x))
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


@pytest.mark.parametrize("name", ["cbam", "eca", "srm"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_many_gradients_at_once(name, ndim):
    block = create_attention(name, 6, ndim=ndim).double().eval()
    x = torch.randn(2, 6, *(3, 4, 5)[-ndim:], dtype=torch.float64)
    one_by_one = torch.autograd.functional.jacobian(block, x)
    torch.testing.assert_close(torch.autograd.functional.jacobian(block, x, vectorize=True), one_by_one)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # in torch.func.jvp itself
def test_functorch():
    block, x = build("channel+spatial"), torch.randn(3, 8, 2, 6, 5, dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(lambda one: block(one[None])[0])(x), block(x))
    given, direction = x[:1], torch.randn(1, 8, 2, 6, 5, dtype=torch.float64)
    _, forward = torch.func.jvp(block, (given,), (direction,))
    found = torch.func.grad(lambda x: (block(x) * direction).sum())(given)
    torch.testing.assert_close((found * direction).sum(), (forward * direction).sum())
    with forward_ad.dual_level():
        dual = block(forward_ad.make_dual(given, direction))
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, forward)


def test_torch_compile_fuses_the_gates_and_keeps_the_convolution_of_planes():
    if torch.compile(lambda x: x + torch.compiler.is_exporting(), backend="eager")(torch.zeros(1)):
        pytest.skip("this PyTorch (2.9) takes itself to be exporting while it compiles: its own convolution is kept")
    block, x = build("channel+spatial+temporal"), torch.randn(2, 8, 4, 6, 5, dtype=torch.float64)
    expected = derived(block, x, torch.ones_like(x))
    seen: list[str] = []

    def note(graph: torch.fx.GraphModule, inputs: object) -> object:
        seen.extend(str(node.target) for node in graph.graph.nodes if str(node.target).startswith("cbam3d."))
        return make_boxed_func(graph.forward)

    compiled = torch.compile(block, backend=aot_autograd(fw_compiler=note, bw_compiler=note), fullgraph=True)
    for one, other in zip(derived(compiled, x, torch.ones_like(x)), expected, strict=True):
        torch.testing.assert_close(one, other)
    twice = ["cbam3d.convolve_planes.default"] * 2  # forward, and the gradient of the planes
    assert sorted(seen) == [*twice, "cbam3d.convolve_planes_backward.default"]


def test_exported_programs_need_pytorch_alone():
    block, x = build("channel+spatial", torch.float32).eval(), torch.randn(3, 8, 2, 6, 5)
    program = torch.export.export(block, (x,))
    assert not any("cbam3d" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(x), block(x))


@pytest.mark.parametrize("least", [0, 2**30])
@pytest.mark.parametrize(("kernel", "bias"), [((7, 7), False), ((3, 7, 7), True), ((7, 3, 1), False), ((1, 1), True)])
def test_the_convolution_of_planes_is_the_librarys(monkeypatch, kernel, bias, least):
    monkeypatch.setattr(planes, "_LEAST", least)
    ndim = len(kernel)
    conv = PLANE_CONV[ndim](2, 1, kernel, padding=tuple(k // 2 for k in kernel), bias=bias).double()
    usual = {2: nn.Conv2d, 3: nn.Conv3d}[ndim](2, 1, kernel, padding=conv.padding, bias=bias).double()
    usual.load_state_dict(conv.state_dict())
    for size in ((6, 9, 8), (1, 1, 1), (2, 5, 16)):
        x = torch.randn(2, 2, *size[-ndim:], dtype=torch.float64, requires_grad=True)
        results = []
        for layer in (conv, usual):
            out = layer(x)
            results.append([out, *torch.autograd.grad(out.square().sum(), [x, *layer.parameters()])])
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other)
    one = torch.randn(1, 2, *(2, 5, 6)[-ndim:], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: conv(x).square(), (one,), fast_mode=True)


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float64])
def test_another_default_dtype_changes_nothing(default):
    block, x = CBAM(8, ndim=3), torch.randn(2, 8, 4, 6, 6, requires_grad=True)
    expected = block(x)
    (gradient,) = torch.autograd.grad(expected.square().sum(), x)
    torch.set_default_dtype(default)
    try:
        found = block(x)
        (other,) = torch.autograd.grad(found.square().sum(), x)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)
    assert torch.equal(other, gradient)


@pytest.mark.parametrize("count", [200, 1000, 70_000])
def test_maxima_are_found_where_products_of_matrices_are_of_bfloat16(count):
    usual = torch.get_float32_matmul_precision()
    torch.manual_seed(0)
    x = torch.randn(2, 2, 1, 1, count)
    try:
        for precision in ("highest", "medium"):
            torch.set_float32_matmul_precision(precision)
            assert torch.equal(cpu.pool_positions(x, True)[2].flatten(), x.flatten(2).argmax(2).flatten())
            channels = x.reshape(2, count, 1, 1, 2)
            assert torch.equal(cpu.pool_channels(channels, None, True)[2], channels.flatten(2).argmax(1))
    finally:
        torch.set_float32_matmul_precision(usual)
