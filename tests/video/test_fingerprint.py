import shutil

import numpy as np
import pytest

from cbam3d.video import probe_video
from cbam3d.video.fingerprint import fingerprint, near_duplicates


def thumbnails(seed, count=10):
    return list(np.random.default_rng(seed).integers(0, 256, (count, 8, 9), dtype=np.uint8))


def test_bits_say_which_neighbour_is_brighter():
    rising = np.tile(np.arange(9, dtype=np.uint8), (8, 1))
    assert fingerprint([rising] * 3) == b"\xff" * 32
    assert fingerprint([rising[:, ::-1]]) == b"\0" * 32
    assert fingerprint([rising, rising[:, ::-1]]) == b"\xff" * 16 + b"\0" * 16  # by half


def test_near_duplicates_are_pairs_that_differ_in_few_bits():
    prints = [fingerprint(thumbnails(seed)) for seed in range(50)]
    changed = bytearray(prints[7])
    changed[0] ^= 0b111
    assert near_duplicates([*prints, bytes(changed), b"", b"", b"\0" * 32, b"\0" * 32]) == [(7, 50)]
    for i in range(0, 32, 4):  # a bit in almost every part, ten in all, and then one more
        changed[i + 3] ^= 1
    changed[0] ^= 0b1
    assert near_duplicates([*prints, bytes(changed)]) == [(7, 50)]
    changed[30] ^= 1
    assert near_duplicates([*prints, bytes(changed)]) == []


def test_near_duplicates_are_all_that_comparing_each_with_each_finds():
    rng = np.random.default_rng(0)
    bits = np.repeat(rng.integers(0, 2, (20, 256), dtype=np.uint8), 6, axis=0)
    bits ^= rng.random(bits.shape) < 0.02  # five bits each: pairs differ in about ten
    apart = (bits[:, None] != bits[None]).sum(2)
    expected = [(i, j) for i in range(120) for j in range(i + 1, 120) if apart[i, j] <= 10]
    assert 50 < len(expected) < 250
    assert near_duplicates([row.tobytes() for row in np.packbits(bits, axis=1)]) == expected


def test_a_smaller_and_rougher_copy_is_recognised(tmp_path, shared_data):
    import av

    originals = sorted((shared_data / "fight").rglob("*.mp4"))[::60]
    prints = [probe_video(path).fingerprint for path in originals]
    copy = tmp_path / "copy.avi"
    with av.open(str(originals[2])) as source, av.open(str(copy), "w") as target:
        stream = target.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for frame in source.decode(video=0):
            target.mux(stream.encode(frame.reformat(160, 120, "yuv420p")))
        target.mux(stream.encode())
    shutil.copy(originals[1], tmp_path / "same.mp4")
    prints += [probe_video(copy).fingerprint, probe_video(tmp_path / "same.mp4").fingerprint]
    assert near_duplicates(prints) == [(1, 6), (2, 5)]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_short_videos_have_one(make_video, count):
    assert len(probe_video(make_video("v.avi", count, "mpeg4")).fingerprint) == 32
