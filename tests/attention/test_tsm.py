import pytest
import torch

from cbam3d.attention import TSM
from tests.attention.reference import check_against


def tsm(block, x):
    fold, frames = int(x.shape[1] * 0.25), x.shape[2]
    out = torch.zeros_like(x)
    for channel in range(x.shape[1]):
        for frame in range(frames):
            source = frame + (1 if channel < fold else -1 if channel < 2 * fold else 0)
            if 0 <= source < frames:
                place = torch.zeros_like(x)
                place[:, channel, frame] = 1
                out = out + place * x[:, channel : channel + 1, source : source + 1]
    return x + block.gamma.value * (out - x)


def test_equals_the_formula():
    check_against(tsm, TSM(9, share=0.25), (2, 9, 4, 2, 3))


def test_by_hand():
    x = torch.arange(1.0, 4).reshape(1, 1, 3, 1, 1).expand(1, 4, 3, 1, 1)
    out = TSM(4, share=0.25)(x)[0, :, :, 0, 0].tolist()
    assert out == [[2, 3, 0], [0, 1, 2], [1, 2, 3], [1, 2, 3]]
    out = TSM(4, share=0.25, bidirectional=False)(x)[0, :, :, 0, 0].tolist()
    assert out == [[0, 1, 2], [1, 2, 3], [1, 2, 3], [1, 2, 3]]


def test_no_share_is_the_identity():
    x = torch.randn(2, 8, 4, 3, 3)
    assert torch.equal(TSM(8, share=0)(x), x)


def test_mistakes():
    with pytest.raises(ValueError, match="no time axis"):
        TSM(8, ndim=2)
    with pytest.raises(ValueError, match="between 0 and 0"):
        TSM(8, share=0.6)
