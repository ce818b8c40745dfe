"""Does the recipe of UCF101 hold at its full size? Its names and lists, and files of its kind in place of its videos.

    python benchmarks/ucf101.py [--videos 300] [--batch-size 32]

13,320 names of 101 classes and 25 groups with lists as the official ones; a few hundred distinct XviD files in AVI
(320x240, 25 frames a second, B-frames, 7 seconds on average), rendered. These are prepared and read, and what they take
is extrapolated to 13,320; their copies then stand, under links, for all names: three splits are opened, and one step of
training and one of scoring are tried (`cbam3d train --config ucf101 --dry-run`).
"""

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rendering import render
from tables import table

from cbam3d import prepare
from cbam3d.config import load_config
from cbam3d.config.bundled import find_recipe
from cbam3d.data.batch import SampleIndex
from cbam3d.data.manifest import Manifest, TextColumn, read_manifest, write_manifest
from cbam3d.data.recipe import load_recipe
from cbam3d.data.sampling import Sampling
from cbam3d.data.videos import VideoDataset
from cbam3d.runs.data import open_source
from cbam3d.runs.dry_run import dry_run
from cbam3d.video.index import INDEX_NAME, PacketIndex

NUM_VIDEOS = 13_320
TEST_GROUPS = {1: range(1, 8), 2: range(8, 15), 3: range(15, 22)}


def all_names() -> list[str]:
    """Class/v_Class_gXX_cYY.avi, five or six of each class and group."""
    classes = load_recipe(find_recipe("ucf101")).classes
    places = [(name, group) for name in classes or () for group in range(1, 26)]
    counts = np.diff(np.linspace(0, NUM_VIDEOS, len(places) + 1).astype(int))
    return [
        f"{name}/v_{name}_g{group:02d}_c{clip:02d}.avi"
        for (name, group), count in zip(places, counts, strict=True)
        for clip in range(1, count + 1)
    ]


def write_lists(folder: Path, names: list[str]) -> None:
    """trainlist0N.txt with class numbers, testlist0N.txt without, as the official ones."""
    folder.mkdir()
    classes = sorted({name.split("/")[0] for name in names}, key=str.lower)
    (folder / "classInd.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(classes, 1)))
    for number, groups in TEST_GROUPS.items():
        held_out = {f"_g{group:02d}_" for group in groups}
        tests = [name for name in names if any(part in name for part in held_out)]
        trains = [f"{name} {classes.index(name.split('/')[0]) + 1}" for name in names if name not in set(tests)]
        (folder / f"testlist{number:02d}.txt").write_text("\n".join(tests) + "\n")
        (folder / f"trainlist{number:02d}.txt").write_text("\n".join(trains) + "\n")


def render_like(path: Path, number: int) -> None:
    """A file as those of UCF101; all differ."""
    rng = np.random.default_rng(number)
    seconds = float(np.clip(rng.lognormal(1.85, 0.45), 1.2, 40))
    pattern = f"testsrc2=size=320x240:rate=25:duration={seconds:.2f}"
    source = f"{pattern},rotate={number}*PI/40,hue=h={number * 7 % 360},noise=alls=4:allf=t:all_seed={number}"
    render(path, source, "-c:v mpeg4 -vtag XVID -bf 2 -g 300 -q:v 7")


def clips_per_second(root: Path, manifest: Manifest, num_clips: int) -> float:
    """Of training (one random clip a visit) or of scoring (ten of a video in one pass), on one thread."""
    sampling = Sampling(16, 2)

    def clips(video_frames: int, video_fps: float, rng: np.random.Generator) -> list[list[int]]:
        if num_clips == 1:
            return sampling.random(video_frames, video_fps, rng)
        return sampling.uniform(video_frames, video_fps, num_clips)

    data = VideoDataset(
        root, manifest, sorted(set(manifest.label)), clips, 128, 0, index=PacketIndex(root / INDEX_NAME, root)
    )
    begin = time.perf_counter()
    views = sum(len(data.read(SampleIndex(1, i)).views) for i in range(len(manifest)))
    return views / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description="UCF101 without UCF101")
    parser.add_argument("--videos", type=int, default=300, help="distinct files")
    parser.add_argument("--batch-size", type=int, default=32, help="of the step that is tried")
    given = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as temporary:
        root, names = Path(temporary) / "UCF-101", all_names()
        chosen = names[:: NUM_VIDEOS // given.videos][: given.videos]
        for number, name in enumerate(chosen):
            render_like(root / name, number)
        lists = Path(temporary) / "ucfTrainTestlist"
        write_lists(lists, names)
        begin = time.perf_counter()
        prepared = prepare("ucf101", root, short_side=128, gop=12, copies=str(root) + "-128p", workers=1)
        seconds = (time.perf_counter() - begin) / len(chosen)
        copies, small = Path(str(prepared.copies)), read_manifest(Path(str(prepared.copies)) / "manifest.csv")
        sizes = [sum(f.stat().st_size for f in each.rglob("*.avi")) / len(chosen) / 1024 for each in (root, copies)]
        frames = small.num_frames.mean()
        print(f"{len(chosen)} files of {frames:.0f} frames and {sizes[0]:.0f} KiB on average; one core:\n")
        rows = [["prepare, with copies of 128 pixels", f"{1e3 * seconds:.0f} ms a video", hours(seconds * NUM_VIDEOS)]]
        rows.append(["copies on disk", f"{sizes[1]:.0f} KiB a video", f"{sizes[1] * NUM_VIDEOS / 2**20:.1f} GiB"])
        for where, folder, kept in (("files", root, prepared.manifest), ("copies", copies, small)):
            speed, ten = clips_per_second(folder, kept, 1), clips_per_second(folder, kept, 10)
            rows.append([f"training clips from {where}", f"{speed:.0f} a second", f"{hours(9537 / speed)} an epoch"])
            rows.append([f"ten clips of each test video, {where}", f"{ten:.0f} a second", hours(37_830 / ten)])
        table(["stage", "measured", "UCF101"], rows)
        full = Path(temporary) / "full"
        stand_in(copies, small, full, names)
        rows = []
        for split in TEST_GROUPS:
            begin = time.perf_counter()
            keys = {"data.root": str(full), "data.annotations": str(lists), "data.split": split}
            source = open_source(load_config({"config": "ucf101", **keys}))
            seconds = time.perf_counter() - begin
            rows.append([str(split), f"{len(source.train):,}", f"{len(source.test):,}", f"{seconds:.1f}"])
        table(["split", "training videos", "test videos", "seconds to open"], rows)
        keys = {"config": "ucf101", "data.root": str(full), "train.batch_size": given.batch_size, "data.num_workers": 2}
        begin = time.perf_counter()
        found = dry_run({**keys, "eval.batch_size": 10, "run.accelerator": "cpu"})
        table(["`--dry-run` at full size", ""], [[name, value] for name, value in found.items()])
        print(f"It took {time.perf_counter() - begin:.0f} s on this CPU.")


def stand_in(copies: Path, small: Manifest, full: Path, names: list[str]) -> None:
    """All names, as links to the copies, with their table."""
    originals = list(small.path)
    rows = np.arange(len(names)) % len(originals)
    for name, row in zip(names, rows, strict=True):
        (full / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(copies / originals[row], full / name)
    facts = load_recipe(find_recipe("ucf101"))
    groups = [str(facts.group).format(**(facts.match(name) or {})) for name in names]
    labels = [name.split("/")[0] for name in names]
    columns = {"path": names, "label": labels, "group": groups, "split": [""] * len(names)}
    texts = {key: TextColumn.of(values) for key, values in columns.items()}
    write_manifest(replace(small.select(rows), **texts), full / "manifest.csv")


def hours(seconds: float) -> str:
    """Core-minutes, or core-hours."""
    return f"{seconds / 3600:.1f} core-hours" if seconds > 7200 else f"{seconds / 60:.1f} core-minutes"


if __name__ == "__main__":
    main()
