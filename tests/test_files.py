import errno
import os
import pickle
import time
import zipfile
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import save_file

from cbam3d import files
from cbam3d.errors import InputError
from cbam3d.files import atomic_write, load_mapping, load_tensors, parse_yaml, to_yaml, used_by_one, writing


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


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &a [x]\nb: *a\n", r"line 2: aliases \(\*a\) are not supported"),
        ("a: " + "[" * 20_000 + "]" * 20_000, "line 1: more than 50 levels"),
        ("x: " + "y" * (1 << 17), "at most 131,072 bytes"),
        ("a: 2001-99-99", "not a readable configuration"),
        ("a: " + "9" * 5000, "not a readable configuration"),
        ("a: !!bool foo", "not a readable configuration"),
        ("a: !!timestamp foo", "not a readable configuration"),
        ("a: [" + "1," * 10_000 + "1]", None),
    ],
)
def test_yaml_that_grows_is_refused_at_once(tmp_path, text, reason):
    (tmp_path / "c.yaml").write_text(text)
    started = time.monotonic()
    with pytest.raises(InputError, match=reason) if reason else nullcontext() as error:
        load_mapping(tmp_path / "c.yaml", "configuration")
    assert time.monotonic() - started < 10
    assert error is None or "\n" not in str(error.value)


def test_an_archive_that_grows_is_refused_unread(tmp_path):
    torch.save({"x": torch.zeros(1 << 22)}, tmp_path / "plain.pt")
    assert load_tensors(tmp_path / "plain.pt", "checkpoint")["x"].numel() == 1 << 22
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "small.pt", "w") as small:
        for entry in plain.infolist():
            small.writestr(entry.filename, plain.read(entry), zipfile.ZIP_DEFLATED)
    assert (tmp_path / "small.pt").stat().st_size < 100_000
    with pytest.raises(InputError, match=r"small\.pt: not a readable checkpoint \(a compressed archive\)"):
        load_tensors(tmp_path / "small.pt", "checkpoint")


def test_the_longest_names_are_written(tmp_path):
    path = tmp_path / ("n" * 251 + ".txt")
    with atomic_write(path) as unfinished:
        unfinished.write_text("whole")
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("text", ["1e5", "12e3", "-.5E-2", "010", "1_000", "0x1f", "yes", "null", "~", "1.5", "é"])
def test_text_is_text_again(text):
    assert parse_yaml(to_yaml({"key": text})) == {"key": text}


def test_a_folder_is_used_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_PATIENCE", 0.5)
    refused = pytest.raises(InputError, match="another process is training there")
    with used_by_one(tmp_path), refused, used_by_one(tmp_path):
        pass
    with used_by_one(tmp_path):
        pass


def test_a_key_stands_once_and_a_time_of_day_is_text():
    for text in ("train: {epochs: 3}\ntrain: {batch_size: 8}", "{a: 1, a: 2}", "a: {b: 1, b: 1}"):
        with pytest.raises(ValueError, match="stands twice"):
            parse_yaml(text)
    assert parse_yaml("a: {b: 1}\nb: [{b: 1}, {b: 2}]") == {"a": {"b": 1}, "b": [{"b": 1}, {"b": 2}]}
    assert parse_yaml("[1:30, 1:30.5, 1_0, 10, 1.5]") == ["1:30", "1:30.5", "1_0", 10, 1.5]


def test_a_full_disk_names_the_file_and_leaves_the_previous_one(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("previous")

    def fill_the_disk():
        with atomic_write(path) as unfinished:
            unfinished.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"table\.csv"):
        fill_the_disk()
    with pytest.raises(InputError, match=r"w\.safetensors: cannot be written"), writing(tmp_path / "w.safetensors"):
        save_file({"weight": torch.zeros(10)}, tmp_path / "missing/w.safetensors")
    assert [one.name for one in tmp_path.iterdir()] == ["table.csv"]
    assert path.read_text() == "previous"
