"""Files made wrong. Imported by a process of its own, so it imports little."""

import numpy as np


def damage(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """One of four kinds of damage."""
    kind, size = int(rng.integers(4)), len(data)
    if kind == 0:  # bits flipped anywhere
        pixels = np.frombuffer(data, np.uint8).copy()
        places = rng.integers(0, size, int(rng.integers(1, 200)))
        pixels[places] ^= (1 << rng.integers(0, 8, len(places))).astype(np.uint8)
        return pixels.tobytes()
    if kind == 1:  # the end is missing
        return data[: int(rng.integers(1, size))]
    if kind == 2:  # a piece in the middle is missing
        start = int(rng.integers(0, size - 1))
        return data[:start] + data[start + int(rng.integers(1, size)) :]
    head = int(rng.integers(16, 4096))  # another file's header
    return other[:head] + data[head:]
