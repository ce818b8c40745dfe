"""Preparing and comparing on Ray; the clusters are processes of this machine."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster as Nodes

from cbam3d import compare, prepare
from cbam3d.data import scan
from cbam3d.data.manifest import read_manifest
from cbam3d.errors import InputError
from cbam3d.runs.cluster import cluster_of
from cbam3d.video.encode import write_video
from tests.conftest import numbered_frames
from tests.tiny import TINY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]


@contextmanager
def nodes(count):
    """A cluster of some nodes of one core, and connected to it."""
    small = {"num_cpus": 1, "object_store_memory": 100_000_000}
    cluster = Nodes(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    more = [cluster.add_node(**small) for _ in range(count - 1)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield cluster, more
    finally:
        ray.shutdown()
        cluster.shutdown()


def make_videos(root, count):
    for i in range(count):
        path = root / ("run", "walk")[i % 2] / f"{i:03d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, np.roll(numbered_frames(40, 240, 320), i, 0), 25)
    return root


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def noted(journal):
    return sum(len(path.read_text().splitlines()) for path in journal.rglob("*.jsonl"))


def same_copies(ours, theirs):
    """The same, but for the files' times."""
    videos = {name: data for name, data in content(ours).items() if name.suffix == ".avi"}
    assert videos == {name: data for name, data in content(theirs).items() if name.suffix == ".avi"}
    first, second = (read_manifest(folder / "manifest.csv").rows() for folder in (ours, theirs))
    for row, other in zip(first, second, strict=True):
        assert row | {"changed_ns": 0} == other | {"changed_ns": 0}


def test_ray_gives_the_bytes_of_the_local_engine_though_a_node_is_killed(tmp_path):
    root = make_videos(tmp_path / "ray", 60)
    shutil.copytree(root, tmp_path / "local")
    prepare("folder", tmp_path / "local", short_side=64)
    with nodes(2) as (cluster, (other,)):
        killed = threading.Event()

        def kill():
            while noted(root / ".manifest.unfinished") < 12:
                time.sleep(0.01)
            cluster.remove_node(other, allow_graceful=False)
            killed.set()

        thread = threading.Thread(target=kill)
        thread.start()
        done = prepare("folder", root, short_side=64, engine="ray")
        thread.join()
        assert killed.is_set()
    assert content(root) == content(tmp_path / "local")
    assert done.copies is not None
    same_copies(done.copies, Path(f"{tmp_path / 'local'}-64p"))


def test_ray_is_killed_again_and_again(tmp_path):
    """kill -9 of the process that asked, and of all of Ray; the next one does what is missing."""
    root, rng = make_videos(tmp_path / "ray", 60), np.random.default_rng(0)
    shutil.copytree(root, tmp_path / "local")
    prepare("folder", tmp_path / "local")
    command = [sys.executable, "-m", "cbam3d", "prepare", "folder", "--root", str(root), "--engine", "ray"]
    kills = 0
    while True:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        known = noted(root / ".manifest.unfinished")
        while process.poll() is None and kills < 10:
            if noted(root / ".manifest.unfinished") > known:
                time.sleep(rng.uniform(0, 0.2))
                process.kill()
                subprocess.run([Path(sys.executable).with_name("ray"), "stop", "--force"], capture_output=True)
                break
            time.sleep(0.005)
        if process.wait(120) != -signal.SIGKILL:
            break
        kills += 1
    assert (process.returncode, kills) == (0, 10)
    assert content(root) == content(tmp_path / "local")


def _dies(reading, names):
    if any(name.endswith("3.mp4") for name in names):
        os.kill(os.getpid(), signal.SIGKILL)
    return scan._read_part(reading, names)


def test_files_that_kill_their_process_are_listed(tmp_path, monkeypatch, caplog):
    root = make_videos(tmp_path / "videos", 12)
    monkeypatch.setattr(scan, "_read_part", _dies)
    with nodes(1):
        done = prepare("folder", root, engine="ray")
    bad = [path for path, problem in zip(done.manifest.path, done.manifest.problem, strict=True) if problem]
    assert bad == ["walk/003.mp4"]
    assert "walk/003.mp4: kills the process that reads it" in caplog.text


def _fails(about, part):
    raise InputError(f"{part[0]}: no {about}")


def test_what_a_task_raises_is_raised(tmp_path):
    with nodes(1), cluster_of("ray") as cluster:
        assert cluster is not None
        with pytest.raises(InputError, match=r"^a: no b$"):
            list(cluster(_fails, "b", [["a"]]))
    with pytest.raises(InputError, match="unknown engine 'rya': did you mean 'ray'"), cluster_of("rya"):
        pass


def test_trainings_of_a_comparison_run_on_the_cluster(tmp_path):
    from cbam3d.data import motion

    motion.render(tmp_path / "videos", num_groups=2)
    values = {**TINY, "data.root": str(tmp_path / "videos"), "data.stride": 1}
    with nodes(1):
        there = compare(values, "none, se", seeds=2, out=tmp_path / "ray", engine="ray")
    here = compare(values, "none, se", seeds=2, out=tmp_path / "local")
    assert there.heading == here.heading
    for run in ("none", "se"):
        for seed in (0, 1):
            first, second = (tmp_path / where / run / f"seed{seed}" / "predictions.csv" for where in ("ray", "local"))
            assert first.read_text() == second.read_text()
