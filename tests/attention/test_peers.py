"""The mechanisms that timm has in 2D, with its weights: the same outputs and gradients."""

import pytest
import torch

from cbam3d.attention import CBAM, ECA, GC, GE, SE, SK, Coordinate, NonLocal
from tests.attention.reference import randomised

layers = pytest.importorskip("timm.layers")


def check(ours, theirs, pairs, channels=16):
    """`pairs`: a parameter or norm of ours, and timm's; weights are copied from timm's, in evaluation mode."""
    torch.manual_seed(0)
    randomised(theirs)
    with torch.no_grad():
        for mine, other in pairs:
            source, target = (dict(m.state_dict()) for m in (other, mine))
            for key in target:
                target[key].copy_(source[key].reshape(target[key].shape))
    ours, theirs = ours.double().eval(), theirs.double().eval()
    x = torch.randn(2, channels, 9, 8, dtype=torch.float64, requires_grad=True)
    out, expected = ours(x), theirs(x)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-10)
    weights = torch.randn_like(out)
    (mine,) = torch.autograd.grad((out * weights).sum(), x)
    (other,) = torch.autograd.grad((expected * weights).sum(), x)
    torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-9)


def test_se():
    ours, theirs = SE(16, 4), layers.SqueezeExcite(16, rd_channels=4)
    check(ours, theirs, [(ours.mlp[0], theirs.fc1), (ours.mlp[2], theirs.fc2)])


@pytest.mark.parametrize("channels", [16, 64])
def test_eca(channels):
    ours, theirs = ECA(channels), layers.EcaModule(channels)
    check(ours, theirs, [(ours.conv, theirs.conv)], channels)


def test_gather_excite_without_parameters():
    """With parameters timm 1.0.31 cannot build its own."""
    for extent in (0, 2, 4):
        ours, theirs = GE(16, extent, ndim=2), layers.GatherExcite(16, extent=extent, use_mlp=False)
        check(ours, theirs, [])


def test_global_context():
    ours, theirs = GC(16, 2, ndim=2), layers.GlobalContext(16, rd_channels=8, fuse_add=True, fuse_scale=False)
    first, norm, _, last = ours.transform
    mlp = theirs.mlp_add
    mlp.norm.eps = norm.eps  # timm's is 1e-6, the official code's and ours 1e-5
    check(ours, theirs, [(ours.key, theirs.conv_attn), (first, mlp.fc1), (norm, mlp.norm), (last, mlp.fc2)])


def test_cbam():
    ours = CBAM(16, 4, 7, ndim=2, batch_norm=True)
    theirs = layers.get_attn("cbam")(16, rd_channels=4, spatial_kernel_size=7)
    pairs = [(ours.channel.mlp[0], theirs.channel.fc1), (ours.channel.mlp[2], theirs.channel.fc2)]
    pairs += [(ours.spatial.conv, theirs.spatial.conv.conv), (ours.spatial.norm, theirs.spatial.conv.bn)]
    check(ours, theirs, pairs)


def test_coordinate():
    ours, theirs = Coordinate(16, 2, ndim=2), layers.get_attn("coord")(16, rd_channels=8, bias=True)
    pairs = [(ours.shared[0], theirs.conv1), (ours.shared[1], theirs.bn1)]
    pairs += [(ours.convs[0], theirs.conv_h), (ours.convs[1], theirs.conv_w)]
    check(ours, theirs, pairs)


def test_selective_kernel():
    ours = SK(16, reduction=4, min_hidden=1, groups=1, ndim=2)
    theirs = layers.SelectiveKernel(16, rd_channels=4, split_input=False)
    pairs = [(ours.reduce[0], theirs.attn.fc_reduce), (ours.reduce[1], theirs.attn.bn)]
    pairs += [(ours.select, theirs.attn.fc_select)]
    for mine, other in zip(ours.branches, theirs.paths, strict=True):
        pairs += [(mine[0], other.conv), (mine[1], other.bn)]
    check(ours, theirs, pairs)


def test_non_local():
    ours, theirs = NonLocal(16, 2, ndim=2), layers.NonLocalAttn(16, use_scale=False, rd_channels=8)
    pairs = [(ours.theta, theirs.t), (ours.phi, theirs.p), (ours.g, theirs.g), (ours.out, theirs.z)]
    check(ours, theirs, [*pairs, (ours.norm, theirs.norm)])
