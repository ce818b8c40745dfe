import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, top_k_accuracy_score
from torch import nn

from cbam3d.data.loader import Batch
from cbam3d.engine.scoring import score
from cbam3d.errors import InputError


class PassThrough(nn.Module):
    """The inputs are the logits."""

    def forward(self, x):
        return x


def scores_of(batches, num_classes, images=False, batch_size=3, apart=False):
    return score(Fabric(accelerator="cpu"), PassThrough(), batches, num_classes, batch_size, images, apart)


def batches_of(logits, labels, size):
    """(N, V, K) logits and (N,) labels in batches of `size` videos; the last one may be smaller."""
    for i in range(0, len(labels), size):
        names = [f"{j:03}" for j in range(i, min(i + size, len(labels)))]
        yield Batch(logits[i : i + size].flatten(0, 1), labels[i : i + size], labels[i : i + size], names, [])


def test_by_hand():
    """Two videos of two views, three classes. The second video is right only after averaging."""
    probabilities = torch.tensor([[[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], [[0.1, 0.4, 0.5], [0.6, 0.35, 0.05]]])
    # means: [.4, .5, .1] and [.35, .375, .275]; labels 0 and 1
    result = scores_of(batches_of(probabilities.log(), torch.tensor([0, 1]), 2), 3)
    assert result.scores["clip_top1"] == pytest.approx(1 / 4)
    assert result.scores["video_top1"] == pytest.approx(1 / 2)
    assert result.scores["loss"] == pytest.approx(-np.log([0.7, 0.1, 0.4, 0.35]).mean(), rel=1e-5)
    assert result.confusion.tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert result.counts == {"num_videos": 2, "num_clips": 4, "num_skipped": 0}


@pytest.mark.parametrize("size", [1, 4, 30])
def test_against_scikit_learn_with_a_ragged_last_batch(size):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(30, 3, 9, generator=generator) * 2
    labels = torch.cat([torch.arange(9), torch.randint(0, 9, (21,), generator=generator)])
    result = scores_of(batches_of(logits, labels, size), 9)
    probabilities = logits.double().softmax(2)
    clips, videos = probabilities.flatten(0, 1).numpy(), probabilities.mean(1).numpy()
    clip_labels = labels.repeat_interleave(3).numpy()
    expected = {
        "clip_top1": accuracy_score(clip_labels, clips.argmax(1)),
        "clip_top5": top_k_accuracy_score(clip_labels, clips, k=5),
        "video_top1": accuracy_score(labels, videos.argmax(1)),
        "video_top5": top_k_accuracy_score(labels, videos, k=5),
        "loss": log_loss(clip_labels, clips),
    }
    assert result.scores == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(result.confusion, confusion_matrix(labels, videos.argmax(1)))
    assert result.predictions.names == [f"{i:03}" for i in range(30)]
    np.testing.assert_array_equal(result.predictions.labels, labels)
    np.testing.assert_allclose(result.predictions.probabilities, videos, atol=1e-6)


def test_outputs_that_are_not_finite_are_refused_rather_than_counted_as_right():
    logits = torch.zeros(4, 1, 3)
    logits[2, 0, 1] = float("nan")
    with pytest.raises(InputError, match="not finite for 1 of 4 items, the first is 002"):
        scores_of(batches_of(logits, torch.arange(4) % 3, 2), 3)


def test_ties_go_to_the_first_class_for_clips_and_for_videos():
    result = scores_of(batches_of(torch.zeros(4, 1, 7), torch.tensor([0, 0, 1, 6]), 4), 7)
    assert [result.scores[name] for name in ("clip_top1", "video_top1")] == [0.5, 0.5]
    assert [result.scores[name] for name in ("clip_top5", "video_top5")] == [0.75, 0.75]


def test_images_have_no_clips():
    logits = torch.eye(6)[:, None]
    result = scores_of(batches_of(logits, torch.tensor([0, 1, 2, 3, 4, 0]), 4), 6, images=True)
    assert result.scores["top1"] == pytest.approx(5 / 6)
    assert set(result.scores) == {"loss", "top1", "top5"}
    assert result.counts == {"num_images": 6, "num_skipped": 0}


def test_five_classes_or_fewer_have_no_top5():
    result = scores_of(batches_of(torch.eye(5)[:, None], torch.arange(5), 1), 5)
    assert set(result.scores) == {"loss", "clip_top1", "video_top1"}
    assert result.scores["video_top1"] == 1


def test_what_was_skipped_is_counted_and_never_scored():
    none = torch.empty(0, dtype=torch.long)
    nothing = Batch(torch.empty(0), none, none, [], [("a", "empty file"), ("b", "cut")])
    good = Batch(torch.tensor([[0.0, 1.0]]), torch.tensor([1]), torch.tensor([1]), ["good"], [("c", "cut")])
    result = scores_of([nothing, good], 2)
    assert result.counts == {"num_videos": 1, "num_clips": 1, "num_skipped": 3}
    assert result.scores["video_top1"] == 1.0
    assert result.problems == [("a", "empty file"), ("b", "cut"), ("c", "cut")]
    with pytest.raises(InputError, match="no item could be scored"):
        scores_of([nothing], 2)


def test_the_model_is_left_in_evaluation_mode_and_without_gradients():
    class Probe(PassThrough):
        def forward(self, x):
            assert not self.training
            assert not torch.is_grad_enabled()
            return x

    score(
        Fabric(accelerator="cpu"),
        Probe().train(),
        batches_of(torch.zeros(2, 1, 2), torch.tensor([0, 1]), 1),
        2,
        8,
        False,
    )


SCRIPT = """
import json, sys, torch
from lightning_fabric import Fabric
from cbam3d.data.loader import Batch, EvalBatches
from cbam3d.engine.scoring import score

if __name__ == "__main__":
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(7, 2, 6, generator=generator), torch.arange(7) % 6
    batches = []
    for indices in EvalBatches(range(7), 2, fabric.global_rank, fabric.world_size):
        rows = [index.item for index in indices]
        bad = [(f"bad {i}", "x") for i in rows if i > 4]
        batches.append(Batch(logits[rows].flatten(0, 1), labels[rows], labels[rows], [str(row) for row in rows], bad))
    result = score(fabric, torch.nn.Identity(), batches, 6, 4, False)
    if fabric.is_global_zero:
        print(json.dumps([result.scores, result.counts, result.confusion.tolist(), sorted(result.problems)]))
"""


def test_two_processes_score_each_video_once(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    scores, counts, confusion, problems = json.loads(done.stdout.strip().splitlines()[-1])
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 2, 6, generator=generator)
    alone = scores_of(batches_of(logits, torch.arange(7) % 6, 7), 6)
    assert scores == pytest.approx(alone.scores, rel=1e-6)
    assert counts == {"num_videos": 7, "num_clips": 14, "num_skipped": 2}
    assert confusion == alone.confusion.tolist()
    assert problems == [["bad 5", "x"], ["bad 6", "x"]]
