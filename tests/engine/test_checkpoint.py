import os
import pickle

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from cbam3d.engine.checkpoint import load_checkpoint, save_checkpoint
from cbam3d.errors import InputError


def test_modules_are_saved_by_their_state(tmp_path):
    fabric, model = Fabric(accelerator="cpu"), nn.Linear(3, 2)
    save_checkpoint(fabric, tmp_path / "x.ckpt", {"model": model, "epoch": 3, "classes": ["a", "b"]})
    state = load_checkpoint(tmp_path / "x.ckpt")
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
    assert load_checkpoint(path) == {"epoch": 1}


class Malicious:
    def __reduce__(self):
        return os.system, ("touch hacked",)


def test_bad_files_are_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good, cut, pickled, text = (tmp_path / name for name in ("good.ckpt", "cut.ckpt", "pickled.ckpt", "text.ckpt"))
    torch.save({"weight": torch.zeros(1000)}, good)
    cut.write_bytes(good.read_bytes()[:2000])
    torch.save({"x": Malicious()}, pickled)
    text.write_text("hello")
    (tmp_path / "raw.ckpt").write_bytes(pickle.dumps(Malicious()))
    for path in (cut, pickled, text, tmp_path / "raw.ckpt", tmp_path / "missing.ckpt"):
        with pytest.raises(InputError, match=path.name) as error:
            load_checkpoint(path)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "hacked").exists()
