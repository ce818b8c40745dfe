from itertools import chain

import numpy as np
import pytest
import torch

from cbam3d.data.batch import AGAIN, Sample, SampleIndex, pack
from cbam3d.data.loader import EvalBatches, Loader, TrainBatches, balanced
from cbam3d.data.rng import keys_of


class Numbers:
    """Item i is a view filled with i; those of `bad` cannot be read."""

    def __init__(self, length=10, bad=()):
        self.length, self.bad = length, bad

    def __len__(self):
        return self.length

    def name(self, index):
        return f"file {index}"

    def __getitems__(self, indices):
        return pack([self.read(index) for index in indices])

    def read(self, index):
        if index.item in self.bad:
            return Sample(index, 0, [], (f"file {index.item}", "broken"))
        view = torch.full((1, 2, 2), index.item, dtype=torch.uint8)
        return Sample(index, index.item % 3, [view, view])


def stack(packed):
    return torch.cat(list(packed.views_of_one_shape())).float()


def indices(batches):
    return [[index.item for index in batch] for batch in batches]


def test_training_visits_every_sample_once_an_epoch_in_a_new_order():
    batches = TrainBatches(range(12), 4, seed=0)
    first = indices(batches)
    assert sorted(chain(*first)) == list(range(12))
    assert [len(batch) for batch in first] == [4, 4, 4]
    assert indices(batches) == first
    batches.epoch = 1
    assert indices(batches) != first
    assert all(index.epoch == 1 for batch in batches for index in batch)


def test_the_last_incomplete_training_batch_is_left_out_unless_it_is_the_only_one():
    assert [len(b) for b in TrainBatches(range(10), 4, seed=0)] == [4, 4]
    assert [len(b) for b in TrainBatches(range(3), 4, seed=0)] == [3]


def visits(batches, epochs):
    """How often each sample is visited in each epoch, (E, N)."""
    counts = []
    for batches.epoch in range(epochs):
        counts.append(np.bincount(list(chain(*indices(batches))), minlength=batches.num_samples))
    return np.stack(counts)


def test_classes_are_evened_out():
    """36 samples of class 0, 9 of class 1, 3 of class 2."""
    labels = np.repeat([0, 1, 2], [36, 9, 3])
    assert balanced(labels, 0.0) is None
    for balance, shares in ((1.0, [16, 16, 16]), (0.5, [48 * x / (6 + 3 + 3**0.5) for x in (6, 3, 3**0.5)])):
        batches = TrainBatches(labels, 4, seed=0, weights=balanced(labels, balance))
        found = visits(batches, 400)
        assert (found.sum(1) == 48).all()
        by_class = np.stack([found[:, labels == label].sum(1) for label in range(3)], 1)
        assert (np.abs(by_class - shares) < 1).all()
        assert (np.abs(found - batches.weights) < 1).all()  # rounded up or down
        np.testing.assert_allclose(found.mean(0), batches.weights, atol=0.15)  # each sample alike
        batches.epoch = 3
        assert indices(batches) == indices(batches)
        whole = list(chain(*indices(batches)))
        batches.start = 5
        assert list(chain(*indices(batches))) == whole[20:]  # a run resumes within an epoch


def test_an_item_that_an_epoch_has_again_is_drawn_anew():
    labels = np.repeat([0, 1], [20, 2])
    batches = TrainBatches(labels, 4, seed=0, weights=balanced(labels, 1.0))
    batches.epoch = 2
    whole = list(chain(*batches))
    assert len({index.item for index in whole}) < len(whole) == len(set(whole))
    for item in (20, 21):
        times = [index.epoch - 2 for index in whole if index.item == item]
        assert times == [AGAIN * time for time in range(len(times))]
        assert len(times) >= 4
    keys = keys_of(0, *np.array(whole).T)
    assert len(np.unique(keys)) == len(whole)


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_processes_share_the_same_global_batches(world_size):
    whole = indices(TrainBatches(range(50), 12, seed=5))
    shares = [indices(TrainBatches(range(50), 12, 5, rank, world_size)) for rank in range(world_size)]
    for step, batch in enumerate(whole):
        assert sorted(batch) == sorted(chain(*(share[step] for share in shares)))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_testing_visits_every_sample_once_over_all_processes(world_size):
    shares = [EvalBatches(range(10), 4, rank, world_size) for rank in range(world_size)]
    assert sorted(i for share in shares for i in chain(*indices(share))) == list(range(10))
    assert all(len(share) == len(list(share)) for share in shares)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_batches_are_the_same_for_any_number_of_workers(num_workers):
    data = Numbers()
    loader = Loader(data, TrainBatches(data, 4, seed=0), stack, num_workers, torch.device("cpu"))
    loader.set_epoch(3)
    order = indices(TrainBatches(data, 4, seed=0))
    expected = TrainBatches(data, 4, seed=0)
    expected.epoch = 3
    assert order != indices(expected)
    for batch, wanted in zip(loader, indices(expected), strict=True):
        assert batch.inputs[::2, 0, 0, 0].tolist() == wanted
        assert batch.inputs.shape == (8, 1, 2, 2)
        assert batch.labels.tolist() == [i % 3 for i in wanted]
        assert batch.targets.tolist() == [i % 3 for i in wanted for _ in range(2)]  # one a view


def test_unreadable_samples_are_named_and_left_out():
    data = Numbers(4, bad=(1, 2, 3))
    loader = Loader(data, EvalBatches(data, 2), stack, 0, torch.device("cpu"))
    first, second = list(loader)
    assert first.inputs[:, 0, 0, 0].tolist() == [0, 0]
    assert first.problems == [("file 1", "broken")]
    assert len(second.labels) == 0
    assert second.problems == [("file 2", "broken"), ("file 3", "broken")]


def test_an_index_is_what_a_data_set_is_asked_for():
    assert list(EvalBatches(range(2), 5)) == [[SampleIndex(0, 0), SampleIndex(0, 1)]]


def test_a_worker_whose_connection_breaks_is_named():
    """Killed while it sends a batch, it is missed by the connection before PyTorch notices its death."""
    loader = Loader(Numbers(4), EvalBatches(range(4), 2), lambda packed: packed.data, 0, torch.device("cpu"))

    class Broken:
        def __iter__(self):
            raise ConnectionResetError(104, "Connection reset by peer")
            yield

    loader.loader = Broken()
    with pytest.raises(RuntimeError, match=r"DataLoader worker exited while it sent a batch \(.*reset by peer"):
        next(iter(loader))
