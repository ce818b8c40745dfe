"""Clips of the same videos from a folder, shards, copies and object storage, by one process.

    python benchmarks/storage.py [FOLDER]       # without: 40 videos of ten seconds, rendered

Job: 16 frames, stride 2, at a random start, scaled to 112x112, as training reads them (VideoDataset, one thread), with
the packets of the table. Storage is an S3 server of this machine, in a process of its own (moto, which is in Python and
takes milliseconds a request): seconds are those of both, and CPU seconds are ours. Bytes are those that are asked for:
of files, of requests. Before that, what the stages of prepare cost.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import torch
from rendering import render
from tables import table

from cbam3d import prepare
from cbam3d.data.batch import SampleIndex
from cbam3d.data.manifest import read_manifest
from cbam3d.data.sampling import Sampling
from cbam3d.data.videos import VideoDataset
from cbam3d.storage import BlockCache, Place, Url, kept_copy, remote
from cbam3d.video import decode
from cbam3d.video.index import PacketIndex

CLIPS = 400
asked = [0]


def render_folder(root: Path, count: int = 40) -> None:
    """Videos of ten seconds, as those of Kinetics: 340x256, H.264, a keyframe every ten seconds."""
    for i in range(count):
        source = f"testsrc2=size=340x256:rate=25:duration=10,rotate={i}*PI/40,noise=alls=12:allf=t"
        render(root / f"class{i % 2}" / f"{i:02d}.mp4", source, "-c:v libx264 -preset veryfast -crf 30")


def read(root: Place, cache: BlockCache | None, visits: int, kept: Path) -> tuple[float, float, float]:
    """Clips a second, CPU milliseconds a clip, and KiB asked for a clip."""
    manifest = read_manifest(root / "manifest.csv")
    index = PacketIndex(kept_copy(root / "manifest.packets", kept), root)
    clips = partial(Sampling(16, 2).random, num_clips=1)
    classes = sorted(set(manifest.label))
    data = VideoDataset(root, manifest, classes, clips, 112, 0, index=index, cache=cache)
    data.read(SampleIndex(0, 0))
    done, num_bytes, seconds, cpu = 0, 0, 0.0, 0.0
    for epoch in range(visits):
        decode._tables.tables.clear()  # a data set is larger than what a process remembers
        asked[0], before = 0, _read_by_system()
        begin, cpu = time.perf_counter(), time.process_time()
        done = 0
        while done < CLIPS:
            for i in range(len(manifest)):
                assert data.read(SampleIndex(epoch * CLIPS + done, i)).views
                decode._tables.tables.clear()
                done += 1
        seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
        num_bytes = asked[0] if isinstance(root, Url) else _read_by_system() - before
    return done / seconds, 1e3 * cpu / done, num_bytes / done / 1024


def _read_by_system() -> int:
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    given = parser.parse_args()
    torch.set_num_threads(1)
    facts = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ.update(facts, AWS_ENDPOINT_URL="http://127.0.0.1:5055")
    server = subprocess.Popen(
        [Path(sys.executable).with_name("moto_server"), "-p", "5055"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    original = remote.read_ranges

    def counted(url: Url, ranges: list[tuple[int, int]], *rest: float) -> list[bytes]:
        asked[0] += sum(stop - start for start, stop in ranges)
        return original(url, ranges, *rest)  # type: ignore[arg-type]

    remote.read_ranges = counted
    try:
        with tempfile.TemporaryDirectory() as temporary:
            here = Path(temporary)
            if given.folder is None:
                render_folder(here / "videos")
            else:
                shutil.copytree(given.folder, here / "videos")
            root, copies = here / "videos", here / "copies"
            quiet = {"workers": 1, "allow_leaks": True, "progress": lambda items, total, text, done=0: items}
            stages = {
                "table (reads every frame once)": (root, {}),
                "table and copies (128 pixels)": (root, {"short_side": 128, "copies": str(copies)}),
                "shards": (root, {"shards": str(here / "tar")}),
                "shards of copies": (copies, {"shards": str(here / "copies-tar")}),
            }
            rows = []
            for name, (folder, options) in stages.items():
                if "short_side" in options:
                    for path in (root / "manifest.csv", root / "manifest.packets"):
                        path.unlink()
                begin = time.perf_counter()
                count = prepare("folder", folder, **options, **quiet).manifest.usable.sum()
                made = {"short_side": copies, "shards": Path(options.get("shards", ""))}.get(next(iter(options), ""))
                num_bytes = _size(made) if made else sum(map(_size, root.glob("manifest.*")))
                seconds = 1e3 * (time.perf_counter() - begin) / count
                rows.append([name, f"{seconds:.1f}", f"{num_bytes / count / 1024:.1f}"])
            table(["stage of prepare, one core", "ms a video", "KiB written a video"], rows)
            _wait(server)
            upload(here)
            rows = []
            size = sum(path.stat().st_size for path in root.rglob("*.mp4")) / len(list(root.rglob("*.mp4"))) / 1024
            print(f"{len(read_manifest(root / 'manifest.csv'))} videos of {size:.0f} KiB on average.\n")
            places: dict[str, tuple[Place, bool, int]] = {
                "files": (root, False, 1),
                "shards": (here / "tar", False, 1),
                "copies": (copies, False, 1),
                "shards of copies": (here / "copies-tar", False, 1),
                "files in S3": (Url("s3://films/videos"), False, 1),
                "shards in S3": (Url("s3://films/tar"), False, 1),
                "shards of copies in S3": (Url("s3://films/copies-tar"), False, 1),
                "the same, second visit": (Url("s3://films/copies-tar"), True, 3),
            }
            for name, (place, cached, visits) in places.items():
                cache = BlockCache(here / "cache", 1 << 33) if cached else None
                rate, cpu, size = read(place, cache, visits, here / "tables")
                rows.append([name, f"{rate:.0f}", f"{cpu:.1f}", f"{size:.0f}"])
            table(["16 frames, stride 2", "clips/s", "our CPU, ms a clip", "KiB asked for a clip"], rows)
    finally:
        server.terminate()


def _size(path: Path) -> int:
    """Bytes of a file, or of the files in a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def _wait(server: "subprocess.Popen[bytes]") -> None:
    for _ in range(200):
        try:
            urlopen("http://127.0.0.1:5055/moto-api/").read()
            return
        except OSError:
            time.sleep(0.1)
            assert server.poll() is None
    raise SystemExit("the server does not start")


def upload(here: Path) -> None:
    import boto3

    client = boto3.client("s3")
    client.create_bucket(Bucket="films")
    for folder in ("videos", "tar", "copies-tar"):
        root = here / folder
        for path in root.resolve().rglob("*"):
            if path.is_file():
                client.upload_file(str(path), "films", f"{folder}/{path.relative_to(root.resolve()).as_posix()}")


if __name__ == "__main__":
    main()
