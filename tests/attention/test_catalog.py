"""What every mechanism of the catalogue owes its users, whatever it computes; that is in the files beside this one."""

import copy
import itertools

import pytest
import torch
from torch import nn

from cbam3d import (
    CBAM,
    create_attention,
    create_model,
    describe_attention,
    insert_attention,
    list_attentions,
    register_attention,
)
from cbam3d.attention import attention_ranks, catalog
from tests.attention.reference import randomised

CASES = [(name, ndim) for name in list_attentions() for ndim in attention_ranks(name)]
every = pytest.mark.parametrize(("name", "ndim"), CASES, ids=[f"{name}-{ndim}d" for name, ndim in CASES])

# Options that make a mechanism's 3D form the paper's 2D one at T=1; None where no option does.
AT_ONE_FRAME = {
    "cbam": {"gates": ("channel", "spatial")},
    "coordinate": {"axes": ("h", "w")},
    "deformable": {"kernel_size": (1, 3, 3), "temporal_offsets": False},
    "rga": {"grid": (1, 7, 7)},
    "ge": {"extent": 2, "parametrised": True},
    "san": {"form": "patchwise"},  # a pairwise block has a coordinate more
    "triplet": None,  # a clip has a fourth branch
    **{name: None for name in list_attentions() if attention_ranks(name) == (3,)},  # there is no 2D form
}


def build(name, ndim, channels=8, frames=4, **options):
    if name == "tam":
        options["num_frames"] = frames
    return create_attention(name, channels, ndim=ndim, **options)


def picture(ndim, channels=8, batch=2, sides=(4, 6, 7)):
    return torch.randn(batch, channels, *sides[-ndim:])


def test_creates_by_name_with_options():
    block = create_attention("cbam", 32, ndim=2, reduction=4, gates=("spatial",))
    assert isinstance(block, CBAM)
    assert block.gates == ("spatial",)
    assert block(torch.zeros(1, 32, 4, 4)).shape == (1, 32, 4, 4)


class Halved(nn.Module):
    """Half of what comes in, or all of it."""

    def __init__(self, channels, factor=0.5, init="paper"):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.0 if init == "identity" else factor))

    def forward(self, x):
        return self.factor * x


def test_a_mechanism_of_ones_own_has_a_name_too(monkeypatch):
    monkeypatch.setattr(catalog.mechanisms, "added", {})
    register_attention("halved", Halved)
    x = torch.ones(1, 4, 3, 3)
    assert torch.equal(create_attention("halved", 4, ndim=2)(x), x / 2)
    with pytest.raises(ValueError, match="did you mean 'factor'"):
        create_attention("halved", 4, facto=2)
    assert describe_attention("halved", 4, (3, 3)).num_parameters == 1
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).eval()
    image = torch.randn(1, 3, 8, 8)
    before = network(image)
    assert torch.equal(insert_attention(network, "halved", "0")(image), before)
    assert torch.allclose(
        create_model("resnet10", 3, ndim=2, attention="halved").layer1[0].attention.factor, x[0, 0, 0, 0] / 2
    )
    for name, block in (
        ("halved", Halved),
        ("se", Halved),
        ("none", Halved),
        ("two words", Halved),
        ("B", Halved),
        ("b", nn.ReLU),
    ):
        with pytest.raises(ValueError, match=r"a name of its own|whose first parameter is channels"):
            register_attention(name, block)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="did you mean 'cbam'"):
        create_attention("cbma", 8)
    with pytest.raises(ValueError, match="did you mean 'reduction'"):
        create_attention("cbam", 8, reducton=4)
    with pytest.raises(ValueError, match="attention 'tam' needs num_frames"):
        create_attention("tam", 8)
    with pytest.raises(ValueError, match="channels must be at least 1, got 0"):
        create_attention("eca", 0)
    with pytest.raises(ValueError, match=r"expected \(N, C, \*spatial\)"):
        create_attention("simam", 8)(torch.zeros(2, 8))
    with pytest.raises(ValueError, match="ndim must be 2"):
        create_attention("eca", 8, ndim=4)


@every
@pytest.mark.parametrize("init", ["paper", "identity"])
def test_shapes_odd_even_and_narrow(name, ndim, init):
    """Fewer channels than the reduction, batches of one, odd and even sides, a side of one."""
    sides = [(4, 6, 6), (4, 7, 5), (4, 1, 3)]
    for channels, batch, side in itertools.product((2, 3, 24), (1, 2), sides):
        block = build(name, ndim, channels, init=init).eval()
        x = picture(ndim, channels, batch, side)
        before = x.clone()
        out = block(x)
        assert out.shape == x.shape
        assert out.isfinite().all()
        assert torch.equal(x, before)  # no change in place
        assert torch.equal(block(x), out)  # the same again


@every
def test_every_parameter_gets_a_finite_gradient(name, ndim):
    torch.manual_seed(0)
    for block in (build(name, ndim), randomised(build(name, ndim, init="identity"))):
        x = picture(ndim).requires_grad_()
        before = x.detach().clone()
        block.train()(x).square().sum().backward()
        assert torch.equal(x.detach(), before)
        assert x.grad is not None
        assert x.grad.isfinite().all()
        for key, parameter in block.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key


# Biases that change nothing: a norm behind them, or a softmax, takes them away again.
SILENT = {
    "bam": {"channel.0.bias", "spatial.0.bias", "spatial.3.bias", "spatial.6.bias"},
    "coordinate": {"shared.0.bias"},
    "criss_cross": {"key.bias"},
    "gc": {"key.bias"},
    "non_local": {"phi.bias", "g.bias", "out.bias"},
    "san": {"phi.bias", "psi.bias", "beta.bias", "gamma.5.bias"},
    "self_attention": {"key.bias"},
}


@every
def test_every_other_parameter_makes_a_difference(name, ndim):
    """Away from the start, and in training, the gradient of a parameter is no rounding error."""
    torch.manual_seed(0)
    options = {"group_channels": 2} if name == "san" else {}  # several groups: of one, every unit may be alive
    block = randomised(build(name, ndim, 32, init="identity", **options)).double().train()
    x = picture(ndim, 32, batch=4).double()
    (block(x) * torch.randn_like(x)).sum().backward()
    gradients = {key: p.grad for key, p in block.named_parameters()}
    silent = {key for key, grad in gradients.items() if grad is None or grad.abs().max() < 1e-9}
    assert silent == SILENT.get(name, set())


@every
@pytest.mark.parametrize("training", [True, False])
def test_the_identity_start_is_exact_and_learns(name, ndim, training):
    torch.manual_seed(0)
    block = build(name, ndim, 32, init="identity").train(training)
    x = picture(ndim, 32)
    out = block(x)
    assert torch.equal(out, x)
    (out * torch.randn_like(out)).sum().backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in block.parameters())


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_precisions(name, ndim, dtype):
    """Close to float64, and in the precision that came in."""
    torch.manual_seed(0)
    exact = randomised(build(name, ndim)).double().eval()
    x = picture(ndim).double()
    out = copy.deepcopy(exact).to(dtype)(x.to(dtype))
    assert out.dtype == dtype
    error = (out.double() - exact(x)).norm() / exact(x).norm()
    assert error < {torch.float32: 1e-5, torch.bfloat16: 0.06}[dtype]


@every
@pytest.mark.parametrize("init", ["paper", "identity"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mixed_precision_trains_and_keeps_the_precision_of_the_features(name, ndim, init, dtype):
    torch.manual_seed(0)
    block = randomised(build(name, ndim, init=init)).train()
    x = picture(ndim).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = block(x)
    assert out.dtype == dtype
    out.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())


@every
def test_memory_formats(name, ndim):
    torch.manual_seed(0)
    memory_format = torch.channels_last if ndim == 2 else torch.channels_last_3d
    block, x = randomised(build(name, ndim)).eval(), picture(ndim).requires_grad_()
    expected = block(x)
    out = block.to(memory_format=memory_format)(x.contiguous(memory_format=memory_format))
    atol = 1e-4 if name == "deformable" else 1e-5  # rounding moves the places of its kernel
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=atol)
    out.sum().backward()


CLIPS_FIRST = [
    pytest.param(*case, marks=() if case[1] == max(attention_ranks(case[0])) else pytest.mark.slow) for case in CASES
]


@pytest.mark.parametrize(("name", "ndim"), CLIPS_FIRST)
@pytest.mark.parametrize(("init", "training"), [("paper", False), ("identity", True)])
def test_compiles_without_a_graph_break(name, ndim, init, training):
    torch.manual_seed(0)
    torch.compiler.reset()
    block, x = randomised(build(name, ndim, init=init)).train(training), picture(ndim)
    expected = copy.deepcopy(block)(x)
    torch.testing.assert_close(torch.compile(block, backend="eager", fullgraph=True)(x), expected)


@pytest.mark.slow
@every
def test_compiled_gradients_in_bfloat16_are_those_of_float32(name, ndim):
    torch.manual_seed(0)
    torch.compiler.reset()
    conv, norm = (nn.Conv2d, nn.BatchNorm2d) if ndim == 2 else (nn.Conv3d, nn.BatchNorm3d)
    network = nn.Sequential(conv(8, 8, 3, padding=1), norm(8), nn.GELU(), randomised(build(name, ndim)), conv(8, 4, 1))
    x, wanted = picture(ndim, batch=8), torch.randn(8, 4)

    def gradients(called, precise):
        network.zero_grad()
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            out = called(x).flatten(2).mean(2)
        (out.float() - wanted).square().mean().backward()
        return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])

    expected = gradients(network, True)
    rounded = (gradients(network, False) - expected).norm() / expected.norm()
    compiled = (gradients(torch.compile(network), False) - expected).norm() / expected.norm()
    assert compiled <= 2 * rounded + 0.02


@pytest.mark.parametrize(("name", "ndim"), CLIPS_FIRST)
def test_exports_for_batches_of_any_size(name, ndim):
    torch.manual_seed(0)
    block, x = randomised(build(name, ndim)).eval(), picture(ndim)
    program = torch.export.export(block, (x,), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=64)},))
    for batch in (x, picture(ndim, batch=5)):
        torch.testing.assert_close(program.module()(batch), block(batch))


@every
@pytest.mark.parametrize("source_init", ["paper", "identity"])
def test_weights_mean_the_same_under_the_other_start(name, ndim, source_init):
    """What decides how a block computes travels in its state dict."""
    torch.manual_seed(0)
    source = randomised(build(name, ndim, init=source_init)).eval()
    target = build(name, ndim, init="paper" if source_init == "identity" else "identity").eval()
    target.load_state_dict(source.state_dict())
    x = picture(ndim)
    torch.testing.assert_close(target(x), source(x))


@every
def test_a_state_dict_goes_there_and_back(name, ndim):
    """Also what is no parameter: bases, running statistics, the factor of a gate."""
    torch.manual_seed(0)
    source = randomised(build(name, ndim, init="identity" if name == "cbam" else "paper")).train()
    source(picture(ndim))
    source.eval()
    target = build(name, ndim, init="identity" if name == "cbam" else "paper").eval()
    target.load_state_dict(source.state_dict())
    x = picture(ndim)
    assert torch.equal(source(x), target(x))


@pytest.mark.parametrize("name", list_attentions())
def test_a_clip_of_one_frame_is_an_image(name):
    torch.manual_seed(0)
    options = AT_ONE_FRAME.get(name, {})
    if options is None:
        pytest.skip("has another form in clips")
    flat = {k: v for k, v in options.items() if k in ("extent", "parametrised", "form")}
    image, clip = randomised(build(name, 2, **flat)).eval(), build(name, 3, **options).eval()
    state = clip.state_dict()
    for key, value in image.state_dict().items():
        if state[key].ndim > value.ndim:  # a kernel: the image's in the middle frame
            state[key] = torch.randn_like(state[key])
            state[key][:, :, state[key].shape[2] // 2] = value
        else:
            state[key] = value.reshape(state[key].shape)
    clip.load_state_dict(state)
    x = picture(2)
    torch.testing.assert_close(clip(x[:, :, None])[:, :, 0], image(x), rtol=1e-5, atol=1e-6)


@every
@pytest.mark.parametrize("init", ["paper", "identity"])
def test_no_parameter_is_a_scalar(name, ndim, init):
    """torch.distributed.fsdp.fully_shard refuses parameters without an axis to divide."""
    assert all(parameter.ndim for parameter in build(name, ndim, init=init).parameters())


def test_looking_something_up_changes_nothing():
    state = torch.random.get_rng_state()
    describe_attention("se", 8, (4, 4))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_facts_by_hand():
    facts = describe_attention("se", 32, (8, 8))
    assert facts is not None
    assert facts.num_parameters == 2 * 32 * 2 + 2 + 32
    assert facts.multiply_adds == 2 * 32 * 2
    assert not facts.starts_as_identity
    assert describe_attention("tam", 32, (8, 8)) is None
    by_hand = {"eca": 3, "gct": 3 * 8, "simam": 0, "tsm": 0, "criss_cross": 2 * (8 + 1) + 8 * (8 + 1) + 1}
    for name, number in by_hand.items():
        facts = describe_attention(name, 8, (4, 5, 5))
        assert facts is not None
        assert facts.num_parameters == number
    facts = [describe_attention(name, 8, (4, 5, 5)) for name in list_attentions()]
    assert {f.name for f in facts if f and f.starts_as_identity} == {"criss_cross", "gc", "gct", "non_local", "stn"}


@pytest.mark.parametrize("name", list_attentions())
def test_it_is_a_module_with_a_docstring_of_its_own(name):
    block = build(name, 3)
    assert isinstance(block, nn.Module)
    about = type(block).__doc__ or ""
    assert "Shapes: " in about
    assert "Args:" in about


@pytest.mark.parametrize("kind", ["half", "autocast"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("name", "options"), [*((name, {}) for name in list_attentions()), ("non_local", {"mode": "dot_product"})]
)
def test_large_features_stay_finite_in_float16(name, options, training, kind):
    """Networks without norms behind their sums put out features of such size; outputs below 65,504 must be numbers."""
    for std in (100, 3000):
        torch.manual_seed(0)
        block, x = build(name, 3, 32, **options).train(training), std * torch.randn(2, 32, 4, 8, 8)
        if kind == "half":
            block = block.half()
        with torch.autocast("cpu", torch.float16, enabled=kind == "autocast"):
            out = block(x.half())
        # ACTION is the sum of three excitations, up to 6 times its input
        assert out.isfinite().all() or (name == "action" and 6 * x.abs().max() > 65_504), std


def test_what_is_for_clips_only_says_so_and_names_may_be_in_capitals(monkeypatch):
    class OfImages(torch.nn.Identity):
        ranks = (2,)

        def __init__(self, channels):
            super().__init__()

    monkeypatch.setattr(catalog.mechanisms, "added", {"of_images": OfImages})
    create_attention("of_images", 8, ndim=2)
    with pytest.raises(ValueError, match="of_images needs images"):
        create_attention("of_images", 8, ndim=3)
    with pytest.raises(ValueError, match="tam needs clips"):
        create_attention("tam", 8, ndim=2)
    with pytest.raises(ValueError, match="did you mean 'cbam'"):
        create_attention("CBAM", 8)
    with pytest.raises(ValueError, match=r"such as \['channel'\]"):
        create_attention("cbam", 8, gates="channel")


@every
def test_weights_can_be_swapped_for_a_call(name, ndim):
    """By `torch.func.functional_call` with plain tensors, as weight norm and pruning do, too."""
    torch.manual_seed(0)
    block, x = randomised(build(name, ndim)).eval(), picture(ndim)
    doubled = {key: 2 * value for key, value in block.named_parameters()}
    swapped = torch.func.functional_call(block, doubled, (x,))
    with torch.no_grad():
        for parameter in block.parameters():
            parameter *= 2
    torch.testing.assert_close(block(x), swapped)
