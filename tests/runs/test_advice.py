import logging

import numpy as np
import pytest

from cbam3d.config import Config
from cbam3d.data.manifest import Manifest, TextColumn
from cbam3d.data.sampling import Sampling
from cbam3d.engine.records import EpochTable
from cbam3d.engine.scores import Predictions
from cbam3d.engine.scoring import Evaluation
from cbam3d.runs.advice import advice
from cbam3d.runs.data import _report_short
from cbam3d.runs.results import Result


def result_of(hits, labels, leading="video_top1"):
    """Of videos of which the first have the right answer."""
    labels = np.array(labels)
    answers = np.where(np.arange(len(labels)) < hits, labels, (labels + 1) % (labels.max() + 1))
    predictions = Predictions([str(i) for i in range(len(labels))], labels, np.eye(labels.max() + 1)[answers])
    score = hits / len(labels)
    evaluation = Evaluation({leading: score}, {"num_videos": len(labels)}, None, predictions=predictions)
    spread = 1.96 * (score * (1 - score) / len(labels)) ** 0.5
    classes = [str(i) for i in range(labels.max() + 1)]
    return Result(
        evaluation, classes, predictions.names, {leading: score}, {leading: (score - spread, score + spread)}, 0
    )


def table_of(tmp_path, train, held_out):
    table = EpochTable(tmp_path / "metrics.csv", 0)
    for epoch, (one, other) in enumerate(zip(train, held_out, strict=True), 1):
        table.add({"epoch": epoch, "train_loss": one, "loss": other})
    return table


LABELS = np.repeat(np.arange(4), 25)


def test_chance_is_what_the_most_frequent_class_gives():
    assert result_of(50, LABELS).chance == 0.25
    assert result_of(50, [0] * 30 + [1] * 20).chance == 0.6
    uneven = Result(
        result_of(50, [0] * 90 + [2] * 10).evaluation, ["a", "b", "c"], [], {}, {"video_top1": (0.0, 1.0)}, 0
    )
    assert uneven.leading == "video_mean_class_accuracy"
    assert uneven.chance == 0.5  # of two classes with videos
    labels = np.array([[1, 0, 0], [1, 1, 0]], bool)
    several = Evaluation({}, {}, None, predictions=Predictions(["a", "b"], labels, labels.astype(float)))
    assert Result(several, ["a", "b", "c"], [], {}, {"video_map": (0.0, 1.0)}, 0).chance == (1 + 0.75) / 2


def test_a_training_that_learned_says_nothing(tmp_path):
    table = table_of(tmp_path, [1.4, 1.0, 0.6], [1.4, 1.1, 0.9])
    assert advice(Config(), table, result_of(60, LABELS), 240) == ""


def test_chance_is_said_with_what_to_try(tmp_path):
    table = table_of(tmp_path, [1.40, 1.39, 1.38], [1.39, 1.39, 1.39])
    text = advice(Config(), table, result_of(27, LABELS), 240)
    assert "27.0% is not beyond chance (25.0%)" in text
    assert "loss hardly fell" in text
    assert "240 training items are few" in text
    assert "few" not in advice(Config(), table, result_of(27, LABELS), 200_000)
    falling = table_of(tmp_path, [1.40, 0.7, 0.1], [1.39, 1.39, 1.39])
    assert "hardly" not in advice(Config(), falling, result_of(27, LABELS), 240)


@pytest.mark.parametrize(
    ("held_out", "said"),
    [
        ([1.0, 0.8, 0.9, 1.0, 1.2, 1.3], True),
        ([1.0, 0.9, 0.8, 0.82, 0.84, 0.85], False),
        ([1.2, 1.1, 1, 0.9, 0.8, 1], False),
        ([1.39, 1.38, 1.37, 1.36, 1.37, 1.38], False),  # ln 4 = 1.386
    ],
)
def test_what_is_known_by_heart(tmp_path, held_out, said):
    found = advice(Config(), table_of(tmp_path, [1.4, 1, 0.5, 0.2, 0.1, 0.1], held_out), result_of(60, LABELS), 240)
    assert bool(found) == said
    assert ("lowest in epoch 2 (0.800, now 1.300)" in found) == said


def test_answers_that_are_surer_than_they_are_right(tmp_path):
    table = table_of(tmp_path, [1.4, 0.5, 0.1], [1.35, 1.40, 1.42])
    found = advice(Config(), table, result_of(60, LABELS), 240)
    assert "the held-out loss (1.420) is above that of equal probabilities for all classes (1.386)" in found


@pytest.mark.parametrize(
    ("lengths", "number", "what_fits"),
    [
        ([100] * 9 + [60], 1, ""),  # of 16 frames at stride 4, which span 61
        ([100] * 5 + [31] * 5, 5, ": data.stride 2 leaves 0% of them too short"),
        ([100] * 5 + [12] * 5, 5, ": data.sampling segments takes its frames from the whole of a video, however short"),
    ],
)
def test_videos_shorter_than_a_clip(lengths, number, what_fits, caplog):
    num_frames, text = np.array(lengths), TextColumn.of([""] * len(lengths))
    columns = dict.fromkeys(Manifest.__dataclass_fields__, np.zeros(len(lengths)))
    texts = dict.fromkeys(("path", "label", "group", "split", "problem", "shard"), text)
    manifest = Manifest(**columns | texts | {"num_frames": num_frames, "several": False})
    with caplog.at_level(logging.WARNING, "cbam3d"):
        _report_short(manifest, Sampling(16, 4))
    assert caplog.messages == [f"{number} of 10 videos shorter than a clip, and looped{what_fits}"]


def test_chance_counts_the_labels_that_occur_as_the_score_does():
    """Of 40 in random order, of which 20 have the label; other classes have no item."""
    labels = np.zeros((40, 100), bool)
    labels[:20, :10] = True
    several = Evaluation({}, {}, None, predictions=Predictions([*map(str, range(40))], labels, labels.astype(float)))
    harmonic = sum(1 / i for i in range(1, 41))
    expected = (19 / 39 * (40 - harmonic) + harmonic) / 40
    chance = Result(several, [*map(str, range(100))], [], {}, {"video_map": (0.0, 1.0)}, 0).chance
    assert chance == pytest.approx(expected)
