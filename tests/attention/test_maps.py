"""The maps of the attention in a network."""

import pytest
import torch
from torch import nn

from cbam3d import attention_maps, create_attention, create_model, insert_attention, list_attentions, list_insertions
from cbam3d.attention import CBAM3d, attention_ranks


def test_the_gates_of_cbam_are_its_views():
    torch.manual_seed(0)
    block = CBAM3d(8)
    x = torch.randn(2, 8, 4, 5, 6)
    maps = attention_maps(nn.Sequential(nn.ReLU(), block), x)
    own = block.attention_maps(x.relu())
    assert list(maps) == ["1"]
    assert list(maps["1"]) == ["channel", "spatial", "temporal"]
    assert torch.equal(maps["1"]["channel"], own["channel"].reshape(2, 8))
    assert torch.equal(maps["1"]["spatial"], own["spatial"].reshape(2, 4, 5, 6))
    assert torch.equal(maps["1"]["temporal"], own["temporal"].reshape(2, 4))
    product = maps["1"]["channel"][:, :, None, None, None] * maps["1"]["spatial"][:, None]
    product = product * maps["1"]["temporal"][:, None, :, None, None]
    torch.testing.assert_close(block(x.relu()), x.relu() * product)


@pytest.mark.parametrize("name", ["se", "eca", "fca", "gct", "ge", "gsop", "srm"])
def test_one_weight_a_channel(name):
    block = create_attention(name, 16, ndim=3).eval()
    x = torch.randn(2, 16, 3, 5, 4)
    ((kind, weights),) = attention_maps(nn.Sequential(block).eval(), x)["0"].items()
    assert kind == "channel"
    torch.testing.assert_close(block(x), x * weights[:, :, None, None, None])


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("name", list_attentions())
def test_every_mechanism_has_views_of_its_features(name, ndim):
    if ndim not in attention_ranks(name):
        pytest.skip(f"{name} is for clips")
    block = create_attention(name, 16, ndim=ndim, **({"num_frames": 4} if name == "tam" else {}))
    size = (4, 6, 5)[-ndim:]
    found = attention_maps(nn.Sequential(block), torch.randn(2, 16, *size))
    without = {"criss_cross", "deformable", "em_attention", "non_local", "san", "sasa", "sc", "self_attention", "sk"}
    without |= {"stn", "tsm"}
    assert bool(found) == (name not in without)
    for views in found.values():
        shapes = {"channel": (2, 16), "temporal": (2, 4), "spatial": (2, *size)}
        assert {kind: tuple(one.shape) for kind, one in views.items()} == {kind: shapes[kind] for kind in views}


def test_a_network_is_left_as_it_was():
    model = create_model("resnet10", 5, attention="cbam", width=8).train()
    model.layer1.eval()  # type: ignore[union-attr]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    maps = attention_maps(model, torch.randn(1, 3, 4, 32, 32))
    assert len(maps) == 4
    assert model.training
    assert not model.layer1.training  # type: ignore[union-attr]
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_inserted_blocks_are_reached():
    model = insert_attention(create_model("resnet10", 5, width=8), "scse", position="stage")
    maps = attention_maps(model, torch.randn(1, 3, 4, 32, 32))
    assert list(maps) == [f"{one.where}.inserted_attention" for one in list_insertions(model)]
    assert all(list(views) == ["channel", "spatial"] for views in maps.values())


def test_a_block_alone_is_one_entry():
    assert set(attention_maps(create_attention("rga", 16, ndim=2), torch.randn(1, 16, 8, 8))) == {""}
