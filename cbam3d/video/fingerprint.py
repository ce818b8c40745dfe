"""Detect near-duplicate files: the same video in another size, compression or container.

The fingerprint is the difference hash (N. Krawetz, https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html)
of four frames spread over the video: 64 bits each, whether a cell of a 9x8 thumbnail is brighter than its left
neighbour. Videos that were trimmed or shifted in time are not detected.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

import numpy as np

THUMBNAIL = (8, 9)  # height, width
_PICTURES = 4
_MOST_DIFFERENT_BITS = 16  # of 256
_MOST_ALIKE = 500  # files that share a frame; more are not informative (a title card, a black frame)


def fingerprint(thumbnails: Sequence[np.ndarray]) -> bytes:
    """Compute 32 bytes from a video's thumbnails, each uint8 (8, 9), grey, equally spaced in time."""
    chosen = [thumbnails[(2 * i + 1) * len(thumbnails) // (2 * _PICTURES)] for i in range(_PICTURES)]
    pictures = np.stack(chosen).astype(np.int16)
    return np.packbits(pictures[:, :, 1:] > pictures[:, :, :-1]).tobytes()


def near_duplicates(fingerprints: Sequence[bytes]) -> list[tuple[int, int]]:
    """Index pairs of files that differ in at most 16 of 256 bits and share a frame; b"" is ignored."""
    size = 64 // 8
    sharing: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for place, whole in enumerate(fingerprints):
        for i in range(0, len(whole), size):
            if any(part := whole[i : i + size]):  # a uniform frame has no bit set
                sharing[i, part].append(place)
    pairs = {pair for places in sharing.values() if 1 < len(places) <= _MOST_ALIKE for pair in combinations(places, 2)}
    return sorted(pair for pair in pairs if _distance(*(fingerprints[p] for p in pair)) <= _MOST_DIFFERENT_BITS)


def _distance(a: bytes, b: bytes) -> int:
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).bit_count()
