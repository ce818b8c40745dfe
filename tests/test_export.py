"""Exported networks give what the original gives, from the files alone."""

import json
import shlex
from pathlib import Path

import pytest
import torch

from cbam3d import load_run
from cbam3d.cli import main
from cbam3d.data import motion

TINY = shlex.split(
    "train --config folder --run.accelerator cpu --data.num_frames 4 --data.short_side 32 --data.size 32 "
    "--data.num_workers 0 --model.name resnet10 --model.options '{width: 8}' --train.epochs 1 --train.batch_size 8 "
    "--eval.num_clips 1 --data.test_fraction 0.5"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("export")
    motion.render(root / "videos", num_groups=2)
    assert main([*TINY, "--data.root", str(root / "videos"), "--run.dir", str(root / "run")]) == 0
    return root / "run"


def test_a_program_that_knows_nothing_of_this_package(run, capsys):
    assert main(["export", str(run)]) == 0
    assert "logits within" in capsys.readouterr().out
    program = torch.export.load(run / "export/model.pt2").module()
    original = load_run(run).model
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 4, 32, 32)
        torch.testing.assert_close(program(x), original(x), rtol=1e-4, atol=1e-5)
    facts = json.loads((run / "export/model.json").read_text())
    assert facts["input"]["shape"] == ["batch", 3, 4, 32, 32]
    assert facts["classes"] == sorted(motion.CLASSES)
    assert (facts["size"], facts["num_frames"], facts["mean"]) == (32, 4, [0.432, 0.395, 0.376])


def test_onnx(run, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert main(["export", str(run), "--format", "onnx", "--out", str(tmp_path / "net.onnx")]) == 0
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    original = load_run(run).model
    for batch in (1, 4):
        x = torch.randn(batch, 3, 4, 32, 32)
        (logits,) = session.run(["logits"], {"input": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), original(x).detach(), rtol=1e-3, atol=1e-4)
    assert (tmp_path / "net.json").is_file()


def test_mistakes_are_one_line(run, tmp_path, capsys):
    assert main(["export", str(run), "--out", str(tmp_path / "net.onnx")]) == 2
    assert "--format torch writes files that end in .pt2" in capsys.readouterr().err
    assert main(["export", str(tmp_path)]) == 2
    assert "no run in this folder" in capsys.readouterr().err
    assert main(["export", str(run), "--format", "tflite"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
