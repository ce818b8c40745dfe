import subprocess
import sys

import pytest
import torch

from cbam3d.engine.memory import advise
from cbam3d.errors import InputError


def test_other_errors_stay_what_they_are():
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert advise(error, torch.zeros(1, 3, 4, 4), 1) is error


def test_the_cpus_own_message_is_known_too():
    """What PyTorch raises where the CPU's memory does not suffice."""
    try:
        torch.empty(2**60, dtype=torch.uint8)
    except RuntimeError as error:
        explained = advise(error, torch.zeros(8, 3, 16, 112, 112), 2)
    assert isinstance(explained, InputError)
    assert "8 samples of 16x112x112 a process, computed in 2 parts" in str(explained)


def test_the_peak_does_not_fall():
    """In a process of its own: in this one an earlier test may have had a higher peak."""
    code = """
import torch
from cbam3d.engine.memory import peak_memory_gib

cpu = torch.device("cpu")
before = peak_memory_gib(cpu)
block = torch.ones(2**26)  # a quarter of a GiB
during = peak_memory_gib(cpu)
del block
print(before, during, peak_memory_gib(cpu))
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    before, during, after = map(float, printed.split())
    assert during - before == pytest.approx(0.25, abs=0.02)
    assert during - 0.01 < after < 100  # the kernel counts pages a few hundred at a time
