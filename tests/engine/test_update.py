"""Steps that change nothing."""

import torch
from torch import nn

from cbam3d.engine.update import Update


def test_a_gradient_scaler_goes_on_after_a_step_that_was_not_taken():
    """It has unscaled the gradients, to clip them; the loss is not finite, and the next step is."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    update = Update(optimizer, model, None, scaler)
    before = [value.clone() for value in (*model.parameters(), *model.buffers())]

    def step(finite):
        update.begin()
        optimizer.zero_grad()
        scaler.scale(model(torch.randn(4, 3)).square().sum()).backward()
        scaler.unscale_(optimizer)

        def take():
            scaler.step(optimizer)
            scaler.update()

        update.take(take, torch.tensor(finite))

    step(False)
    assert all(torch.equal(a, b) for a, b in zip((*model.parameters(), *model.buffers()), before, strict=True))
    assert scaler.get_scale() == 8.0
    step(True)
    assert any(a.ne(b).any() for a, b in zip(model.parameters(), before, strict=False))
