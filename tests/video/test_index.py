import os
import pickle
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from cbam3d.errors import InputError
from cbam3d.storage import state_of
from cbam3d.video import decode, index, probe_video, read_clip
from cbam3d.video.decode import read_packets
from cbam3d.video.index import Indexed, PacketIndex, encode, write_index
from cbam3d.video.packets import PacketTable
from tests.video.test_decode import FILES, UNTABLED


def write(folder, names):
    videos = [Indexed(name, *state_of(folder / name), encode(read_packets(folder / name))) for name in names]
    write_index(folder / "manifest.packets", videos)
    return PacketIndex(folder / "manifest.packets")


@pytest.fixture
def forgetful(monkeypatch):
    """Every clip is the first that the process reads of its file; returns how often all packets were read."""
    tabulated = []
    monkeypatch.setattr(decode, "_tables", decode._Tables(most_bytes=0))
    monkeypatch.setattr(decode._Tables, "look_up", lambda self, key: (False, None))
    read = decode._table_of
    monkeypatch.setattr(decode, "_table_of", lambda *given: tabulated.append(given) or read(*given))
    return tabulated


@pytest.mark.parametrize(("name", "codec", "options"), FILES)
def test_frames_by_the_index_are_those_of_a_sequential_decode(make_video, forgetful, monkeypatch, name, codec, options):
    path = make_video(name, 60, codec, **options)
    whole, kept = read_clip(path, range(60), seek=False), write(path.parent, [path.name])
    forgetful.clear()
    monkeypatch.setattr(decode, "_read_from_start", None)
    rng = np.random.default_rng(0)
    for _ in range(8):
        numbers = rng.integers(0, 60, rng.integers(1, 6)).tolist()
        assert torch.equal(read_clip(path, numbers, index=kept), whole[:, numbers])
    assert not forgetful


@pytest.mark.parametrize(("name", "codec", "options"), UNTABLED)
def test_what_must_be_decoded_is_not_read_twice(make_video, forgetful, name, codec, options):
    path = make_video(name, 40, codec, **options)
    kept = write(path.parent, [path.name])
    forgetful.clear()
    assert torch.equal(read_clip(path, [3, 30], index=kept), read_clip(path, [3, 30], seek=False))
    assert not forgetful


@pytest.mark.parametrize(("name", "codec", "options"), FILES + UNTABLED)
def test_a_table_survives(make_video, name, codec, options):
    table = read_packets(make_video(name, 40, codec, **options))
    assert index.decode(encode(table)) == table
    assert len(encode(table)) < 400


def test_hidden_packets_and_gaps_survive():
    table = PacketTable([1, 0, 3], [1, 0, 2, 3], [-7, 2**40, 5, 9], [0, 2], skippable=False, gaps=True)
    found = index.decode(encode(table))
    assert [list(one) for one in (found.places, found.ranks, found.times, found.keyframes)] == [
        [1, 0, 3],
        [1, 0, 2, 3],
        [-7, 2**40, 5, 9],
        [0, 2],
    ]
    assert (found.skippable, found.gaps) == (False, True)
    assert all(type(value) is int for value in (*found.ranks, *found.times))  # PyAV takes no other


def test_a_file_that_changes_is_read_anew(make_video, forgetful):
    path = make_video("a.mp4", 30)
    kept = write(path.parent, ["a.mp4"])
    forgetful.clear()
    other = make_video("b.mp4", 50, bf="0", g="3")
    shutil.copy(other, path)
    assert torch.equal(read_clip(path, [45], index=kept), read_clip(other, [45], seek=False))
    assert len(forgetful) == 1
    state = os.stat(path)
    kept = write(path.parent, ["a.mp4"])
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    read_clip(path, [45], index=kept)
    assert len(forgetful) == 3  # of which one by `write`


def test_files_that_it_does_not_have(make_video, tmp_path, forgetful):
    path = make_video("videos/a.mp4", 30)
    make_video("videos/b.mp4", 20)
    kept = write(path.parent, ["b.mp4"])
    forgetful.clear()
    read_clip(path, [5], index=kept)
    shutil.copy(path, tmp_path / "b.mp4")  # the same name in another folder
    read_clip(tmp_path / "b.mp4", [5], index=kept)
    assert len(forgetful) == 2
    assert torch.equal(
        read_clip(path.parent / "b.mp4", [5], index=pickle.loads(pickle.dumps(kept))),
        read_clip(path.parent / "b.mp4", [5]),
    )
    assert len(forgetful) == 3  # by the call without an index
    write_index(tmp_path / "empty", [])
    read_clip(path, [5], index=PacketIndex(tmp_path / "empty"))


def test_a_file_that_is_no_index_is_an_error(make_video):
    path = make_video("a.mp4", 30)
    write(path.parent, ["a.mp4"])
    place = path.parent / "manifest.packets"
    whole = place.read_bytes()
    for bad in (b"", b"hello", whole[:-1], whole[:30], b"x" + whole[1:], whole[:16] + b"\xff" * 8 + whole[24:]):
        place.write_bytes(bad)
        with pytest.raises(InputError, match=r"manifest\.packets: not a"):
            PacketIndex(place)


def test_packets_that_are_none_are_not_used(make_video, forgetful):
    """Damage is noticed; a table that was made to be wrong gives other frames at worst."""
    path = make_video("a.mp4", 30)
    expected, good, rng = read_clip(path, [3, 25]), encode(read_packets(path)), np.random.default_rng(0)

    def changed(data):
        return data[: (place := int(rng.integers(len(data))))] + bytes([data[place] ^ 1]) + data[place + 1 :]

    def read(packets):
        write_index(path.parent / "manifest.packets", [Indexed("a.mp4", *state_of(path), packets)])
        return read_clip(path, [3, 25], index=PacketIndex(path.parent / "manifest.packets"))

    for packets in (b"x", good[:-5], zlib.compress(b""), *(changed(good) for _ in range(50))):
        assert torch.equal(read(packets), expected)
    for _ in range(100):
        assert read(zlib.compress(changed(zlib.decompress(good)))).shape == expected.shape


def test_probing_keeps_the_packets_of_whole_files(make_video, tmp_path):
    path = make_video("a.mp4", 30)
    assert index.decode(probe_video(path).packets) == read_packets(path)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(make_video("a.mkv", 60).read_bytes()[:-5000])
    info = probe_video(cut)
    assert info.problem
    assert info.packets == b""


def test_real_and_odd_files_by_the_index(shared_data, tmp_path, forgetful):
    rng = np.random.default_rng(0)
    files = [*(shared_data / "ucf101").glob("*.avi"), *(shared_data / "odd").iterdir()]
    files += (
        sorted((shared_data / "fight").rglob("*.mp4"))[::60] + sorted((shared_data / "avletters").rglob("*.mp4"))[::200]
    )
    copies = [Path(shutil.copy(file, tmp_path / file.name)) for file in files]
    infos = {path: probe_video(path) for path in copies}
    write_index(
        tmp_path / "manifest.packets",
        [Indexed(path.name, *state_of(path), info.packets) for path, info in infos.items()],
    )
    kept = PacketIndex(tmp_path / "manifest.packets")
    forgetful.clear()
    for path, info in infos.items():
        whole = read_clip(path, range(info.num_frames), seek=False)
        for _ in range(3):
            numbers = rng.integers(0, info.num_frames, 4).tolist()
            assert torch.equal(read_clip(path, numbers, index=kept), whole[:, numbers]), path
    assert not forgetful
