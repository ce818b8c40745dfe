"""How long training takes to know its videos: a table of 10^4 to 10^6 rows, opened, split and ready to be sampled.

    python benchmarks/start.py [--rows 10000 100000 1000000]

In a process each, so that the memory is its own.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tables import table

HEADER = "path,label,group,split,num_frames,fps,width,height,duration_seconds,problem"
OPEN = """
import time
from pathlib import Path
from dataclasses import replace
from rich.console import Console
from cbam3d.config import Config
from cbam3d.engine.memory import peak_memory_gib
from cbam3d.sources import open_source
import torch
before, begin = peak_memory_gib(torch.device("cpu")), time.perf_counter()
config = Config()
config = replace(config, data=replace(config.data, recipe="folder", root="videos", manifest=r"{path}"))
source = open_source(config, Console(quiet=True))
seconds = time.perf_counter() - begin
print(len(source.train) + len(source.test), seconds, peak_memory_gib(torch.device("cpu")) - before)
"""


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
            code = OPEN.format(path=path)
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            opened, seconds, gib = done.stdout.split()
            assert int(opened) == count
            rows.append([f"{count:,}", f"{float(seconds):.2f}", f"{1024 * float(gib):.0f}"])
    table(["rows", "seconds", "memory, MiB"], rows)


if __name__ == "__main__":
    main()
