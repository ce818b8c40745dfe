import math

import pytest
import torch
from torch import nn

from cbam3d.engine.optim import cosine_with_warmup, create_optimizer


def test_learning_rate_rises_linearly_and_falls_along_a_cosine():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = cosine_with_warmup(optimizer, total_steps=13, warmup_steps=3)
    rates = []
    for _ in range(14):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert rates[3:] == pytest.approx([1 + math.cos(math.pi * i / 10) for i in range(11)], abs=1e-12)


@pytest.mark.parametrize(("name", "cls"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_vectors_have_no_weight_decay(name, cls):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    optimizer = create_optimizer(model, name, 0.1, 0.01, 0.9)
    assert type(optimizer) is cls
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay) == len(list(model.parameters()))
    for key, parameter in model.named_parameters():
        expected = 0.01 if key in ("0.weight", "2.weight") else 0.0
        assert decay[id(parameter)] == expected, key


def test_frozen_parameters_stay_out():
    model = nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    optimizer = create_optimizer(model, "sgd", 0.1, 0.01, 0.9)
    assert [p is model.bias for group in optimizer.param_groups for p in group["params"]] == [True]
