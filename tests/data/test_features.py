"""Features in place of videos."""

import torch

from cbam3d.data.batch import SampleIndex
from cbam3d.data.features import FeatureLoader, FeatureSet, ViewBatches
from cbam3d.data.loader import EvalBatches, TrainBatches

N, V = 12, 5


def data() -> FeatureSet:
    """The feature of view v of item i is (i, v)."""
    items, views = torch.meshgrid(torch.arange(float(N)), torch.arange(float(V)), indexing="ij")
    return FeatureSet(
        torch.stack([items, views], 2)[..., None].half(), torch.arange(N) % 3, [f"{i}.mp4" for i in range(N)]
    )


def test_views_of_an_item_stay_together():
    found = list(ViewBatches([4, 7, 9], num_views=2, batch_size=5))
    first = [SampleIndex(view, item) for item in (4, 7) for view in (0, 1)]
    assert found == [first, [SampleIndex(0, 9), SampleIndex(1, 9)]]
    assert [len(batch) for batch in ViewBatches(range(3), num_views=8, batch_size=4)] == [8, 8, 8]  # one item at least


def test_an_epoch_has_one_view_of_every_item_and_evaluation_all():
    features = data()
    loader = FeatureLoader(features, TrainBatches(features, 4, seed=0), torch.device("cpu"))
    seen = set()
    for epoch in range(40):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert len(batches) == len(loader) == 3
        assert sorted(int(i) for batch in batches for i in batch.inputs[:, 0, 0]) == list(range(N))
        for batch in batches:
            assert batch.inputs.dtype == torch.float32
            assert batch.targets.tolist() == [int(i) % 3 for i in batch.inputs[:, 0, 0]]
            assert batch.names == [f"{int(i)}.mp4" for i in batch.inputs[:, 0, 0]]
            seen |= {tuple(pair) for pair in batch.inputs[:, :, 0].int().tolist()}
    assert seen == {(i, v) for i in range(N) for v in range(V)}
    tested = list(FeatureLoader(features, EvalBatches(features, 4), torch.device("cpu")))
    assert torch.equal(torch.cat([batch.inputs for batch in tested]), features.features.flatten(0, 1).float())
    assert tested[0].targets.tolist() == [0] * V + [1] * V + [2] * V + [0] * V


def test_the_views_of_an_epoch_are_a_function_of_the_seed():
    def views(seed, epoch, start=0):
        features = data()
        loader = FeatureLoader(features, TrainBatches(features, 4, seed), torch.device("cpu"))
        loader.set_epoch(epoch, start)
        return [batch.inputs[:, :, 0].tolist() for batch in loader]

    assert views(0, 3) == views(0, 3)
    assert views(0, 3)[1:] == views(0, 3, start=1)  # resumed within the epoch
    assert views(0, 3) != views(0, 4)
    assert views(0, 3) != views(1, 3)
