import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cbam3d import create_model
from cbam3d.engine.optim import MovingAverage, create_optimizer, depths, freeze, freeze_norms, train_mode
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
    for unfit in ("LBFGS", "SparseAdam", "Rprop"):
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


def test_a_moving_average_is_torchs_but_for_infinity():
    """torch's own makes no numbers of masks that hold infinity, as em_attention's does."""

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)
            self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
            self.register_buffer("scale", torch.tensor(2.0))

    torch.manual_seed(0)
    model, plain = Masked(), nn.Module()
    plain.layer, plain.norm = model.layer, model.norm
    decay = 0.15  # below that of short trainings
    mine = MovingAverage(model, decay)
    theirs = AveragedModel(plain, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    for _ in range(5):
        model.norm(model.layer(torch.randn(4, 3))).sum().backward()
        with torch.no_grad():
            model.layer.weight -= model.layer.weight.grad
        for average, of in ((mine, model), (theirs, plain)):
            average.update_parameters(of)
    assert mine.module.mask.tolist() == [0.0, -torch.inf]
    assert mine.module.scale == 2.0
    for name, value in theirs.module.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(mine.module.state_dict()[name], value, msg=name)
    assert mine.module.norm.num_batches_tracked == 5


def test_a_moving_average_of_few_steps_is_of_the_last_ones():
    model = nn.Linear(1, 1, bias=False)
    average, expected = MovingAverage(model, 0.3), 0.0
    for step, decay in enumerate([0, 2 / 11, 3 / 12, 0.3, 0.3]):  # (1 + n) / (10 + n), at most the decay
        nn.init.constant_(model.weight, step + 1.0)
        average.update_parameters(model)
        expected = decay * expected + (1 - decay) * (step + 1)
        assert average.module.weight.item() == pytest.approx(expected, rel=1e-6)


def test_a_pattern_freezes_what_weights_gave():
    model = create_model("resnet10", 4, ndim=2, width=8, attention="se")
    new = [name for name, _ in model.named_parameters() if "attention" in name or name.startswith("fc")]
    freeze(model, ["layer1.*", "conv1.*"], new)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {
        name for name, _ in model.named_parameters() if name.startswith(("layer1", "conv1")) and "attention" not in name
    }
    freeze(model, ["layer1.*.attention.*"], new)  # named explicitly
    assert all(not p.requires_grad for name, p in model.named_parameters() if name.startswith("layer1"))


def test_layers_are_what_numbered_modules_hold():
    names = ["conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer1.0.bn1.bias", "layer1.1.conv1.weight"]
    names += ["layer2.0.conv1.weight", "norm.weight", "fc.weight"]
    assert list(depths(names).values()) == [0, 0, 1, 1, 2, 3, 3, 3]
    assert list(
        depths(["backbone.blocks.3.1.conv.weight", "backbone.blocks.3.2.conv.weight", "0.weight"]).values()
    ) == [
        1,
        2,
        3,
    ]


def test_the_learning_rate_decays_from_the_last_layer_to_the_first():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False), nn.Linear(2, 3))
    new = {"2.weight", "2.bias"}
    optimizer = create_optimizer(model, "sgd", 0.1, 0.0, new=new, new_rate_factor=10.0, layer_decay=0.5)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert [rates[id(p)] for p in model.parameters()] == pytest.approx([0.05, 0.1, 1.0, 1.0])


def test_norms_of_the_weights_are_frozen_and_keep_their_statistics():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.LayerNorm(4))
    freeze_norms(model, new={"2.weight", "2.bias"})
    assert [name for name, p in model.named_parameters() if p.requires_grad] == [
        "0.weight",
        "0.bias",
        "2.weight",
        "2.bias",
    ]
    train_mode(model)
    assert [module.training for module in model] == [True, False, True, True]


def test_while_only_new_parameters_learn_the_other_norms_keep_their_statistics():
    model = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    train_mode(model, new={"1.weight", "1.bias"})
    assert [module.training for module in model] == [False, True]
    train_mode(model)
    assert [module.training for module in model] == [True, True]
