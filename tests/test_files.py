import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from cbam3d.errors import InputError
from cbam3d.files import load_tensors


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_tensors_come_back(tmp_path, name):
    state = {"weight": torch.randn(3, 2)}
    (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)
    assert torch.equal(load_tensors(tmp_path / name, "weights file")["weight"], state["weight"])


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
    save_file({"weight": torch.zeros(1000)}, tmp_path / "whole.safetensors")
    short = tmp_path / "short.safetensors"
    short.write_bytes((tmp_path / "whole.safetensors").read_bytes()[:2000])
    for path in (cut, pickled, text, short, tmp_path / "raw.ckpt", tmp_path / "missing.ckpt"):
        with pytest.raises(InputError, match=path.name) as error:
            load_tensors(path, "checkpoint")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "hacked").exists()
