import pytest
import torch
from torch import nn

from cbam3d import CBAM3d, create_model, insert_attention, list_insertions, register_attention
from cbam3d.attention import catalog
from cbam3d.config import Config, ModelConfig, TrainConfig, load_config
from cbam3d.errors import InputError, is_foreign
from cbam3d.runs.network import build_model, check_names, keep_hooks_and_sync_batchnorm, new_parameters
from cbam3d.runs.trainer import create_training


def test_synchronised_norms_keep_the_inserted_attention():
    """torch's own conversion replaces a norm, and its hooks with it."""
    model = create_model("torchvision/r3d_18", num_classes=5)
    insert_attention(model, "cbam", position="residual", example=torch.zeros(1, 3, 4, 32, 32))
    before = [str(insertion) for insertion in list_insertions(model)]
    keys = list(model.state_dict())
    hooked = [name for name, module in model.named_modules() if module._forward_hooks]
    converted = keep_hooks_and_sync_batchnorm(model)
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in converted.modules()) == 20
    assert [name for name, module in converted.named_modules() if module._forward_hooks] == hooked
    assert hooked
    assert [str(insertion) for insertion in list_insertions(converted)] == before
    assert list(converted.state_dict()) == keys


def rates(model, train):
    optimizer, _, _ = create_training(train, model, 10, new_parameters(model))
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[p]: group["lr"] for group in optimizer.param_groups for p in group["params"]}


def test_what_pretrained_weights_did_not_give_has_its_own_rate():
    plain = create_model("resnet10", num_classes=4, width=8)
    train = TrainConfig(learning_rate=0.1, new_rate_factor=10.0, schedule="constant", warmup_epochs=0)
    assert set(rates(plain, train).values()) == {0.1}  # nothing is pretrained, so nothing is new
    filled = create_model("resnet10", num_classes=7, width=8, attention="cbam", weights=plain.state_dict())
    found = rates(filled, train)
    new = {name for name, rate in found.items() if rate == 1.0}
    assert new == {name for name in found if "attention" in name or name.startswith("fc.")}
    assert set(found.values()) == {0.1, 1.0}


def test_the_rate_follows_the_batch_size_when_asked():
    model = create_model("resnet10", num_classes=4, width=8)
    train = TrainConfig(batch_size=64, base_batch_size=256, learning_rate=0.4, schedule="constant", warmup_epochs=0)
    assert set(rates(model, train).values()) == {0.1}


def test_the_average_follows_a_network_with_inserted_attention():
    config = Config(model=ModelConfig(), train=TrainConfig(ema=0.9, optimizer="adamw"))
    model = create_model("torchvision/r3d_18", num_classes=3)
    clip = torch.randn(1, 3, 4, 16, 16)
    insert_attention(model, "cbam", example=clip)
    _, _, average = create_training(config.train, model, steps_per_epoch=10)
    average.update_parameters(model)
    model.eval(), average.eval()
    with torch.no_grad():
        torch.testing.assert_close(average.module(clip), model(clip))
        for module in average.module.modules():  # its attention is its own
            if type(module).__name__ == "CBAM":
                for parameter in module.parameters():
                    parameter.fill_(3.0)
        assert not torch.allclose(average.module(clip), model(clip))


class Faulty(nn.Module):
    def __init__(self, channels, init="paper"):
        super().__init__()
        raise TypeError("a bug of the user's")


class Sound(nn.Module):
    """As `Faulty`, but for the bug."""

    def __init__(self, channels, init="paper"):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x * self.weight


def test_an_error_of_the_users_own_code_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(catalog.mechanisms, "added", {})
    register_attention("faulty", Faulty)
    register_attention("sound", Sound)
    small = {"name": "resnet10", "options": {"width": 8}}
    with pytest.raises(TypeError, match="a bug of the user's"):
        build_model(Config(model=ModelConfig(attention="faulty", **small)), 3, images=True)
    assert isinstance(build_model(Config(model=ModelConfig(attention="sound", **small)), 3, images=True), nn.Module)
    for options in ({"width": "many"}, {"stem_kernel_size": -1}, {"reduktion": 1}):  # ours are one line
        with pytest.raises(InputError, match="model: "):
            build_model(Config(model=ModelConfig(name="resnet10", attention="none", options=options)), 3, images=True)


def test_an_error_is_foreign_where_it_passed_through_foreign_code():
    with pytest.raises(RuntimeError) as caught:
        torch.zeros(2).view(3)
    assert is_foreign(caught.value)  # the frame of this test
    with pytest.raises(ValueError, match="at least 1") as caught:
        CBAM3d(0)
    trace = caught.value.__traceback__
    assert not is_foreign(caught.value.with_traceback(trace and trace.tb_next))  # without it


def test_a_network_is_built_by_its_seed_alone():
    config = Config(model=ModelConfig(name="resnet10", attention="cbam", options={"width": 8}))
    first = build_model(config, 3, images=True).state_dict()
    torch.manual_seed(77)
    state = torch.get_rng_state()
    second = build_model(config, 3, images=True).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"model.attention_options": {"reductoin": 8}}, "did you mean 'reduction'"),
        ({"model.options": {"widht": 8}}, "widht"),
        ({"model.name": "timm/resnet18", "model.options": {"depht": 8}}, "depht"),
    ],
)
def test_a_wrong_option_is_found_before_data_is_read(values, reason):
    if "timm" in values.get("model.name", ""):
        pytest.importorskip("timm")
    with pytest.raises(InputError, match=reason):
        check_names(load_config({"config": "folder", **values}))


def test_options_of_attention_that_is_taken_away_are_dropped():
    config = load_config({"config": "scratch", "model.attention": "none"})
    assert config.model.attention_options
    names = [name for name, _ in build_model(config, 3, images=False).named_parameters()]
    assert names
    assert not any("attention" in name for name in names if not name.startswith("head"))


def test_synchronised_norms_keep_timms_activations():
    pytest.importorskip("timm")
    torch.manual_seed(0)
    model = create_model("timm/efficientnet_lite0", 5, ndim=2).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(keep_hooks_and_sync_batchnorm(model).eval()(x), expected)
    assert any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())


def test_a_norm_of_ones_own_is_not_synchronised_without_what_it_adds():
    class Scaled(nn.BatchNorm2d):
        def forward(self, x):
            return 2 * super().forward(x)

    with pytest.raises(InputError, match=r"run\.sync_batchnorm: 1 is a Scaled"):
        keep_hooks_and_sync_batchnorm(nn.Sequential(nn.Conv2d(3, 4, 1), Scaled(4)))
