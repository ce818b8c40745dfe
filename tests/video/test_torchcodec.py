import numpy as np
import pytest
import torch

from cbam3d.video import VideoError, read_clip
from tests.conftest import ffmpeg

try:
    from torchcodec.decoders import VideoDecoder

    VideoDecoder(b"no video")  # loads FFmpeg's libraries
except (ImportError, RuntimeError, ValueError) as error:
    if isinstance(error, ImportError) or "libtorchcodec" in str(error):
        pytest.skip(f"torchcodec does not work here: {str(error).splitlines()[0]}", allow_module_level=True)


@pytest.mark.parametrize("options", [{"g": "250", "bf": "3"}, {"g": "12"}])
def test_both_decoders_give_the_same_frames(make_video, options):
    path = make_video("v.mp4", 60, **options)
    numbers = [59, 3, 3, 17]
    ours, theirs = (read_clip(path, numbers, decoder=decoder).int() for decoder in ("pyav", "torchcodec"))
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().float().mean() < 1.0
    small = [read_clip(path, numbers, (24, 32), decoder=decoder).int() for decoder in ("pyav", "torchcodec")]
    assert (small[0] - small[1]).abs().float().mean() < 3.0


def test_both_turn_a_picture_upright(tmp_path, make_video):
    make_video("lying.mp4", 10)
    ffmpeg(tmp_path, "-display_rotation 90 -i lying.mp4 -c copy v.mp4")
    ours, theirs = (read_clip(tmp_path / "v.mp4", [3], (64, 48), decoder=d).float() for d in ("pyav", "torchcodec"))
    assert (ours - theirs).abs().mean() < 3


def test_real_videos_agree_within_rounding(shared_data):
    rng = np.random.default_rng(0)
    for path in sorted((shared_data / "fight").rglob("*.mp4"))[::30]:
        numbers = rng.integers(0, 30, 3).tolist()
        ours, theirs = (read_clip(path, numbers, decoder=decoder).float() for decoder in ("pyav", "torchcodec"))
        difference = (ours - theirs).abs()
        assert difference.mean() < 1.5, path
        assert torch.quantile(difference.flatten()[::101], 0.99) <= 12, path  # edges of colour: chroma is interpolated


def test_what_it_cannot_read_is_named(tmp_path, make_video):
    avi = make_video("v.avi", 10, "mpeg4")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "garbage.mp4").write_bytes(b"garbage" * 100)
    reasons = {
        avi: "use the decoder pyav",
        tmp_path / "empty.mp4": "empty file",
        tmp_path / "garbage.mp4": "unreadable",
        tmp_path / "missing.mp4": "no such file",
    }
    for path, reason in reasons.items():
        with pytest.raises(VideoError, match=reason):
            read_clip(path, [0], decoder="torchcodec")
    with pytest.raises(VideoError, match="frame 10 asked for, 10 readable frames"):
        read_clip(make_video("v.mp4", 10), [10], decoder="torchcodec")
