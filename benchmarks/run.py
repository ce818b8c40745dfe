"""Run benchmarks and keep what they print: each has its section in docs/BENCHMARKS.md, insertion in docs/INSERTION.md,
which is replaced.

python benchmarks/run.py [block floors train_step frames cifar decode index storage loader start ucf101 insertion]
"""

import argparse
import platform
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import torch

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
ARGUMENTS = {"block": ["--figure", "docs/growth.png"]}
NAMES = ["block", "floors", "train_step", "frames", "cifar", "decode", "index", "storage", "loader", "start", "ucf101"]
NAMES += ["insertion"]


def machine() -> str:
    """What the figures were measured on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file() and (found := re.search(r"model name\s*:\s*(.*)", info.read_text())):
        cpu = found[1]
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{cpu}, {torch.get_num_threads()} threads{gpu}; torch {torch.__version__}, {date.today()}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Benchmarks into docs")
    parser.add_argument("names", nargs="*", default=NAMES, help=f"of {', '.join(NAMES)} (default: all)")
    failed = []
    for name in parser.parse_args().names:
        place = re.compile(rf"<!-- {name} -->.*?<!-- end of {name} -->", re.DOTALL)
        page = DOCS / ("INSERTION.md" if name == "insertion" else "BENCHMARKS.md")
        if not place.search(page.read_text()):
            raise SystemExit(f"{page}: no place for {name}")
        command = [f"benchmarks/{name}.py", *ARGUMENTS.get(name, [])]
        print(f"python {' '.join(command)} …", flush=True)
        done = subprocess.run([sys.executable, *command], cwd=HERE.parent, stdout=subprocess.PIPE, text=True)
        print(done.stdout)
        if done.returncode:
            failed.append(name)
            continue
        figure = "![How the cost grows](growth.png)\n\n" if name == "block" else ""
        lines = [f"<!-- {name} -->", f"`python {' '.join(command)}`, {machine()}", "", done.stdout.strip()]
        section = "\n".join([*lines, "", f"{figure}<!-- end of {name} -->"])
        page.write_text(place.sub(lambda _, section=section: section, page.read_text()))
    if failed:
        raise SystemExit(f"failed, their sections as before: {', '.join(failed)}")


if __name__ == "__main__":
    main()
