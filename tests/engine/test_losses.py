import math

import pytest
import torch

from cbam3d.engine.losses import Loss, create_loss
from cbam3d.errors import InputError


def test_cross_entropy_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
    loss = Loss()(logits, torch.tensor([1, 0]))
    torch.testing.assert_close(loss, torch.tensor(math.log(4 / 3) + math.log(2)))
    smoothed = Loss(0.5)(logits, torch.tensor([1, 0]))
    torch.testing.assert_close(smoothed, torch.tensor(0.75 * math.log(4 / 3) + 0.25 * math.log(4) + math.log(2)))


def test_an_output_may_know_its_loss():
    class Output:
        def loss(self, targets, label_smoothing):
            return targets.sum() + label_smoothing

    assert Loss(0.25)(Output(), torch.tensor([1.0, 2.0])) == 3.25
    with pytest.raises(InputError, match="the network has a loss of its own"):
        Loss(weights=torch.ones(2))(Output(), torch.tensor([1.0, 2.0]))


def test_weights_of_classes_by_hand():
    """6 samples of a, 2 of b, none of c."""
    balanced = create_loss(0.0, "balanced", 0.0, [6, 2, 0], ["a", "b", "c"]).weights
    torch.testing.assert_close(balanced, torch.tensor([8 / 12, 8 / 4, 0.0]))  # mean over samples: 1
    effective = create_loss(0.0, "effective", 0.0, [6, 2, 0], ["a", "b", "c"]).weights
    numbers = [(1 - 0.999**n) / 0.001 for n in (6, 2)]
    assert effective[1] / effective[0] == pytest.approx(numbers[0] / numbers[1])
    assert 6 * effective[0] + 2 * effective[1] == pytest.approx(8)
    frequent = create_loss(0.0, "effective", 0.0, [10**6, 10**5], ["a", "b"]).weights
    torch.testing.assert_close(frequent, torch.ones(2))  # beyond 1 / (1 - β) samples are worth nothing
    given = create_loss(0.0, [1.0, 3.0, 7.0], 0.0, [6, 2, 0], ["a", "b", "c"]).weights
    torch.testing.assert_close(given, torch.tensor([8 / 12, 24 / 12, 0.0]))
    with pytest.raises(InputError, match=r"train\.class_weights: 2 weights for 3 classes \(a, b, c\)"):
        create_loss(0.0, [1.0, 2.0], 0.0, [6, 2, 0], ["a", "b", "c"])
    logits, targets = torch.randn(8, 3), torch.tensor([0] * 6 + [1] * 2)
    each = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    loss = create_loss(0.0, "balanced", 0.0, [6, 2, 0], ["a", "b", "c"])(logits, targets)
    torch.testing.assert_close(loss, (each[:6].mean() + each[6:].mean()) * 4)


def test_adjusted_logits_by_hand():
    """With logits that are the classes' logarithmic likelihoods, the loss is that of the posterior (Bayes)."""
    likelihood, prior = torch.tensor([[0.2, 0.6]]), torch.tensor([0.75, 0.25])
    posterior = likelihood * prior / (likelihood * prior).sum()
    loss = create_loss(0.0, None, 1.0, [6, 2], ["a", "b"])
    torch.testing.assert_close(loss(likelihood.log(), torch.tensor([1])), -posterior[0, 1].log())
    half = create_loss(0.0, None, 0.5, [6, 2], ["a", "b"]).offsets
    torch.testing.assert_close(half, 0.5 * prior.log())
    assert create_loss(0.1, None, 0.0, [6, 2], ["a", "b"]) == Loss(0.1)


def test_classes_apart_by_hand():
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
    yes = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    p = logits.double().sigmoid()
    expected = -(yes * p.log() + (1 - yes) * (1 - p).log()).sum()
    assert float(Loss(apart=True)(logits, yes)) == pytest.approx(float(expected), rel=1e-6)
    smooth = yes * 0.8 + 0.1
    expected = -(smooth * p.log() + (1 - smooth) * (1 - p).log()).sum()
    assert float(Loss(0.2, apart=True)(logits, yes)) == pytest.approx(float(expected), rel=1e-6)
    one = torch.tensor([2, 0])
    assert Loss(apart=True)(logits, one) == Loss(apart=True)(logits, torch.eye(3)[one])
    weighted = create_loss(0.0, "balanced", 0.0, [5, 1, 2], ["a", "b", "c"], num_samples=10)
    assert weighted.weights.tolist() == [1, 9, 4]
    expected = -(torch.tensor([1, 9, 4]) * yes * p.log() + (1 - yes) * (1 - p).log()).sum()
    assert float(weighted(logits, yes)) == pytest.approx(float(expected), rel=1e-6)
    assert create_loss(0.0, [1, 2, 3], 0.0, [5, 1, 2], ["a", "b", "c"], 10).weights.tolist() == [1, 2, 3]
    for weighting, adjustment in (("effective", 0.0), (None, 1.0)):
        with pytest.raises(InputError, match=r"is for train\.loss cross_entropy"):
            create_loss(0.0, weighting, adjustment, [5, 1, 2], ["a", "b", "c"], 10)
