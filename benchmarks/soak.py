"""Thousands of clips through the loader: memory and open files of all processes, which must not grow.

    python benchmarks/soak.py FOLDER [--clips 20000] [--figure docs/soak.png]

FOLDER: class folders, best prepared. Two workers; 16 frames of each visited video, shorter side 128, 112x112.
"""

import argparse
import time
from itertools import count
from pathlib import Path

import numpy as np
import psutil
from loader import ours, videos_of
from matplotlib.figure import Figure
from tables import table

from cbam3d.video.index import INDEX_NAME, PacketIndex

EVERY = 250  # clips


def measure() -> tuple[float, int]:
    """GiB that belong to this process and its workers alone, and their open files."""
    own = psutil.Process()
    processes = [own, *own.children(recursive=True)]
    return sum(one.memory_full_info().uss for one in processes) / 2**30, sum(one.num_fds() for one in processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    root, videos = options.folder, videos_of(options.folder)
    index = PacketIndex(root / INDEX_NAME) if (root / INDEX_NAME).is_file() else None
    loader = ours(root, videos, 1, index)
    seen, points, started = 0, [], time.perf_counter()
    for epoch in count():
        loader.set_epoch(epoch)
        for batch in loader:
            before, seen = seen, seen + len(batch.labels)
            if seen // EVERY > before // EVERY:
                points.append((seen, *measure()))
        if seen >= options.clips:
            break
    seconds = time.perf_counter() - started
    numbers, memory, files = np.array(points).T
    quarter = len(points) // 4
    rows = [
        (
            name,
            *(f"{part.mean():.{digits}f}" for part in (values[quarter : 2 * quarter], values[-quarter:])),
            f"{values.max():.{digits}f}",
        )
        for name, values, digits in (("memory, GiB", memory, 3), ("open files", files, 0))
    ]
    print(f"{seen:,} clips of {len(videos):,} videos, {seen / seconds:.0f} clips/s\n")
    table(["", "second quarter", "last quarter", "most"], rows)
    if options.figure:
        figure = Figure(figsize=(7, 3), layout="constrained")
        for axes, values, name in zip(
            figure.subplots(1, 2), (memory, files), ("memory, GiB", "open files"), strict=True
        ):
            axes.plot(numbers, values)
            axes.set(xlabel="clips", ylabel=name, ylim=(0, 1.2 * values.max()))
        figure.savefig(options.figure, dpi=110)


if __name__ == "__main__":
    main()
