"""The Triton kernels against the reference: in Triton's interpreter, and on a GPU where there is one."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cbam3d import CBAM3d
from cbam3d.attention.ops import gating


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton here")
@pytest.mark.slow
def test_kernels_in_tritons_interpreter():
    script = Path(__file__).with_name("check_triton.py")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    if "only 0-dimensional arrays can be converted" in done.stderr:  # as with Triton 3.5 and NumPy 2.4
        pytest.skip("this version of Triton's interpreter does not work with this NumPy")
    assert done.stdout.strip() == "equal", done.stderr[-2000:]


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_kernels_on_a_gpu(monkeypatch, dtype, layout):
    torch.manual_seed(0)
    block = CBAM3d(64).cuda().to(dtype)
    x = torch.randn(2, 64, 8, 28, 28, device="cuda").to(dtype).to(memory_format=layout)
    results = []
    for on_cuda in (True, False):
        monkeypatch.setattr(gating, "on_cuda", on_cuda)
        inputs = x.clone().requires_grad_()
        block.zero_grad()
        out = block(inputs)
        assert (type(out.grad_fn).__name__ == "_ScaleBackward") == on_cuda
        out.backward(torch.ones_like(out))
        assert inputs.grad is not None
        results.append([out.detach(), inputs.grad, *(p.grad.clone() for p in block.parameters() if p.grad is not None)])
    limit = {torch.float32: 1e-5, torch.bfloat16: 0.05, torch.float16: 0.01}[dtype]
    for found, expected in zip(*results, strict=True):
        assert (found.float() - expected.float()).abs().mean() <= limit * expected.float().abs().mean()
