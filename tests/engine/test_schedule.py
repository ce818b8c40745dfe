"""Against torch's own schedulers, step by step."""

import math

import pytest
import torch
from torch.optim import lr_scheduler

from cbam3d.engine.schedule import Schedule

STEPS = 50


def optimizer(rate=0.4):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], rate)


def rates(schedule, steps=STEPS):
    found = []
    for _ in range(steps):
        found.append(schedule.optimizer.param_groups[0]["lr"])
        schedule.step()
    return found


def rates_of_torch(build, steps=STEPS):
    sgd = optimizer()
    scheduler, found = build(sgd), []
    for _ in range(steps):
        found.append(sgd.param_groups[0]["lr"])
        sgd.step()
        scheduler.step()
    return found


def test_cosine():
    expected = rates_of_torch(lambda sgd: lr_scheduler.CosineAnnealingLR(sgd, STEPS))
    assert rates(Schedule(optimizer(), "cosine", STEPS, 0)) == pytest.approx(expected)


def test_a_linear_rise_comes_before():
    found = rates(Schedule(optimizer(), "constant", STEPS, 4))
    assert found[:6] == pytest.approx([0.08, 0.16, 0.24, 0.32, 0.4, 0.4])
    rising = rates(Schedule(optimizer(), "cosine", STEPS, 4))
    assert rising[:5] == pytest.approx([0.08, 0.16, 0.24, 0.32, 0.4])
    assert rising[27] == pytest.approx(0.2)  # the middle of steps 4 … 50
    assert Schedule(optimizer(), "cosine", STEPS, 4).factor(STEPS) == pytest.approx(0)


@pytest.mark.parametrize("warmup", [5, 15, 40])
def test_one_cycle(warmup):
    expected = rates_of_torch(
        lambda sgd: lr_scheduler.OneCycleLR(
            sgd, 0.4, total_steps=STEPS, pct_start=warmup / STEPS, cycle_momentum=False
        ),
        STEPS - 1,
    )
    assert rates(Schedule(optimizer(), "one_cycle", STEPS, warmup), STEPS - 1) == pytest.approx(expected)


def test_multi_step():
    expected = rates_of_torch(lambda sgd: lr_scheduler.MultiStepLR(sgd, [10, 30], 0.2))
    assert rates(Schedule(optimizer(), "multi_step", STEPS, 0, [10, 30], 0.2)) == pytest.approx(expected)


def test_plateau():
    sgd, mine = optimizer(), Schedule(optimizer(), "plateau", STEPS, 0, gamma=0.5, patience=2)
    theirs = lr_scheduler.ReduceLROnPlateau(sgd, factor=0.5, patience=2)
    generator = torch.Generator().manual_seed(0)
    for i in range(60):
        loss = max(0.5, 2 - 0.1 * i) + 0.01 * torch.rand((), generator=generator).item()
        mine.step()
        mine.report_loss(loss)
        theirs.step(loss)
        assert mine.optimizer.param_groups[0]["lr"] == pytest.approx(sgd.param_groups[0]["lr"])
    assert sgd.param_groups[0]["lr"] < 0.1
    never = Schedule(optimizer(), "plateau", STEPS, 0)
    never.report_loss(math.nan)
    assert never.worse == 1


@pytest.mark.parametrize("kind", ["cosine", "one_cycle", "multi_step", "plateau", "constant"])
def test_a_state_goes_on_where_it_was(kind):
    def build():
        return Schedule(optimizer(), kind, STEPS, 5, [10, 30], 0.5, 0)

    whole, first, second = build(), build(), build()
    for i in range(20):
        for schedule in (whole, first):
            schedule.step()
            schedule.report_loss(1.0 if i < 3 else 2.0)
    second.load_state_dict(first.state_dict())
    assert rates(second, 20) == rates(whole, 20)


def test_groups_keep_their_ratio():
    sgd = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (0.1, 1.0)])
    schedule = Schedule(sgd, "cosine", 10, 0)
    for _ in range(5):
        schedule.step()
    assert [group["lr"] for group in sgd.param_groups] == pytest.approx([0.05, 0.5])


def test_the_head_learns_first():
    """Groups of the weights wait, and then rise over as many steps as the warm-up has."""
    old, new = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    groups = [{"params": [old], "lr": 0.1, "new": False}, {"params": [new], "lr": 1.0, "new": True}]
    schedule = Schedule(torch.optim.SGD(groups), "constant", 10, 1, head_steps=4)
    rates = []
    for _ in range(8):
        assert schedule.only_new == (schedule.taken < 4)
        rates.append([group["lr"] for group in schedule.optimizer.param_groups])
        schedule.step()
    assert [rate[0] for rate in rates] == pytest.approx([0, 0, 0, 0, 0.05, 0.1, 0.1, 0.1])
    assert [rate[1] for rate in rates] == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 1])


def test_the_rate_that_is_recorded_is_that_of_no_group_but_the_optimizers_own():
    old, new = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    groups = [{"params": [old], "lr": 0.04, "new": False}, {"params": [new], "lr": 1.0}]
    schedule = Schedule(torch.optim.SGD(groups, 0.1), "cosine", 10, 2, head_steps=3)
    for i in range(10):
        used = schedule.learning_rate
        assert used == pytest.approx(schedule.optimizer.param_groups[1]["lr"] / 10)
        assert i > 2 or schedule.optimizer.param_groups[0]["lr"] == 0
        schedule.step()
        assert schedule.last_learning_rate == used
