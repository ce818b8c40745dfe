"""A clip of a long file that the process has not read before: with and without the index of packets.

    python benchmarks/index.py [VIDEO …] [--repeats 10]        # without videos: two of ten minutes, rendered (a minute)

Job: 16 frames at a random start, scaled to 112x112, on one thread, each in a process of its own that has read another
file before; and then another clip, with the table that the process has by then. Medians.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rendering import render
from tables import table

from cbam3d.storage import state_of
from cbam3d.video import read_clip
from cbam3d.video.decode import read_packets
from cbam3d.video.index import INDEX_NAME, Indexed, PacketIndex, encode, write_index

FORMATS = {
    "MPEG-4, GOP 12, in AVI": ("a.avi", "-c:v mpeg4 -q:v 5 -g 12"),
    "H.264, GOP 250, in MP4": ("a.mp4", "-c:v libx264 -preset veryfast -g 250"),
}


SOURCE = "testsrc2=size=320x240:rate=25:duration={seconds},noise=alls=8"


def measure(path: Path, other: Path, starts: list[int], indexed: bool) -> list[float]:
    """Milliseconds of clips that this process reads in turn."""
    for start in (0, 20, 40):
        read_clip(other, range(start, start + 16), (112, 112))
    kept = PacketIndex(path.parent / INDEX_NAME) if indexed else None
    times = []
    for start in starts:
        started = time.perf_counter()
        read_clip(path, range(start, start + 16), (112, 112), index=kept)
        times.append(1e3 * (time.perf_counter() - started))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description="The index of packets")
    parser.add_argument("videos", nargs="*")
    parser.add_argument("--repeats", type=int, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, files = Path(temporary), {}
        for number, video in enumerate(given.videos):  # linked, as the index is written beside it
            files[video] = folder / f"{number}" / Path(video).name
            files[video].parent.mkdir()
            files[video].symlink_to(Path(video).resolve(strict=True))
        for name, (file, options) in FORMATS.items() if not files else ():
            files[name] = folder / file
            render(files[name], SOURCE.format(seconds=600), options)
        rows = []
        for name, path in files.items():
            other = folder / f"other{path.suffix}"
            options = next((options for file, options in FORMATS.values() if path.suffix == Path(file).suffix), "")
            render(other, SOURCE.format(seconds=10), options)
            packets = encode(found := read_packets(path))
            count = len(found.places) if found else 0
            write_index(path.parent / INDEX_NAME, [Indexed(path.name, *state_of(path), packets)])
            starts = np.random.default_rng(0).integers(0, count - 16, (given.repeats, 2)).tolist()
            starts += [pair[::-1] for pair in starts]  # each clip is the first one once
            medians = []
            for indexed in (False, True):
                command = [sys.executable, __file__, "--one", str(path), str(other)]
                done = [
                    subprocess.run([*command, json.dumps(s), str(int(indexed))], capture_output=True, check=True)
                    for s in starts
                ]
                first, again = zip(*(json.loads(one.stdout) for one in done), strict=True)
                medians += [statistics.median(first), statistics.median(again)]
            without, _, kept, hit = medians
            bytes_a_frame = f"{len(packets) / count:.2f}"
            rows.append([name, f"{without:.1f}", f"{kept:.1f}", f"{hit:.1f}", f"{kept / hit:.2f}", bytes_a_frame])
    table(["", "no index, ms", "index, ms", "table in memory, ms", "index / in memory", "bytes a frame"], rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        video, another, where, whether = sys.argv[2:]
        print(json.dumps(measure(Path(video), Path(another), json.loads(where), whether == "1")))
    else:
        main()
