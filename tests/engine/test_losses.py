import math

import torch

from cbam3d.engine.losses import sum_of_losses


def test_cross_entropy_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
    loss = sum_of_losses(logits, torch.tensor([1, 0]))
    torch.testing.assert_close(loss, torch.tensor(math.log(4 / 3) + math.log(2)))
    smoothed = sum_of_losses(logits, torch.tensor([1, 0]), 0.5)
    torch.testing.assert_close(smoothed, torch.tensor(0.75 * math.log(4 / 3) + 0.25 * math.log(4) + math.log(2)))


def test_an_output_may_know_its_loss():
    class Output:
        def loss(self, targets, label_smoothing):
            return targets.sum() + label_smoothing

    assert sum_of_losses(Output(), torch.tensor([1.0, 2.0]), 0.25) == 3.25
