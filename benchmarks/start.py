"""How long training takes to open its table of videos: 10^4 to 10^6 rows, read, split and ready to be sampled.

    python benchmarks/start.py [--rows 10000 100000 1000000]

In a process each, so that the memory is its own.
"""

import argparse
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from tables import table

from cbam3d.config import load_config
from cbam3d.engine.memory import peak_memory_gib
from cbam3d.runs.data import open_source

HEADER = "path,label,group,split,num_frames,fps,width,height,duration_seconds,problem"


def open_table(path: Path) -> tuple[int, float, float]:
    """Rows, seconds and GiB."""
    before, begin = peak_memory_gib(torch.device("cpu")), time.perf_counter()
    source = open_source(load_config({"config": "folder", "data.root": "videos", "data.manifest": str(path)}))
    seconds = time.perf_counter() - begin
    return len(source.train) + len(source.test), seconds, peak_memory_gib(torch.device("cpu")) - before


def main() -> None:
    parser = argparse.ArgumentParser(description="Starting on large tables")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for count in given.rows:
            path = Path(folder) / f"{count}.csv"
            with open(path, "w") as file:
                print(HEADER, file=file)
                for i in range(count):
                    name = f"class_{i % 400:03d}/{i:09d}_000010.mp4"
                    print(f"{name},class_{i % 400:03d},source_{i // 3},,{250 + i % 50},25,340,256,10,", file=file)
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                opened, seconds, gib = process.submit(open_table, path).result()
            assert opened == count
            rows.append([f"{count:,}", f"{seconds:.2f}", f"{1024 * gib:.0f}"])
    table(["rows", "seconds", "memory, MiB"], rows)


if __name__ == "__main__":
    main()
