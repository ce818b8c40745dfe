"""Exported networks give what the original gives, from the files alone."""

import json

import pytest
import torch

from cbam3d import load_run
from cbam3d.cli import main
from cbam3d.data import motion


def test_a_program_that_knows_nothing_of_this_package(tiny_run, capsys):
    assert main(["export", str(tiny_run)]) == 0
    assert "logits within" in capsys.readouterr().out
    program = torch.export.load(tiny_run / "export/model.pt2").module()
    original = load_run(tiny_run).model
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 4, 32, 32)
        torch.testing.assert_close(program(x), original(x), rtol=1e-4, atol=1e-5)
    facts = json.loads((tiny_run / "export/model.json").read_text())
    assert facts["input"]["shape"] == ["batch", 3, 4, 32, 32]
    assert facts["classes"] == sorted(motion.CLASSES)
    assert (facts["size"], facts["num_frames"], facts["mean"]) == (32, 4, [0.432, 0.395, 0.376])


def test_onnx(tiny_run, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert main(["export", str(tiny_run), "--format", "onnx", "--out", str(tmp_path / "net.onnx")]) == 0
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    original = load_run(tiny_run).model
    for batch in (1, 4):
        x = torch.randn(batch, 3, 4, 32, 32)
        (logits,) = session.run(["logits"], {"input": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), original(x).detach(), rtol=1e-3, atol=1e-4)
    assert (tmp_path / "net.json").is_file()


def test_mistakes_are_one_line(tiny_run, tmp_path, capsys):
    assert main(["export", str(tiny_run), "--out", str(tmp_path / "net.onnx")]) == 2
    assert "--format torch writes files that end in .pt2" in capsys.readouterr().err
    assert main(["export", str(tmp_path)]) == 2
    assert "no run in this folder" in capsys.readouterr().err
    assert main(["export", str(tiny_run), "--format", "tflite"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
