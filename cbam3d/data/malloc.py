"""What a process does with memory that it has freed. glibc only: other C libraries are left as they are."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of malloc.h


def keep_freed_memory() -> None:
    """Let a process on a CPU keep the memory of feature maps that it has freed.

    glibc gives large blocks back to the system at once, and each new one costs a page fault for every 4 KiB of it: half
    of the time of a network in float32.
    """
    _mallopt({_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1})


def return_freed_memory() -> None:
    """Let a process that reads clips give large blocks back.

    glibc stops doing so by itself once blocks of many sizes have come and gone, and its heap then grows with every
    size: by 200 MB in 40,000 clips of 300 videos. Also undoes `keep_freed_memory`, which a forked process inherits.
    """
    _mallopt({_MMAP_MAX: 65536, _TRIM_THRESHOLD: 2**17, _MMAP_THRESHOLD: 2**20})


def _mallopt(options: dict[int, int]) -> None:
    change = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if change is not None:
        for option, value in options.items():
            change(option, value)
