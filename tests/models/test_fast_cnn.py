import pytest
import torch
from torch._subclasses import FakeTensorMode

from cbam3d import create_model
from cbam3d.models.fast_cnn import FastCNN


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_first_layer_whitens(ndim):
    """The covariance of its outputs is the identity, up to the small constant that tames flat patches."""
    torch.manual_seed(0)
    mixing = torch.randn(3, 3)
    noise = torch.randn(64, 3, *(9,) * ndim)
    smooth = torch.nn.functional.avg_pool3d(noise, 2, 1) if ndim == 3 else torch.nn.functional.avg_pool2d(noise, 2, 1)
    inputs = 100 * torch.einsum("ij,nj...->ni...", mixing, smooth)  # far above the constant
    model = create_model("fast_cnn", 10, ndim=ndim, channels=(8, 8, 8))
    model.init_from_data(inputs)  # type: ignore[operator]
    with torch.no_grad():
        out = model.get_submodule("whiten")(inputs)
    half = 3 * 2**ndim
    assert out.shape[1] == 2 * half
    torch.testing.assert_close(out[:, :half], -out[:, half:])
    covariance = out[:, :half].movedim(1, -1).reshape(-1, half).T.cov()
    torch.testing.assert_close(covariance, torch.eye(half), atol=0.05, rtol=0)


def test_it_learns_but_for_the_first_layer():
    model = create_model("fast_cnn", 5, channels=(8, 16, 16))
    model(torch.rand(4, 3, 32, 32)).logsumexp(1).sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == ["whiten.weight"]
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_the_first_channels_of_a_block_pass_through():
    block = create_model("fast_cnn", 5, channels=(8, 16, 16)).get_submodule("blocks")[1]
    x = torch.rand(2, 8, 6, 6)
    torch.testing.assert_close(block.layers[0](x)[:, :8], x)


def test_pictures_that_are_too_small():
    with pytest.raises(ValueError, match="sides of at least 9"):
        create_model("fast_cnn", 5, channels=(8, 8, 8))(torch.zeros(1, 3, 8, 16))


@pytest.mark.skipif(torch.__version__ < "2.14", reason="fake CUDA tensors need a driver in older PyTorch")
def test_the_first_layer_is_set_from_inputs_on_another_device():
    """Fake tensors stand for a GPU: a mix of devices is an error there as well."""
    with FakeTensorMode():
        with torch.device("cuda"):
            model, inputs = FastCNN(10), torch.zeros(4, 3, 16, 16)
        model.init_from_data(inputs)
        assert model.whiten.weight.device.type == "cuda"
