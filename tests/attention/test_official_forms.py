"""What the authors' code computes where it is not what the paper says, from its formulas and not from its code."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cbam3d import create_attention
from cbam3d.attention.fca import TOP16
from cbam3d.attention.nd import pool_to_grid
from tests.attention.reference import randomised


def block(name, channels=8, **options):
    torch.manual_seed(0)
    return randomised(create_attention(name, channels, ndim=2, **options)).double().eval()


def features(channels=8, height=9, width=11):
    return torch.randn(2, channels, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_bam_multiplies_its_maps():
    mine, x = block("bam", reduction=2, combine="product"), features()
    channel, spatial = mine.channel(x.mean((2, 3)))[..., None, None], mine.spatial(x)
    torch.testing.assert_close(mine(x), x * (1 + torch.sigmoid(channel * spatial)))
    started = create_attention("bam", 8, ndim=2, combine="product", init="identity").eval()
    assert torch.equal(started(x.float()), x.float())
    started(x.float()).sum().backward()
    assert started.spatial[9].weight.grad.abs().max() > 0


@pytest.mark.parametrize("grid", [7, 14])
def test_fca_has_an_orthonormal_basis_and_frequencies_that_follow_the_grid(grid):
    mine, x = block("fca", 32, grid=grid, orthonormal=True), features(32, 2 * grid, 2 * grid)
    pooled = F.avg_pool2d(x, 2)
    z = torch.zeros(2, 32, dtype=torch.float64)
    for channel in range(32):
        u, v = (frequency * (grid // 7) for frequency in TOP16[channel // 2])
        for i in range(grid):
            for j in range(grid):
                along_h = math.cos(math.pi * u * (i + 0.5) / grid) / math.sqrt(grid) * (math.sqrt(2) if u else 1)
                along_w = math.cos(math.pi * v * (j + 0.5) / grid) / math.sqrt(grid) * (math.sqrt(2) if v else 1)
                z[:, channel] += pooled[:, channel, i, j] * along_h * along_w
    torch.testing.assert_close(mine(x), x * torch.sigmoid(mine.mlp(z))[..., None, None], rtol=1e-5, atol=1e-6)


def test_non_local_divides_by_the_root_of_the_channels():
    mine, x = block("non_local", scaled=True), features()
    query, key, value = (part(x).flatten(2).transpose(1, 2) for part in (mine.theta, mine.phi, mine.g))
    weights = torch.softmax(query @ key.transpose(1, 2) / math.sqrt(4), 2)
    y = (weights @ value).transpose(1, 2).reshape(2, 4, 9, 11)
    torch.testing.assert_close(mine(x), x + mine.norm(mine.out(y)))


@pytest.mark.parametrize(("channels", "stride"), [(8, 2), (256, 2), (257, 1)])
def test_gsop_sees_positive_features_and_every_second_position(channels, stride):
    mine, x = block("gsop", channels, hidden=4, official=True), features(channels)
    y = mine.reduce(x.clamp(min=0)[:, :, ::stride, ::stride]).flatten(2)
    covariance = torch.stack([torch.cov(sample, correction=0) for sample in y])
    rows = mine.row_conv(mine.row_norm(covariance))
    torch.testing.assert_close(mine(x), x * torch.sigmoid(mine.last(rows.flatten(1)))[..., None, None])


def test_sc_upsamples_to_the_nearest():
    mine, x = block("sc", pooling=2, upsampling="nearest"), features(8, 8, 12)
    first, second = x.chunk(2, 1)
    around = mine.k2(F.avg_pool2d(first, 2)).repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = torch.cat([mine.k4(mine.k3(first) * torch.sigmoid(first + around)), mine.k1(second)], 1)
    torch.testing.assert_close(mine(x), expected)


def test_residual_aligns_corners(monkeypatch):
    mine, x = block("residual", align_corners=True), features()
    asked = []
    monkeypatch.setattr(
        F,
        "interpolate",
        lambda y, **options: asked.append(options["align_corners"]) or torch.zeros(2, 8, 9, 11).double(),
    )
    mine(x)
    assert asked == [True]


@pytest.mark.parametrize(("name", "option"), [("bam", "combine"), ("sc", "upsampling")])
def test_other_words_are_refused(name, option):
    with pytest.raises(ValueError, match=f"{option} must be"):
        create_attention(name, 8, **{option: "other"})


def test_ema_is_two_things():
    with pytest.raises(ValueError, match=r"em_attention.*efficient multi-scale attention"):
        create_attention("ema", 8)


class Pool(nn.Module):
    def __init__(self, grid):
        super().__init__()
        self.grid = grid

    def forward(self, x):
        return pool_to_grid(x, self.grid)


@pytest.mark.parametrize(("size", "grid"), [((5, 9, 11), (4, 7, 7)), ((1, 14, 6), (2, 7, 3)), ((9, 4), (3, 7))])
def test_a_grid_is_the_same_in_an_export(size, grid):
    x = torch.randn(2, 3, *size)
    exported = torch.export.export(Pool(grid), (x,)).module()
    assert "adaptive" not in str(exported.graph)
    torch.testing.assert_close(exported(x), Pool(grid)(x))


@pytest.mark.parametrize("name", ["fca", "rga"])
def test_clips_go_to_onnx(name, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    mine, x = create_attention(name, 8, ndim=3).eval(), torch.randn(1, 8, 4, 9, 11)
    torch.onnx.export(mine, (x,), str(tmp_path / "net.onnx"), dynamo=True, input_names=["x"], verbose=False)
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), mine(x).detach(), rtol=1e-4, atol=1e-5)
