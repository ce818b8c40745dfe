"""Damaged files: bits flipped, pieces cut out, headers swapped. Nothing may crash, hang or leak."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SHARED

# Runs in a process of its own, so that a crash is a failure and not the end of the tests.
SCRIPT = """
import sys, time
from pathlib import Path
import numpy as np
import psutil
from cbam3d.video import VideoError, probe_video, read_clip
from tests.video.damaged import damage

count, work, *sources = sys.argv[1:]
sources = [Path(source).read_bytes() for source in sources]
names = [Path(source).suffix for source in sys.argv[3:]]
rng, process = np.random.default_rng(0), psutil.Process()
path, slowest, memory, readable = None, 0.0, [], 0
for i in range(int(count)):
    which = int(rng.integers(len(sources)))
    path = Path(work) / f"damaged{names[which]}"
    path.write_bytes(damage(sources[which], sources[int(rng.integers(len(sources)))], rng))
    started = time.monotonic()
    info = probe_video(path, timeout_seconds=20)
    assert info.num_frames or info.problem, i
    for seek in (True, False):
        numbers = sorted(rng.integers(0, max(1, info.num_frames), 4).tolist())
        try:
            corrupt = "drop" if i % 2 else "keep"
            clip = read_clip(path, numbers, (56, 56), seek=seek, corrupt=corrupt, timeout_seconds=20)
            assert clip.shape == (3, 4, 56, 56)
            readable += 1
        except VideoError as error:
            assert "\\n" not in str(error)
    slowest = max(slowest, time.monotonic() - started)
    if i % 20 == 19:
        memory.append(process.memory_info().rss)
print(f"{readable} of {2 * int(count)} readable, slowest {slowest:.2f} s, memory {[m >> 20 for m in memory[::5]]} MiB")
half = len(memory) // 2
assert max(memory[half:]) < 1.05 * max(memory[:half]), memory
assert slowest < 60
"""


def run(count: int, work: Path, sources: list[Path]) -> str:
    arguments = [sys.executable, "-c", SCRIPT, str(count), str(work), *map(str, sources)]
    done = subprocess.run(arguments, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "."}, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_damaged_files_are_read_or_named(tmp_path, make_video):
    sources = [
        make_video("a.mp4", 60, g="12", bf="2"),
        make_video("b.avi", 60, "mpeg4", g="20", bf="2"),
        make_video("c.mkv", 60, g="20"),
        make_video("d.webm", 30, "libvpx-vp9"),
    ]
    readable, _, count = run(200, tmp_path, sources).partition(" readable")[0].split()
    assert int(readable) > int(count) / 10


@pytest.mark.slow
def test_two_thousand_damaged_real_files(tmp_path, shared_data):
    sources = sorted((shared_data / "ucf101").glob("*.avi")) + sorted((shared_data / "odd").iterdir())
    fight = sorted((SHARED / "fight").rglob("*.mp4"))
    small = [path for path in fight if path.stat().st_size < 300_000]
    assert "of 4000 readable" in run(2000, tmp_path, sources + small[::12])
