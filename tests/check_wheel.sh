#!/usr/bin/env bash
# What the wheel gives, in an environment that has nothing else, from a directory that has nothing:
#     tests/check_wheel.sh BIN          # the bin/ of that environment
set -euo pipefail
bin=$(cd "$1" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"$bin/cbam3d" --version
"$bin/cbam3d" list
"$bin/cbam3d" train --train.epochs 1 --train.limit_batches 2 --eval.num_clips 1 --data.num_workers 0
"$bin/cbam3d" evaluate runs/motion
"$bin/cbam3d" completion bash > completions
"$bin/python" - <<'PYTHON'
import sys
import time

begin = time.perf_counter()
import torch

middle = time.perf_counter()
import cbam3d

seconds = time.perf_counter() - middle
heavy = {"pytorchvideo", "matplotlib", "lightning_fabric", "av", "rich"} & set(sys.modules)
assert not heavy, f"import cbam3d loads {heavy}"
block = cbam3d.CBAM3d(16, init="identity")
clip = torch.randn(1, 16, 4, 8, 8)
assert torch.equal(block(clip), clip)
print(f"import torch {middle - begin:.1f} s, import cbam3d after it {seconds:.2f} s")
PYTHON
