"""Reading clips: ours against torchcodec, pytorchvideo, decord, OpenCV and PyAV as it is usually used.

    python benchmarks/decode.py [VIDEO …]        # without videos: four that are rendered, XviD-like to 720p

Job: 16 frames at a random start, scaled to 112x112, on one thread; all readers take the same starts. Then ten clips
of one video, and the same clips from prepared copies. Medians over interleaved repeats, in clips a second. A peer
that is not installed is left out (`pip install -e ".[bench]"`). The floor opens the file and decodes what must be
decoded, without scaling, converting or keeping anything.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import cv2  # type: ignore[import-not-found]
import decord  # type: ignore[import-not-found]
import numpy as np
import torch
from pytorchvideo.data.encoded_video import EncodedVideo
from tables import table
from torch.nn import functional as F
from torchcodec.decoders import VideoDecoder  # type: ignore[reportPrivateImportUsage]

from cbam3d.video import decode, probe_video, read_clip
from cbam3d.video.container import Deadline, open_video, video_file
from cbam3d.video.encode import write_video
from cbam3d.video.packets import plan
from cbam3d.video.probe import Copies

SIZE, LENGTH = 112, 16
Reader = Callable[[Path, list[int], float], object]


def ours(path: Path, frames: list[int], fps: float) -> torch.Tensor:
    return read_clip(path, frames, (SIZE, SIZE))


def floor(path: Path, frames: list[int], fps: float) -> None:
    """What must be decoded, by a table that is known already."""
    deadline = Deadline(path, 60)
    table = next(t for (name, _, _), t in decode._tables.tables.items() if name == str(path) and t is not None)
    wanted = {table.ranks[table.places[frame]] for frame in frames}
    with video_file(path, deadline) as file, open_video(file, deadline, trust_header=True) as (container, stream):
        context = stream.codec_context
        for run in plan(table, frames):
            if run.start:
                container.seek(table.times[run.start], stream=stream)
            packets = decode.demux(container, stream, deadline)
            for place, packet in zip(range(run.start, run.stop), packets, strict=False):
                if table.skippable:
                    context.skip_frame = "DEFAULT" if table.ranks[place] in wanted else "NONREF"
                context.decode(packet)
            context.decode(None)
            context.flush_buffers()


def pyav_usual(path: Path, frames: list[int], fps: float) -> np.ndarray:
    import av

    last, wanted, found = max(frames), set(frames), []
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                found.append(frame.to_ndarray(format="rgb24", width=SIZE, height=SIZE))
            if number == last:
                break
    return np.stack(found)


def torchcodec(
    path: Path, frames: list[int], fps: float, mode: Literal["exact", "approximate"] = "exact"
) -> torch.Tensor:
    decoder = VideoDecoder(str(path), num_ffmpeg_threads=1, seek_mode=mode)
    clip = decoder.get_frames_at(frames).data
    return F.interpolate(clip, size=(SIZE, SIZE), mode="bilinear")


def torchcodec_approximate(path: Path, frames: list[int], fps: float) -> torch.Tensor:
    return torchcodec(path, frames, fps, "approximate")


def pytorchvideo(path: Path, frames: list[int], fps: float) -> torch.Tensor:
    video = EncodedVideo.from_path(str(path), decode_audio=False)
    clip = video.get_clip(frames[0] / fps, (frames[-1] + 1) / fps)["video"]
    video.close()
    return F.interpolate(clip[:, :: frames[1] - frames[0]][:, :LENGTH], size=(SIZE, SIZE), mode="bilinear")


def by_decord(path: Path, frames: list[int], fps: float) -> np.ndarray:
    reader = decord.VideoReader(str(path), width=SIZE, height=SIZE, num_threads=1)
    return reader.get_batch(frames).asnumpy()


def opencv(path: Path, frames: list[int], fps: float) -> np.ndarray:
    capture, found, wanted = cv2.VideoCapture(str(path)), [], set(frames)
    capture.set(cv2.CAP_PROP_POS_FRAMES, frames[0])
    for number in range(frames[0], frames[-1] + 1):
        if not capture.grab():
            break
        if number in wanted:
            picture = cv2.resize(capture.retrieve()[1], (SIZE, SIZE))
            found.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
    capture.release()
    return np.stack(found)


READERS: dict[str, Reader] = {
    "cbam3d": ours,
    "floor": floor,
    "torchcodec": torchcodec,
    "torchcodec, approximate": torchcodec_approximate,
    "pytorchvideo": pytorchvideo,
    "decord": by_decord,
    "OpenCV": opencv,
    "PyAV from the start": pyav_usual,
}


def render(folder: Path) -> list[Path]:
    """Textured, moving pictures of 180 frames in four kinds of files."""
    kinds = [
        ("mpeg4_bframes_gop300_240p.avi", 240, 320, "mpeg4", {"bf": "2", "g": "300", "sc_threshold": "1000000000"}),
        ("mpeg4_gop12_240p.avi", 240, 320, "mpeg4", {"g": "12"}),
        ("h264_gop250_240p.mp4", 240, 320, "libx264", {"g": "250"}),
        ("h264_gop250_720p.mp4", 720, 1280, "libx264", {"g": "250"}),
    ]
    rng = np.random.default_rng(0)
    paths = []
    for name, height, width, codec, options in kinds:
        cells = torch.from_numpy(rng.random((1, 3, height // 8 + 30, width // 8 + 30))).float()
        fine = torch.from_numpy(rng.random((1, 3, height + 240, width + 240))).float()
        scene = F.interpolate(cells, size=(height + 240, width + 240), mode="bicubic") * 0.8 + fine * 0.2
        scene = (scene.clamp(0, 1)[0].permute(1, 2, 0) * 255).byte().numpy()
        corners = [(int(120 + 110 * np.sin(t / 23)), int(120 + 110 * np.cos(t / 31))) for t in range(180)]
        write_video(folder / name, (scene[y : y + height, x : x + width] for y, x in corners), 25, codec, **options)
        paths.append(folder / name)
    return paths


def measure(jobs: dict[str, Callable[[int], object]], repeats: int, calls: int) -> dict[str, float]:
    """Median seconds a call, the jobs taking turns; the n-th call of each job is told n."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for name in list(jobs):
        try:
            jobs[name](0)
        except Exception as error:  # a peer that cannot read this file
            print(f"  {name}: {type(error).__name__}: {str(error).splitlines()[0][:90]}", file=sys.stderr)
            del jobs[name], times[name]
    for repeat in range(repeats):
        for name, job in jobs.items():
            started = time.perf_counter()
            for call in range(calls):
                job(repeat * calls + call)
            times[name].append((time.perf_counter() - started) / calls)
    return {name: statistics.median(values) for name, values in times.items()}


def random_clips(path: Path, num_frames: int, fps: float, stride: int, repeats: int) -> dict[str, float]:
    """Clips a second."""
    starts = np.random.default_rng(stride).integers(0, num_frames - (LENGTH - 1) * stride, 10_000).tolist()

    def job(reader: Reader) -> Callable[[int], object]:
        return lambda n: reader(path, list(range(starts[n], starts[n] + LENGTH * stride, stride)), fps)

    seconds = measure({name: job(reader) for name, reader in READERS.items()}, repeats, 8)
    return {name: 1 / value for name, value in seconds.items()}


def ten_clips(path: Path, num_frames: int, repeats: int) -> dict[str, float]:
    """Clips a second: ten clips of one video in one pass, and one after the other."""
    starts = np.linspace(0, num_frames - LENGTH, 10).astype(int).tolist()
    clips = [list(range(start, start + LENGTH)) for start in starts]

    def one_by_one(n: int) -> None:
        for clip in clips:
            read_clip(path, clip, (SIZE, SIZE))

    everything = [frame for clip in clips for frame in clip]
    seconds = measure(
        {"one pass": lambda n: read_clip(path, everything, (SIZE, SIZE)), "ten reads": one_by_one}, repeats, 1
    )
    return {name: 10 / value for name, value in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Readers of clips, compared")
    parser.add_argument("videos", nargs="*", type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = given.videos or render(Path(folder))
        reads, passes, copies = [], [], []
        for path in paths:
            info = probe_video(path)
            speeds = {}
            for stride in (1, 4):
                print(f"{path.name}, stride {stride} …", file=sys.stderr)
                s = speeds[stride] = random_clips(path, info.num_frames, info.fps, stride, given.repeats)
                row = [
                    f"{s[name]:.0f} ({s['cbam3d'] / s[name]:.2f}x)" if name in s else "cannot"
                    for name in READERS
                    if name != "floor"
                ]
                share = f"{s['cbam3d'] / s['floor']:.0%}" if "floor" in s else "unknown"
                reads.append([f"{path.name}, {stride}", *row, share])
            once = ten_clips(path, info.num_frames, given.repeats)
            ratio = f"{once['one pass'] / once['ten reads']:.2f}x"
            passes.append([path.name, f"{once['one pass']:.0f}", f"{once['ten reads']:.0f}", ratio])
            small = Copies(Path(folder), short_side=128, gop=12)
            copy = Path(folder) / small.name(f"copy_{path.stem}.avi")
            probe_video(path, copies=small, name=copy.name)
            quick = random_clips(copy, info.num_frames, info.fps, 1, given.repeats)["cbam3d"]
            against = speeds[1].get("torchcodec")
            gain = f"{quick / against:.1f}x" if against else "unknown"
            copies.append([path.name, f"{speeds[1]['cbam3d']:.0f}", f"{quick:.0f}", gain])
    print("Clips a second, 16 frames to 112x112, one core; in brackets, cbam3d against it:\n")
    table(["video, stride", *(name for name in READERS if name != "floor"), "share of the floor"], reads)
    print("Clips a second, ten clips of one video:\n")
    table(["video", "ten clips, one pass", "ten reads", "ratio"], passes)
    print("Clips a second, prepared copies (short side 128, GOP 12), stride 1:\n")
    table(["video", "as it is", "copy", "copy : torchcodec on the original"], copies)


if __name__ == "__main__":
    main()
