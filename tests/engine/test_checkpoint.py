import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from cbam3d.engine.checkpoint import save_checkpoint
from cbam3d.files import load_tensors


def test_modules_are_saved_by_their_state(tmp_path):
    fabric, model = Fabric(accelerator="cpu"), nn.Linear(3, 2)
    save_checkpoint(fabric, tmp_path / "x.ckpt", {"model": model, "epoch": 3, "classes": ["a", "b"]})
    state = load_tensors(tmp_path / "x.ckpt", "checkpoint")
    assert torch.equal(state["model"]["weight"], model.weight)
    assert (state["epoch"], state["classes"]) == (3, ["a", "b"])
    assert [path.name for path in tmp_path.iterdir()] == ["x.ckpt"]


def test_a_crash_while_writing_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    fabric, path = Fabric(accelerator="cpu"), tmp_path / "x.ckpt"
    save_checkpoint(fabric, path, {"epoch": 1})

    def half_written(self, target, state):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Fabric, "save", half_written)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(fabric, path, {"epoch": 2})
    assert load_tensors(path, "checkpoint") == {"epoch": 1}
