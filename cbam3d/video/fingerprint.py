"""Detect near-duplicate files: the same video in another size, compression or container.

The fingerprint is the difference hash (N. Krawetz, https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html)
of four frames spread over the video: 64 bits each, whether a cell of a 9x8 thumbnail is brighter than its left
neighbour. Videos that were trimmed or shifted in time are not detected.
"""

from collections.abc import Sequence

import numpy as np

THUMBNAIL = (8, 9)  # height, width
_PICTURES = 4
_MOST_DIFFERENT_BITS = 10  # of 256: copies in half the size at a quarter of the bits differ in up to 10
_MOST_ALIKE = 500  # files that share a part; more are not informative (a title card, a black frame)


def fingerprint(thumbnails: Sequence[np.ndarray]) -> bytes:
    """Compute 32 bytes from a video's thumbnails, each uint8 (8, 9), grey, equally spaced in time."""
    chosen = [thumbnails[(2 * i + 1) * len(thumbnails) // (2 * _PICTURES)] for i in range(_PICTURES)]
    pictures = np.stack(chosen).astype(np.int16)
    return np.packbits(pictures[:, :, 1:] > pictures[:, :, :-1]).tobytes()


def near_duplicates(fingerprints: Sequence[bytes]) -> list[tuple[int, int]]:
    """Index pairs of files that differ in at most 10 of 256 bits; b"" is ignored.

    Only files are compared that share one of 11 parts of their bits, as any two do that differ in 10.
    """
    places = np.array([place for place, whole in enumerate(fingerprints) if whole], np.int64)
    if len(places) < 2:
        return []
    packed = np.frombuffer(b"".join(fingerprints[place] for place in places), np.uint8).reshape(len(places), -1)
    bits = np.unpackbits(packed, axis=1)
    pairs: set[tuple[int, int]] = set()
    for part in np.array_split(np.arange(bits.shape[1]), _MOST_DIFFERENT_BITS + 1):
        keys = bits[:, part] @ (np.int64(1) << np.arange(len(part)))
        _, codes, counts = np.unique(keys, return_inverse=True, return_counts=True)
        kept = np.flatnonzero((counts[codes] > 1) & (counts[codes] <= _MOST_ALIKE) & (keys > 0))  # 0: uniform
        kept = kept[np.argsort(codes[kept], kind="stable")]
        for apart in range(1, _MOST_ALIKE):
            one, other = kept[:-apart], kept[apart:]
            alike = codes[one] == codes[other]
            if not alike.any():
                break
            one, other = one[alike], other[alike]
            near = (bits[one] != bits[other]).sum(1) <= _MOST_DIFFERENT_BITS
            pairs.update(zip(places[one[near]].tolist(), places[other[near]].tolist(), strict=True))
    return sorted(pairs)
