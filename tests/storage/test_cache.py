import logging
import multiprocessing
import os
import pickle
import time

import numpy as np
import pytest

from cbam3d.storage import cache as module
from cbam3d.storage.cache import BLOCK, BlockCache


def blocks(count, seed=0):
    return [np.random.default_rng([seed, i]).bytes(BLOCK) for i in range(count)]


def size_of(folder):
    return sum(512 * os.stat(path).st_blocks for path in folder.rglob("*") if path.is_file())


def test_blocks_are_what_was_written(tmp_path):
    cache, data = BlockCache(tmp_path, 1 << 30), blocks(3)
    with cache.open("a", 2 * BLOCK + 100) as file:
        assert file.read(0) is None
        file.write(2, data[2][:100])
        file.write(0, data[0])
    with pickle.loads(pickle.dumps(cache)).open("a", 2 * BLOCK + 100) as file:
        assert file.read(0) == data[0]
        assert file.read(1) is None
        assert file.read(2)[:100] == data[2][:100]
    with cache.open("b", 2 * BLOCK + 100) as file:  # a file that has changed has another key
        assert file.read(0) is None


def test_damage_is_noticed(tmp_path):
    cache, (data,) = BlockCache(tmp_path, 1 << 30), blocks(1)
    with cache.open("a", BLOCK) as file:
        file.write(0, data)
    (path,) = (path for path in tmp_path.rglob("*") if path.is_file())
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    with cache.open("a", BLOCK) as file:
        assert file.read(0) is None
        file.write(0, data)
        assert file.read(0) == data
    path.write_bytes(whole[:1000])  # cut off
    with cache.open("a", BLOCK) as file:
        assert file.read(0) is None


def test_the_size_is_bounded_and_the_oldest_go_first(tmp_path):
    cache = BlockCache(tmp_path, 100 * BLOCK)
    for i in range(300):
        with cache.open(str(i), 2 * BLOCK) as file:
            for block, data in enumerate(blocks(2, i)):
                file.write(block, data)
        with cache.open("0", 2 * BLOCK) as file:  # in use all the time
            assert file.read(1) == blocks(2, 0)[1]
        assert size_of(tmp_path) < 1.15 * 100 * BLOCK
    kept = []
    for i in range(300):
        with cache.open(str(i), 2 * BLOCK) as file:
            kept.append(file.read(0) is not None)
    assert kept[0]
    assert not any(kept[1:200])
    assert all(kept[-30:])
    BlockCache(tmp_path, 10 * BLOCK).wrote(BLOCK)  # a smaller one, on what the other has left
    assert size_of(tmp_path) <= 10 * BLOCK


def _work(folder, seed):
    cache, rng = BlockCache(folder, 60 * BLOCK), np.random.default_rng(seed)
    for _ in range(300):
        number = int(rng.integers(40))
        with cache.open(str(number), 4 * BLOCK) as file:
            for block, data in enumerate(blocks(4, number)):
                found = file.read(block)
                if found is None:
                    file.write(block, data)
                elif found != data:
                    os._exit(1)
    os._exit(0)


def test_processes_share_it(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_work, args=(tmp_path, seed)) for seed in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert size_of(tmp_path) < 80 * BLOCK


def test_nothing_is_kept_where_nothing_may_be(tmp_path, caplog, monkeypatch):
    with BlockCache(tmp_path / "none", 0).open("a", 10) as file:
        assert file is None
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").write_text("")
    cache = BlockCache(tmp_path / "file", 1 << 20)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            with cache.open("a", 10) as file:
                assert file is None
    assert caplog.text.count("nothing is kept of remote files") == 1

    def full(*_):
        raise OSError(28, "No space left on device")

    cache = BlockCache(tmp_path / "full", 1 << 20)
    monkeypatch.setattr(module.os, "pwrite", full)
    with cache.open("a", 10) as file:
        file.write(0, b"x")
    with cache.open("a", 10) as file:
        assert file is None
    assert "No space left on device" in caplog.text


def test_it_is_used_for_longest_first(tmp_path):
    cache = BlockCache(tmp_path, 1 << 30)
    for key in "ab":
        with cache.open(key, BLOCK) as file:
            file.write(0, blocks(1)[0])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    time.sleep(0.02)
    with cache.open("a", BLOCK) as file:
        assert file.read(0)
    changed = [path for path, then in before.items() if path.stat().st_mtime_ns > then]
    assert len(changed) == 1


@pytest.mark.parametrize("value", ["/somewhere", ""])
def test_the_usual_folder(monkeypatch, value):
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert module.default_folder().parts[-2:] == (("somewhere", "cbam3d") if value else (".cache", "cbam3d"))
