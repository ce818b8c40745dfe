import subprocess
import sys

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from cbam3d.engine.checkpoint import changed_keys, save_checkpoint
from cbam3d.errors import InputError
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
    with pytest.raises(InputError, match=r"x\.ckpt: .*cannot be written \(disk full\); the last one is as it was"):
        save_checkpoint(fabric, path, {"epoch": 2})
    assert load_tensors(path, "checkpoint") == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.ckpt"]


def test_a_disk_that_is_really_full_leaves_the_previous_checkpoint(tmp_path):
    """A process that may write files of 1 MB at most."""
    script = f"""
import resource, signal, torch
from pathlib import Path
from lightning_fabric import Fabric
from cbam3d.engine.checkpoint import save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path, fabric = Path({str(tmp_path)!r}) / "x.ckpt", Fabric(accelerator="cpu")
save_checkpoint(fabric, path, {{"weights": torch.ones(3)}})
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
save_checkpoint(fabric, path, {{"weights": torch.ones(1_000_000)}})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "InputError" in done.stderr
    assert "the last one is as it was" in done.stderr
    assert torch.equal(load_tensors(tmp_path / "x.ckpt", "checkpoint")["weights"], torch.ones(3))
    assert [path.name for path in tmp_path.iterdir()] == ["x.ckpt"]


def test_what_changed_between_two_configurations():
    then = {"a": {"x": 1, "y": [1]}, "m": {"options": {"w": 1}}, "gone": 1}
    now = {"a": {"x": 2, "y": [1]}, "m": {"options": {"w": 2}}}
    assert changed_keys(then, now) == {"a.x": (1, 2), "m.options": ({"w": 1}, {"w": 2}), "gone": (1, None)}
