import pytest
import torch
from torch import nn

from cbam3d.engine.optim import create_optimizer, freeze, train_mode
from cbam3d.errors import InputError


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def settings(optimizer, model):
    """Parameter name -> learning rate and weight decay."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def test_norms_and_biases_do_not_decay_and_new_parameters_have_their_own_rate():
    model = network()
    optimizer = create_optimizer(model, "adamw", 0.1, 0.05, {"betas": (0.8, 0.9)}, {"3.weight", "3.bias"}, 10.0)
    assert settings(optimizer, model) == {
        "0.weight": (0.1, 0.05),
        "0.bias": (0.1, 0.0),
        "1.weight": (0.1, 0.0),
        "1.bias": (0.1, 0.0),
        "3.weight": (1.0, 0.05),
        "3.bias": (1.0, 0.0),
    }
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["betas"] == (0.8, 0.9)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "RMSprop", "NAdam", "RAdam", "Adagrad", "Adadelta"])
def test_any_optimiser_of_torch_takes_a_step(name):
    model = network()
    optimizer = create_optimizer(model, name, 0.1, 0.01)
    model(torch.randn(5, 3, 3, 3)).sum().backward()
    before = model[3].bias.detach().clone()
    optimizer.step()
    assert not torch.equal(model[3].bias, before)


def test_refusals():
    with pytest.raises(InputError, match=r"train\.optimizer: unknown optimiser 'AdamWW': did you mean 'AdamW'"):
        create_optimizer(network(), "AdamWW", 0.1, 0.0)
    with pytest.raises(InputError, match=r"option of train\.optimizer sgd 'momentun': did you mean 'momentum'"):
        create_optimizer(network(), "sgd", 0.1, 0.0, {"momentun": 0.9})
    with pytest.raises(InputError, match=r"train\.optimizer adam: Invalid beta"):
        create_optimizer(network(), "adam", 0.1, 0.0, {"betas": (2.0, 0.9)})
    with pytest.raises(InputError, match=r"train\.freeze: no parameter fits 'stem\.\*'; there are 0\.weight, 0\.bias"):
        freeze(network(), ["stem.*"])
    for unfit in ("LBFGS", "SparseAdam"):
        with pytest.raises(InputError, match="unknown optimiser"):
            create_optimizer(network(), unfit, 0.1, 0.0)
    with pytest.raises(InputError, match=r"train\.optimizer adam: "):
        create_optimizer(network(), "adam", 0.1, 0.0, {"betas": (0.9,)})
    model = network()
    freeze(model, ["*"])
    with pytest.raises(InputError, match=r"train\.freeze leaves no parameter"):
        create_optimizer(model, "sgd", 0.1, 0.0)


def test_what_is_frozen_stays_as_it_is():
    model = network()
    freeze(model, ["0.*", "1.*"])
    optimizer = create_optimizer(model, "sgd", 0.1, 0.1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    train_mode(model)
    model(torch.randn(5, 3, 3, 3)).sum().backward()
    optimizer.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"3.weight", "3.bias"}  # nor the running statistics of the frozen norm
    assert model[0].training
