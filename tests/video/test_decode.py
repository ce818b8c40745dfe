import pickle
from array import array

import av
import numpy as np
import pytest
import torch

from cbam3d.video import VideoError, decode, packets, probe_video, read_clip
from cbam3d.video.encode import write_video
from cbam3d.video.packets import PacketTable, plan
from tests.conftest import ffmpeg, read_numbers

# Codecs and containers in which frames are reordered (B-frames), referenced far away (long GOP), or neither.
FILES = [
    ("h264_b_frames.mp4", "libx264", {"bf": "3", "g": "250"}),
    ("h264_short_gop.mp4", "libx264", {"bf": "3", "g": "8"}),
    ("h264_open_gop.mkv", "libx264", {"bf": "3", "x264-params": "open-gop=1:keyint=12"}),
    ("h264_open_gop.mp4", "libx264", {"bf": "3", "x264-params": "open-gop=1:keyint=12:b-pyramid=2"}),
    ("h264_open_gop.ts", "libx264", {"bf": "3", "x264-params": "open-gop=1:keyint=12"}),
    ("h264.flv", "libx264", {"bf": "2", "g": "10"}),
    ("hevc_open_gop.mp4", "libx265", {"x265-params": "keyint=12:open-gop=1:bframes=4:log-level=none"}),
    ("mpeg4_b_frames.avi", "mpeg4", {"bf": "2", "g": "300"}),
    ("mpeg4_b_frames_short_gop.avi", "mpeg4", {"bf": "2", "g": "9"}),
    ("mpeg4_b_frames.mp4", "mpeg4", {"bf": "2", "g": "12"}),
    ("mpeg4.avi", "mpeg4", {"g": "12"}),
    ("mjpeg.avi", "mjpeg", {"pix_fmt": "yuvj420p"}),
    ("vp9.webm", "libvpx-vp9", {"g": "30"}),
]
UNTABLED = [  # where only decoding tells the order
    ("h264.avi", "libx264", {"bf": "3", "g": "12"}),
    ("mpeg2.mpg", "mpeg2video", {"bf": "2", "g": "9"}),
]


@pytest.mark.parametrize(("name", "codec", "options"), FILES + UNTABLED)
def test_frames_come_in_presentation_order(make_video, name, codec, options):
    path = make_video(name, 40, codec, **options)
    assert probe_video(path).num_frames == 40
    assert read_numbers(read_clip(path, range(40))) == list(range(40))
    assert read_numbers(read_clip(path, [39, 0, 17, 17, 5])) == [39, 0, 17, 17, 5]
    assert read_numbers(read_clip(path, [3, 30], size=(24, 32))) == [3, 30]


@pytest.mark.parametrize(("name", "codec", "options"), FILES)
def test_a_jump_into_the_file_gives_the_frames_of_a_sequential_decode(make_video, monkeypatch, name, codec, options):
    path = make_video(name, 60, codec, **options)
    whole = read_clip(path, range(60), seek=False)
    monkeypatch.setattr(decode, "_read_from_start", None)  # every clip must come by the table
    rng = np.random.default_rng(0)
    for _ in range(15):
        numbers = rng.integers(0, 60, rng.integers(1, 6)).tolist()
        assert torch.equal(read_clip(path, numbers), whole[:, numbers])
        start, stride = int(rng.integers(0, 40)), int(rng.integers(1, 5))
        numbers = list(range(start, min(60, start + 5 * stride), stride))
        assert torch.equal(read_clip(path, numbers), whole[:, numbers])


def test_little_is_decoded_for_a_clip(make_video, monkeypatch):
    """Of 200 frames with a keyframe every 20, those from the keyframe to the clip's last, and no B-frame before it."""
    path = make_video("v.mp4", 200, bf="2", g="20", **{"x264-params": "keyint=20:min-keyint=20:scenecut=0"})
    counts = []

    def count(self, number, frame):
        counts.append(number)
        return put(self, number, frame)

    put = decode._Clip.put
    monkeypatch.setattr(decode._Clip, "put", count)
    read_clip(path, [110, 111], size=(48, 64))
    assert counts == [110, 111]
    table = next(reversed(decode._tables.tables.values()))
    (span,) = plan(table, [110, 111])
    assert (span.start, span.stop <= 115) == (100, True)


def test_a_file_that_changes_is_read_anew(make_video):
    path = make_video("v.mp4", 20, g="5")
    assert read_numbers(read_clip(path, [19])) == [19]
    make_video("v.mp4", 10, g="5")
    with pytest.raises(VideoError, match="frame 19 asked for, 10 readable frames"):
        read_clip(path, [19])


def test_tables_do_not_grow_without_bound():
    tables = decode._Tables(most_bytes=20_000)
    table = PacketTable(
        array("i", range(100)), array("i", range(100)), array("q", range(100)), array("i", [0]), False, False
    )
    for i in range(1000):
        tables.add((f"{i}.mp4", 0, 0), table if i % 2 else None)
        assert tables.look_up(("0.mp4", 0, 0))[0]  # used all the time, so kept
    assert tables.look_up(("999.mp4", 0, 0)) == (True, table)
    assert tables.num_bytes <= 20_000
    assert 8 < len(tables.tables) < 40


def test_a_trimmed_file_begins_where_its_edit_list_says(tmp_path, make_video):
    """Copied from the middle without encoding: the packets from the keyframe on are there, and hidden."""
    source = make_video("whole.mp4", 60, bf="2", **{"x264-params": "keyint=30:scenecut=0"})
    path = tmp_path / "trimmed.mp4"
    with av.open(str(source)) as whole, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.dts is not None:
                shift = int(7 / 25 / packet.time_base)  # frames 0 … 6 come before time 0
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                target.mux(packet)
    count = probe_video(path).num_frames
    whole = read_clip(path, range(count), seek=False)
    for number in (0, 1, 20, count - 1):
        assert torch.equal(read_clip(path, [number]), whole[:, [number]])


def test_frames_beside_missing_ones_are_those_of_a_sequential_decode(tmp_path, make_video):
    """A recording that lost packets: the decoder makes up what referred to them from what it has."""
    source = make_video("whole.mp4", 75, bf="3", g="250")
    path = tmp_path / "lossy.mp4"
    with av.open(str(source)) as whole, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(whole.streams.video[0])
        for i, packet in enumerate(whole.demux(video=0)):
            if packet.dts is not None and (i % 17 or i == 0):
                packet.stream = stream
                target.mux(packet)
    count = probe_video(path).num_frames
    whole = read_clip(path, range(count), seek=False)
    for number in range(0, count, 5):
        assert torch.equal(read_clip(path, [number]), whole[:, [number]])


@pytest.mark.parametrize("name", ["changes.ts", "changes.h264", "changes.mkv"])
def test_a_size_that_changes_midway_gives_every_frame_the_shape_of_the_first(tmp_path, make_video, name):
    make_video("small.mp4", 20, g="10")
    ffmpeg(tmp_path, "-i small.mp4 -c copy small.h264")
    ffmpeg(tmp_path, "-i small.mp4 -vf scale=128:96 -c:v libx264 -g 10 large.h264")
    (tmp_path / "both.h264").write_bytes(
        (tmp_path / "small.h264").read_bytes() + (tmp_path / "large.h264").read_bytes()
    )
    ffmpeg(tmp_path, f"-r 25 -i both.h264 -c copy -bsf:v setts=ts=N {name}")
    count = probe_video(tmp_path / name).num_frames
    assert count == 40
    for numbers in ([39], [3], [39, 3], [0, 25]):
        clip = read_clip(tmp_path / name, numbers)
        assert clip.shape == (3, len(numbers), 48, 64)
        assert read_numbers(clip) == [number % 20 for number in numbers]


def test_a_file_that_contradicts_its_table_is_read_from_its_start_from_then_on(tmp_path, make_video, monkeypatch):
    """B-pictures that cannot be told as such, in a file whose timestamps follow the order of coding."""
    make_video("good.mp4", 30, bf="3", g="30")
    ffmpeg(tmp_path, "-i good.mp4 -c copy -bsf:v setts=pts=DTS v.mp4")
    monkeypatch.setattr(decode, "entry_of", lambda *facts: packets.entry_of(*facts)._replace(kind=None))
    whole = read_clip(tmp_path / "v.mp4", range(28), seek=False)
    path, size = tmp_path / "v.mp4", (48, 64)
    assert torch.equal(read_clip(path, range(28), size), whole)  # what the decoder puts out does not rise
    monkeypatch.setattr(decode, "_decode_span", None)
    for number in range(28):
        assert torch.equal(read_clip(path, [number], size), whole[:, [number]])


def test_a_palette_is_there_from_the_first_time(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (10, 32, 48, 3), dtype=np.uint8)
    with av.open(str(tmp_path / "v.avi"), "w") as container:
        stream = container.add_stream("rawvideo", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "pal8"
        for frame in frames:
            grey = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="gray").to_ndarray()
            palette = np.repeat(np.arange(256, dtype=np.uint32)[:, None], 4, axis=1).astype(np.uint8)
            palette[:, 0] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray((grey, palette), format="pal8")))
        container.mux(stream.encode())
    first = read_clip(tmp_path / "v.avi", [7])
    assert first.float().mean() > 50
    assert torch.equal(first, read_clip(tmp_path / "v.avi", [7], seek=False))


def test_corrupt_frames_are_shown_or_dropped_as_asked(shared_data):
    path = shared_data / "odd" / "decord_corrupted.mp4"
    deadline = decode.Deadline(path, 60)
    with decode.video_file(path, deadline) as file, decode.open_video(file, deadline) as (container, stream):
        flags = [frame.is_corrupt for frame in decode.all_frames(container, stream, deadline)]
    (corrupt,) = np.flatnonzero(flags)
    kept = read_clip(path, [corrupt - 1, corrupt], corrupt="keep")
    dropped = read_clip(path, [corrupt - 1, corrupt, corrupt + 1], corrupt="drop")
    assert torch.equal(dropped[:, 0], dropped[:, 1])
    assert torch.equal(dropped[:, 0], kept[:, 0])
    assert not torch.equal(kept[:, 0], kept[:, 1])


def test_lossless_frames_come_back_equal(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (6, 30, 46, 3), dtype=np.uint8)
    path = tmp_path / "lossless.mkv"
    write_video(path, frames, 10, "ffv1", pix_fmt="bgr0")
    clip = read_clip(path, [4, 1])
    assert clip.shape == (3, 2, 30, 46)
    np.testing.assert_array_equal(clip.permute(1, 2, 3, 0).numpy(), frames[[4, 1]])


def broken_files(tmp_path, make_video):
    good = make_video("good.mp4", 60).read_bytes()
    empty, garbage, header = tmp_path / "empty.mp4", tmp_path / "garbage.mp4", tmp_path / "header.mp4"
    empty.write_bytes(b"")
    garbage.write_bytes(np.random.default_rng(0).bytes(5000))
    header.write_bytes(good[:40])
    audio = tmp_path / "audio.mp4"
    with av.open(str(audio), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return {
        tmp_path / "missing.mp4": "no such file",
        empty: "empty file",
        garbage: "unreadable",
        header: "unreadable",
        audio: "no video stream",
    }


def test_bad_files_have_a_reason_each(tmp_path, make_video):
    for path, reason in broken_files(tmp_path, make_video).items():
        assert probe_video(path).problem.startswith(reason)
        assert probe_video(path).num_frames == 0
        with pytest.raises(VideoError, match=reason) as error:
            read_clip(path, [0])
        assert str(error.value).startswith(str(path))
        assert "\n" not in str(error.value)
        assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)  # out of a loader's worker


def test_a_truncated_file_gives_its_readable_frames(tmp_path, make_video):
    whole = make_video("whole.avi", 100, "mpeg4", g="10").read_bytes()
    path = tmp_path / "cut.avi"
    path.write_bytes(whole[: int(0.7 * len(whole))])
    info = probe_video(path)
    assert 20 < info.num_frames < 80
    assert read_numbers(read_clip(path, [0, 10, 20])) == [0, 10, 20]
    with pytest.raises(VideoError, match=f"frame 99 asked for, {info.num_frames} readable frames"):
        read_clip(path, [0, 99])


def test_asking_for_nothing_is_refused(make_video):
    path = make_video()
    for frames in ([], [-1]):
        with pytest.raises(ValueError, match="frames must be numbers from 0"):
            read_clip(path, frames)
    with pytest.raises(ValueError, match="frames must be whole numbers"):
        read_clip(path, [1.5])
    with pytest.raises(ValueError, match="size must be height and width, at least 1"):
        read_clip(path, [0], size=(-1, 4))


def test_numbers_may_be_tensors(make_video):
    path = make_video()
    expected = read_clip(path, [3, 3, 0])
    for numbers in (torch.tensor([3, 3, 0]), np.array([3, 3, 0])):
        assert torch.equal(read_clip(path, numbers), expected)
        assert torch.equal(read_clip(path, numbers, seek=False), expected)


def test_real_files_equal_a_sequential_decode(shared_data):
    """UCF101's originals have B-frames and timestamps out of order; the order of output is the order shown."""
    for path in sorted((shared_data / "ucf101").glob("*.avi")):
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        info = probe_video(path)
        assert (info.num_frames, info.problem) == (len(frames), "")
        clip = read_clip(path, range(len(frames)))
        np.testing.assert_array_equal(clip.permute(1, 2, 3, 0).numpy(), np.stack(frames))
        rng = np.random.default_rng(0)
        for _ in range(10):
            numbers = rng.integers(0, len(frames), 5).tolist()
            assert torch.equal(read_clip(path, numbers), clip[:, numbers])


def test_odd_files_are_read_or_named(shared_data):
    for path in sorted((shared_data / "odd").iterdir()):
        info = probe_video(path)
        assert info.num_frames > 0, path
        clip = read_clip(path, [0, info.num_frames - 1])
        assert clip.shape == (3, 2, info.height, info.width)
        assert bool(info.problem) == ("corrupted" in path.name)


@pytest.mark.parametrize("option", [{"seek": False}, {"corrupt": "drop"}, {"timeout_seconds": 5.0}])
def test_options_that_torchcodec_does_not_have_are_refused(tmp_path, option):
    with pytest.raises(ValueError, match="no effect with the decoder torchcodec"):
        read_clip(tmp_path / "v.mp4", [0], decoder="torchcodec", **option)
