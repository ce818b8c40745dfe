"""Stateless random numbers: a hash of what they are for, independent of earlier draws.

SplitMix64 (Steele, Lea, Flood, OOPSLA 2014, https://doi.org/10.1145/2660193.2660195), on arrays.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """What random numbers are for; each purpose has an independent stream."""

    CROP = 1
    RESIZED_CROP = 2
    RAND_AUGMENT = 3
    FLIP = 4
    COLOR = 5
    ROTATION = 6
    ERASING = 7
    MIX = 8
    VIEW = 9


_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def numbers_of(names: Iterable[str]) -> np.ndarray:
    """A number of 32 bits for each name, the same everywhere."""
    encoded = (name.encode(errors="surrogateescape") for name in names)  # names of files may be no text
    return np.array([int.from_bytes(hashlib.sha256(name).digest()[:4]) for name in encoded], np.int64)


def keys_of(*words: int | np.ndarray) -> np.ndarray:
    """Hash each tuple of numbers (seed, epoch, item, …) to a uint64 key; arrays are broadcast."""
    key = np.zeros((), np.uint64)
    for word in words:
        key = _mix(_add(key, np.asarray(word).astype(np.uint64)))
    return key


def uniforms(keys: np.ndarray, count: int, purpose: Purpose) -> np.ndarray:
    """Uniform numbers in [0, 1), `count` for each key and purpose, float64 (N, count)."""
    start = keys_of(keys, purpose)[:, None]
    return (_mix(_add(start, _GAMMA * np.arange(count, dtype=np.uint64))) >> np.uint64(11)) * 2.0**-53


@contextmanager
def torch_seeded(key: int) -> Iterator[None]:
    """Seed PyTorch's CPU generator with the key's lower 32 bits, all that it uses, within the block; restore it
    afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key)
        yield


def _add(state: np.ndarray, word: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # arithmetic is modulo 2^64
        return state + _GAMMA + word


def _mix(z: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
