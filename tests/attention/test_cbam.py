import copy
import math

import numpy as np
import pytest
import torch

from cbam3d import CBAM, CBAM2d, CBAM3d, ChannelAttention, SpatialAttention, TemporalAttention

SHAPES = [(2, 8, 6, 5), (1, 3, 4, 6, 5), (2, 8, 3, 5, 4)]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def channel_map(x: np.ndarray, w1: np.ndarray, w2: np.ndarray) -> np.ndarray:
    """The paper's Mc with plain loops, (N, C)."""
    out = np.zeros(x.shape[:2])
    for n in range(x.shape[0]):
        for pool in (np.mean, np.max):
            pooled = [pool(x[n, c]) for c in range(x.shape[1])]
            hidden = [max(0.0, sum(w1[h, c] * pooled[c] for c in range(len(pooled)))) for h in range(len(w1))]
            for c in range(x.shape[1]):
                out[n, c] += sum(w2[c, h] * hidden[h] for h in range(len(hidden)))
    return np.vectorize(sigmoid)(out)


def spatial_map(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The paper's Ms with plain loops, (N, *S), for any rank: pooled planes are [mean; max]."""
    out = np.zeros((x.shape[0], *x.shape[2:]))
    reach = [k // 2 for k in kernel.shape[1:]]
    for place in np.ndindex(*out.shape):
        n, position = place[0], place[1:]
        total = 0.0
        for offset in np.ndindex(*kernel.shape[1:]):
            at = tuple(p + o - r for p, o, r in zip(position, offset, reach, strict=True))
            if all(0 <= a < s for a, s in zip(at, x.shape[2:], strict=True)):
                values = x[(n, slice(None), *at)]
                total += kernel[(0, *offset)] * values.mean() + kernel[(1, *offset)] * values.max()
        out[place] = sigmoid(total)
    return out


def temporal_map(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Mt with plain loops, (N, T)."""
    out = np.zeros((x.shape[0], x.shape[2]))
    for n, t in np.ndindex(*out.shape):
        total = 0.0
        for k in range(kernel.shape[1]):
            at = t + k - kernel.shape[1] // 2
            if 0 <= at < x.shape[2]:
                total += kernel[0, k] * x[n, :, at].mean() + kernel[1, k] * x[n, :, at].max()
        out[n, t] = sigmoid(total)
    return out


def reference(block: CBAM, x: np.ndarray) -> np.ndarray:
    """CBAM of the paper, channel then spatial then (in a clip) temporal."""
    expand = (slice(None), slice(None), *(None,) * (x.ndim - 2))
    w1, w2 = (p.detach().numpy() for p in block.channel.parameters())
    x = x * channel_map(x, w1, w2)[expand]
    x = x * spatial_map(x, block.spatial.conv.weight.detach().numpy()[0])[:, None]
    if x.ndim == 5:
        x = x * temporal_map(x, block.temporal.conv.weight.detach().numpy()[0])[:, None, :, None, None]
    return x


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_formula_written_with_loops(shape):
    torch.manual_seed(0)
    block = CBAM(shape[1], reduction=2, ndim=len(shape) - 2).double()
    x = torch.randn(shape, dtype=torch.float64)
    np.testing.assert_allclose(block(x).detach(), reference(block, x.numpy()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_equal_finite_differences(shape):
    torch.manual_seed(0)
    block = CBAM(shape[1], reduction=2, kernel_size=3, ndim=len(shape) - 2).double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    parameters = tuple(block.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: block(x), (x, *parameters), fast_mode=True)


def test_joint_space_time_kernel_equals_the_formula():
    torch.manual_seed(0)
    gate = SpatialAttention((3, 5, 5)).double()
    x = torch.randn(1, 4, 4, 5, 6, dtype=torch.float64)
    expected = spatial_map(x.numpy(), gate.conv.weight.detach().numpy()[0])
    np.testing.assert_allclose(gate.attention_map(x)[:, 0].detach(), expected, rtol=0, atol=1e-12)


def test_channel_map_by_hand():
    gate = ChannelAttention(2, reduction=2)
    with torch.no_grad():
        gate.mlp[0].weight.copy_(torch.tensor([[1.0, 2.0]]))
        gate.mlp[2].weight.copy_(torch.tensor([[1.0], [-1.0]]))
    x = torch.tensor([[[[0.0, 2.0]], [[1.0, 3.0]]]])  # means 1 and 2, maxima 2 and 3
    logit = (1 + 2 * 2) + (2 + 2 * 3)  # the ReLU does nothing
    expected = torch.tensor([sigmoid(logit), sigmoid(-logit)])
    torch.testing.assert_close(gate.attention_map(x).flatten(), expected)


def test_a_clip_of_one_frame_is_an_image():
    torch.manual_seed(0)
    image_block = CBAM2d(8, reduction=2)
    clip_block = CBAM3d(8, reduction=2, gates=("channel", "spatial"))
    state = image_block.state_dict()
    state["spatial.conv.weight"] = state["spatial.conv.weight"].unsqueeze(2)
    clip_block.load_state_dict(state)
    x = torch.randn(2, 8, 9, 7)
    torch.testing.assert_close(clip_block(x.unsqueeze(2)).squeeze(2), image_block(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("arrangement", ["sequential", "parallel"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_identity_init_is_exact_and_learns(batch_norm, arrangement, dtype):
    torch.manual_seed(0)
    block = CBAM3d(16, init="identity", batch_norm=batch_norm, arrangement=arrangement, bias=True).to(dtype)
    x = torch.randn(2, 16, 4, 8, 8, dtype=dtype)
    for mode in (block.train(), copy.deepcopy(block).eval()):
        assert torch.equal(mode(x), x)
    block(x).square().sum().backward()
    for gate in (block.channel, block.spatial, block.temporal):
        assert any(p.grad.abs().max() > 0 for p in gate.parameters())


def test_paper_init_scales_features_down():
    """What identity init is for: three fresh gates leave about an eighth of the features."""
    torch.manual_seed(0)
    x = torch.randn(4, 64, 4, 16, 16).relu()
    ratio = CBAM3d(64)(x).norm() / x.norm()
    assert 0.05 < ratio < 0.3


def test_gates_act_in_the_order_given():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 3, 5, 5)
    block = CBAM3d(4, reduction=2, gates=("temporal", "channel"))
    assert list(block.attention_maps(x)) == ["temporal", "channel"]
    torch.testing.assert_close(block(x), block.channel(block.temporal(x)))
    assert not hasattr(block, "spatial")


def test_parallel_gates_all_see_the_input():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 3, 5, 5)
    block = CBAM3d(4, reduction=2, arrangement="parallel")
    product = x
    for gate in (block.channel, block.spatial, block.temporal):
        product = product * gate.attention_map(x)
    torch.testing.assert_close(block(x), product)


def test_residual_adds_the_input():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 3, 5, 5)
    block = CBAM3d(4, reduction=2, residual=True)
    plain = CBAM3d(4, reduction=2)
    plain.load_state_dict(block.state_dict())
    torch.testing.assert_close(block(x), x + plain(x))


def test_map_shapes():
    x = torch.randn(2, 4, 3, 5, 6)
    maps = CBAM3d(4).attention_maps(x)
    assert {name: tuple(map_.shape) for name, map_ in maps.items()} == {
        "channel": (2, 4, 1, 1, 1),
        "spatial": (2, 1, 3, 5, 6),
        "temporal": (2, 1, 3, 1, 1),
    }


def test_reduction_beyond_the_channels_keeps_one_unit():
    assert ChannelAttention(8, reduction=16).mlp[0].weight.shape == (1, 8)


def test_parameter_count():
    # 2·C·C/r + 2·7·7 + 2·3
    assert sum(p.numel() for p in CBAM3d(64).parameters()) == 2 * 64 * 4 + 98 + 6


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CBAM3d(8, gates=("chanel",)), "did you mean 'channel'"),
        (lambda: CBAM3d(8, gates=("channel", "channel")), "each once"),
        (lambda: CBAM3d(8, gates=()), "at least one gate"),
        (lambda: CBAM2d(8, gates=("temporal",)), "no time axis"),
        (lambda: CBAM2d(8, kernel_size=4), "must be odd and positive, got 4"),
        (lambda: CBAM3d(8, kernel_size=(7, 7)), "3 ints"),
        (lambda: CBAM3d(8, temporal_kernel_size=2), "must be odd and positive, got 2"),
        (lambda: CBAM3d(8, init="zero"), "init must be"),
        (lambda: CBAM3d(8, arrangement="stacked"), "arrangement must be"),
        (lambda: CBAM3d(8, residual=True, init="identity"), "double the features"),
        (lambda: ChannelAttention(0), "at least 1"),
        (lambda: CBAM(8, ndim=4), "ndim must be 2 (images) or 3 (clips), got 4"),
        (lambda: CBAM3d(2)(torch.zeros(2, 2, 5, 5)), "(N, C, T, H, W)"),
        (lambda: SpatialAttention()(torch.zeros(2, 2, 5, 5)), "(N, C, T, H, W)"),
        (lambda: TemporalAttention()(torch.zeros(2, 2, 5, 5)), "(N, C, T, H, W)"),
    ],
)
def test_refusals_say_what_is_wrong(build, message):
    with pytest.raises(ValueError, match=r".+") as error:
        build()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("gates", [("channel",), ("spatial", "channel"), ("channel", "spatial", "temporal")])
def test_another_number_of_channels_is_one_line(gates):
    for x in (torch.zeros(1, 8, 2, 4, 4), torch.zeros(2, 32, 2, 4, 4)):
        with pytest.raises(ValueError, match=r"^expected 16 channels, got a tensor of shape "):
            CBAM3d(16, gates=gates)(x)
    with pytest.raises(ValueError, match=r"^expected 16 channels, got a tensor of shape "):
        ChannelAttention(16)(torch.zeros(1, 8, 4, 4))
