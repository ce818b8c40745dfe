"""Files by FFmpeg's own command: each frame by its number, against FFmpeg's sequential decode of the same file."""

import numpy as np
import pytest
import torch

from cbam3d.video import probe_video, read_clip
from cbam3d.video.encode import write_video
from tests.conftest import ffmpeg, numbered_frames, read_numbers

COUNT = 48
X264 = "-c:v libx264 -x264-params bframes=3:keyint=16:scenecut=0"
X265 = "-c:v libx265 -x265-params bframes=4:keyint=16:log-level=none"
RAW_H264 = f"{X264} raw.h264"
RAW_HEVC = f"{X265} raw.hevc"
H264_AVI = f"{X264} b.avi"
DROP = "-c copy -bsf:v \"noise=drop='not(mod(n+5,17))':amount=0\""

# the file; the commands that make it, each with its inputs and outputs ({in} is the source)
FILES = {
    # right timestamps
    "h264.mp4": ["-i {in} " + X264],
    "h264_faststart.mov": ["-i {in} " + X264 + " -movflags +faststart"],
    "h264.mkv": ["-i {in} " + X264],
    "h264.ts": ["-i {in} " + X264],
    "h264.flv": ["-i {in} " + X264],
    "h264_fragments.mp4": ["-i {in} " + X264 + " -movflags +frag_keyframe+empty_moov"],
    "h264_pyramid.mp4": ["-i {in} -c:v libx264 -x264-params bframes=5:b-pyramid=normal:keyint=200"],
    "h264_open_gop.mkv": ["-i {in} -c:v libx264 -x264-params bframes=3:keyint=12:open-gop=1"],
    "h264_no_b.mp4": ["-i {in} -c:v libx264 -bf 0 -g 12"],
    "h264_interlaced.ts": ["-i {in} -c:v libx264 -flags +ilme+ildct -x264-params bframes=2:keyint=16:tff=1"],
    "h264_444.mp4": ["-i {in} " + X264 + " -pix_fmt yuv444p"],
    "h264_sparse.mkv": ["-i {in} " + X264 + " -vf \"select='lt(mod(n,7),4)'\" -fps_mode vfr"],
    "hevc.mp4": ["-i {in} " + X265],
    "hevc.mkv": ["-i {in} " + X265],
    "hevc.ts": ["-i {in} " + X265],
    "hevc_open_gop.mp4": ["-i {in} -c:v libx265 -x265-params bframes=4:keyint=12:open-gop=1:log-level=none"],
    "hevc_no_b.mp4": ["-i {in} -c:v libx265 -x265-params bframes=0:keyint=12:log-level=none"],
    "vp8.webm": ["-i {in} -c:v libvpx -deadline realtime -auto-alt-ref 1 -lag-in-frames 8 -g 16"],
    "vp9.webm": ["-i {in} -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 16"],
    "vp9.mp4": ["-i {in} -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -auto-alt-ref 1 -lag-in-frames 12"],
    "mpeg4.avi": ["-i {in} -c:v mpeg4 -bf 2 -g 12 -q 3"],
    "mpeg4.mkv": ["-i {in} -c:v mpeg4 -bf 2 -g 12 -q 3"],
    "mpeg4_packed.avi": ["-i {in} -c:v mpeg4 -vtag XVID -bf 2 -g 100 -q 3"],
    "mpeg2.ts": ["-i {in} -c:v mpeg2video -bf 2 -g 9 -q 3"],
    "mpeg2.mpg": ["-i {in} -c:v mpeg2video -bf 2 -g 9 -q 3"],
    "mpeg1.mpg": ["-i {in} -c:v mpeg1video -bf 2 -g 9 -q 3"],
    "wmv2.wmv": ["-i {in} -c:v wmv2 -q 3"],
    "flv1.flv": ["-i {in} -c:v flv -q 3 -g 9"],
    "theora.ogv": ["-i {in} -c:v libtheora -q 8 -g 12"],
    "mjpeg.mov": ["-i {in} -c:v mjpeg -q 3 -strict unofficial"],
    "prores.mov": ["-i {in} -c:v prores_ks"],
    "animation.gif": ["-i {in}"],
    "late.mp4": ["-i {in} " + X264 + " -output_ts_offset 3"],
    "cut.mp4": ["-i {in} " + X264 + " whole.mp4", "-ss 0.6 -i whole.mp4 -c copy"],
    # timestamps that follow the order of coding
    "raw.mp4": ["-i {in} " + RAW_H264, "-r 25 -i raw.h264 -c copy"],
    "raw_genpts.mp4": ["-i {in} " + RAW_H264, "-fflags +genpts -r 25 -i raw.h264 -c copy"],
    "raw.mov": ["-i {in} " + RAW_H264, "-r 25 -i raw.h264 -c copy"],
    "raw_hevc.mp4": ["-i {in} " + RAW_HEVC, "-r 25 -i raw.hevc -c copy"],
    "from_avi.mp4": ["-i {in} " + H264_AVI, "-i b.avi -c copy"],
    "from_avi_genpts.mp4": ["-i {in} " + H264_AVI, "-fflags +genpts -i b.avi -c copy"],
    "from_avi.mkv": ["-i {in} " + H264_AVI, "-fflags +genpts -i b.avi -c copy"],
    "from_avi.ts": ["-i {in} " + H264_AVI, "-fflags +genpts -i b.avi -c copy"],
    "from_avi.flv": ["-i {in} " + H264_AVI, "-fflags +genpts -i b.avi -c copy"],
    "dts.mp4": ["-i {in} " + X264 + " good.mp4", "-i good.mp4 -c copy -bsf:v setts=pts=DTS"],
    "dts_hevc.mp4": ["-i {in} " + X265 + " good.mp4", "-i good.mp4 -c copy -bsf:v setts=pts=DTS"],
    # none, or gaps
    "h264.avi": ["-i {in} " + X264],
    "raw.h264": ["-i {in} " + X264],
    "raw.hevc": ["-i {in} " + X265],
    "lossy_h264.mp4": ["-i {in} -c:v libx264 -x264-params bframes=3:keyint=99 good.mp4", f"-i good.mp4 {DROP}"],
    "lossy_hevc.mp4": [
        "-i {in} -c:v libx265 -x265-params bframes=4:keyint=99:log-level=none good.mp4",
        f"-i good.mp4 {DROP}",
    ],
    "lossy_mpeg4.mp4": ["-i {in} -c:v mpeg4 -bf 2 -g 12 -q 3 good.mp4", f"-i good.mp4 {DROP}"],
    "lossy_vp9.webm": [
        "-i {in} -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 12 good.webm",
        f"-i good.webm {DROP}",
    ],
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "source.mkv"
    write_video(path, numbered_frames(COUNT), 25, "ffv1")
    return path


@pytest.mark.parametrize("name", FILES)
def test_every_frame_is_the_one_that_ffmpeg_shows(tmp_path, source, name):
    *first, last = (command.replace("{in}", str(source)) for command in FILES[name])
    for command in [*first, f"{last} {name}"]:
        ffmpeg(tmp_path, command)
    shown = ffmpeg(tmp_path, f"-i {name} -fps_mode passthrough -f rawvideo -pix_fmt rgb24 -")
    frames = torch.from_numpy(np.frombuffer(shown, np.uint8).reshape(-1, 48, 64, 3).copy()).permute(3, 0, 1, 2)
    numbers, path = read_numbers(frames), tmp_path / name
    info = probe_video(path)
    assert info.num_frames == len(numbers) > 10
    assert ("packets without a frame" in info.problem) == (name == "lossy_hevc.mp4"), info.problem
    assert info.problem == "" or name.startswith("lossy")
    assert read_numbers(read_clip(path, range(len(numbers)))) == numbers
    size = (48, 64)  # with a size, only the wanted frame is decoded
    assert [read_numbers(read_clip(path, [i], size))[0] for i in range(len(numbers))] == numbers
    whole = read_clip(path, range(len(numbers)), size, seek=False)
    assert all(torch.equal(read_clip(path, [i], size), whole[:, [i]]) for i in range(0, len(numbers), 3))
