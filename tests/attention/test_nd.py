import pytest
import torch

from cbam3d.attention.nd import amax, as_tuple, check_ndim, per_frame, same_padding, spatial_axes, windowed_mean


def test_means_of_blocks_that_reach_beyond_the_edge():
    x = torch.arange(5.0).reshape(1, 1, 1, 5)
    out = windowed_mean(x, (1, 2), (1, 2), (0, 0), (0, 1))
    assert out.flatten().tolist() == [0.5, 2.5, 4.0]
    around = windowed_mean(x, (1, 3), (1, 2), (0, 1), (0, 1))
    assert around.flatten().tolist() == pytest.approx([0.5, 2.0, 3.5])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_means_in_every_precision_of_clips_smaller_than_the_window(dtype):
    out = windowed_mean(torch.ones(1, 2, 3, 2, 5, dtype=dtype), (4, 4, 4), (4, 4, 4), (0, 0, 0), (1, 2, 3))
    assert out.dtype == dtype
    assert torch.equal(out, torch.ones(1, 2, 1, 1, 2, dtype=dtype))


def test_sizes():
    assert as_tuple(3, 2) == (3, 3)
    assert per_frame(7, 3) == (1, 7, 7)
    assert per_frame(7, 2) == (7, 7)
    assert same_padding(3, 3, (1, 4, 4)) == (1, 4, 4)
    assert spatial_axes(torch.zeros(1, 2, 3, 4, 5)) == (2, 3, 4)


def test_refusals():
    with pytest.raises(ValueError, match="expected an int or 2 ints"):
        as_tuple((1, 2, 3), 2)
    with pytest.raises(ValueError, match="odd and positive"):
        same_padding(4, 2)
    with pytest.raises(ValueError, match="ndim must be 2"):
        check_ndim(1)


@pytest.mark.parametrize("axes", [(1,), (2, 3, 4), (1, 3, 4), (4,)])
@pytest.mark.parametrize("keepdim", [False, True])
def test_compiled_maxima_have_the_value_and_the_derivative_of_amax(axes, keepdim):
    torch.manual_seed(0)
    torch.compiler.reset()
    x = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    expected = x.amax(axes, keepdim=keepdim)
    found = torch.compile(amax, backend="aot_eager", fullgraph=True)(x, axes, keepdim)
    assert torch.equal(found, expected)
    along = torch.randn_like(expected)
    assert torch.equal(*(torch.autograd.grad(out, x, along)[0] for out in (found, expected)))
    tied = torch.zeros(2, 3, 4, 5, 6, requires_grad=True)
    torch.compile(amax, backend="aot_eager", fullgraph=True)(tied, axes, keepdim).sum().backward()
    assert torch.equal(tied.grad.sum(axes), torch.ones(tied.sum(axes).shape))
