"""Exported networks give what the original gives, from the files alone."""

import json
from importlib import import_module

import pytest
import torch

from cbam3d import load_run, open_run
from cbam3d.data import motion
from cbam3d.errors import InputError
from tests.tiny import train_tiny


def test_a_program_that_knows_nothing_of_this_package(tiny_run):
    path, difference = open_run(tiny_run).export()
    assert path == tiny_run / "export/model.pt2"
    assert difference < 1e-3
    program = torch.export.load(path).module()
    original = load_run(tiny_run).model
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 4, 32, 32)
        torch.testing.assert_close(program(x), original(x), rtol=1e-4, atol=1e-5)
    facts = json.loads((tiny_run / "export/model.json").read_text())
    assert facts["input"]["shape"] == ["batch", 3, 4, 32, 32]
    assert facts["classes"] == sorted(motion.CLASSES)
    assert (facts["size"], facts["num_frames"], facts["mean"]) == (32, 4, [0.432, 0.395, 0.376])


def test_weights_in_channels_last_format_are_exported_without_a_warning(tiny_run, tmp_path):
    run = train_tiny(tiny_run.parent / "videos", tmp_path / "run", {"run.channels_last": True})
    path, _ = run.export()  # warnings are errors
    x = torch.randn(2, 3, 4, 32, 32)
    torch.testing.assert_close(torch.export.load(path).module()(x), run.model()(x), rtol=1e-4, atol=1e-5)


def test_onnx(tiny_run, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path, _ = open_run(tiny_run).export("onnx", out=tmp_path / "net.onnx")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    original = load_run(tiny_run).model
    for batch in (1, 4):
        x = torch.randn(batch, 3, 4, 32, 32)
        (logits,) = session.run(["logits"], {"input": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), original(x).detach(), rtol=1e-3, atol=1e-4)
    assert (tmp_path / "net.json").is_file()


def test_a_format_has_its_suffix(tiny_run, tmp_path):
    with pytest.raises(InputError, match=r"--format torch writes files that end in \.pt2"):
        open_run(tiny_run).export(out=tmp_path / "net.onnx")
    with pytest.raises(InputError, match="unknown format 'tflite'"):
        open_run(tiny_run).export("tflite")  # type: ignore[arg-type]


def test_a_program_that_differs_is_not_left_behind(tiny_run, tmp_path, monkeypatch):
    module = import_module("cbam3d.runs.export")
    monkeypatch.setattr(module, "largest_difference", lambda *_: 0.5)
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match=r"net\.pt2: the exported network differs from the original by 0\.5"):
        module.export(open_run(tiny_run).checkpoint(), "torch", tmp_path / "out" / "net.pt2")
    assert list((tmp_path / "out").iterdir()) == []
