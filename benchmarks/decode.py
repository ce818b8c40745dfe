"""Reading clips: ours against torchcodec, pytorchvideo, decord, OpenCV and PyAV as it is usually used.

    python benchmarks/decode.py [VIDEO …]        # without videos: four that are rendered, XviD-like to 720p

Job: 16 frames at a random start, scaled to 112x112, on one thread; all readers take the same starts. Then ten clips
of one video, and the same clips from prepared copies. Medians over rounds in which the readers take turns, in clips a
second; cbam3d has the file's table of packets, as after `cbam3d prepare` or a first read. A peer that is not installed
is left out (`pip install -e ".[bench]"`). The floor opens the file and decodes what must be decoded, without scaling,
converting or keeping anything. Before that, which frames are the right ones: those that are most like the frames of
these numbers when the whole file is decoded by PyAV.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import torch
from tables import table
from torch.nn import functional as F

from cbam3d.runs.timing import medians, take_turns
from cbam3d.video import decode, probe_video, read_clip
from cbam3d.video.container import Deadline, open_video, video_file
from cbam3d.video.encode import write_video
from cbam3d.video.packets import plan
from cbam3d.video.probe import Copies

SIZE, LENGTH = 112, 16
Reader = Callable[[Path, list[int], float], Any]  # an array of images, channels first, second or last


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
    from torchcodec.decoders import VideoDecoder  # type: ignore[reportPrivateImportUsage]

    decoder = VideoDecoder(str(path), num_ffmpeg_threads=1, seek_mode=mode)
    clip = decoder.get_frames_at(frames).data  # its own transform Resize is slower
    return F.interpolate(clip, size=(SIZE, SIZE), mode="bilinear")


def torchcodec_approximate(path: Path, frames: list[int], fps: float) -> torch.Tensor:
    return torchcodec(path, frames, fps, "approximate")


def pytorchvideo(path: Path, frames: list[int], fps: float) -> torch.Tensor:
    from pytorchvideo.data.encoded_video import EncodedVideo

    video = EncodedVideo.from_path(str(path), decode_audio=False)
    clip = video.get_clip(frames[0] / fps, (frames[-1] + 1) / fps)["video"]
    video.close()
    return F.interpolate(clip[:, :: frames[1] - frames[0]][:, :LENGTH], size=(SIZE, SIZE), mode="bilinear")


def by_decord(path: Path, frames: list[int], fps: float) -> np.ndarray:
    import decord  # type: ignore[import-not-found]

    reader = decord.VideoReader(str(path), width=SIZE, height=SIZE, num_threads=1)
    return reader.get_batch(frames).asnumpy()


def opencv(path: Path, frames: list[int], fps: float) -> np.ndarray:
    import cv2  # type: ignore[import-not-found]

    cv2.setNumThreads(1)
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


def readable(path: Path, frames: list[int], fps: float) -> dict[str, Reader]:
    """The readers that can read these frames, after each has done so once."""
    found = {}
    for name, reader in READERS.items():
        try:
            reader(path, frames, fps)
            found[name] = reader
        except Exception as error:  # not installed, or it cannot read this file
            print(f"  {name}: {type(error).__name__}: {str(error).splitlines()[0][:90]}", file=sys.stderr)
    return found


def starts_of(num_frames: int, stride: int) -> list[int]:
    """Random first frames of clips."""
    return np.random.default_rng(stride).integers(0, num_frames - (LENGTH - 1) * stride, 10_000).tolist()


def correct_frames(path: Path, num_frames: int, fps: float, clips: int = 4) -> dict[str, str]:
    """How many of the frames that a reader returns are those that were asked for."""
    every = pyav_usual(path, list(range(num_frames)), fps).astype(np.float32)
    starts, correct = starts_of(num_frames, 1)[:clips], {}
    for name, reader in readable(path, list(range(LENGTH)), fps).items():
        if name == "floor":
            continue
        hits = 0
        for start in starts:
            wanted = list(range(start, start + LENGTH))
            for number, image in zip(wanted, images(reader(path, wanted, fps)), strict=False):
                distances = np.abs(every - image).mean((1, 2, 3))
                hits += bool(distances[number] <= 1.05 * distances.min())  # still pictures are alike
        correct[name] = f"{hits / clips / LENGTH:.0%}"
    return correct


def images(clip: Any) -> np.ndarray:
    """A clip of 3 channels as (T, H, W, 3)."""
    clip = np.asarray(clip, np.float32)
    return np.moveaxis(clip, clip.shape.index(3), -1)


def random_clips(
    path: Path, num_frames: int, fps: float, stride: int, repeats: int, calls: int = 8
) -> dict[str, float]:
    """Clips a second of each reader; all read the same clips."""

    def job(reader: Reader) -> Callable[[], None]:
        starts = cycle(starts_of(num_frames, stride))

        def read() -> None:
            for start, _ in zip(starts, range(calls), strict=False):
                reader(path, list(range(start, start + LENGTH * stride, stride)), fps)

        return read

    jobs = {name: job(reader) for name, reader in readable(path, list(range(0, LENGTH * stride, stride)), fps).items()}
    return {name: calls / seconds for name, seconds in medians(take_turns(jobs, repeats)).items()}


def ten_clips(path: Path, num_frames: int, repeats: int) -> dict[str, float]:
    """Clips a second: ten clips of one video in one pass, and one after the other."""
    starts = np.linspace(0, num_frames - LENGTH, 10).astype(int).tolist()
    clips = [list(range(start, start + LENGTH)) for start in starts]
    everything = [frame for clip in clips for frame in clip]
    jobs: dict[str, Callable[[], object]] = {
        "one pass": lambda: read_clip(path, everything, (SIZE, SIZE)),
        "ten reads": lambda: [read_clip(path, clip, (SIZE, SIZE)) for clip in clips],
    }
    return {name: 10 / seconds for name, seconds in medians(take_turns(jobs, repeats)).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Readers of clips, compared")
    parser.add_argument("videos", nargs="*", type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = given.videos or render(Path(folder))
        right, reads, passes, copies = [], [], [], []
        peers = [name for name in READERS if name != "floor"]
        for path in paths:
            info = probe_video(path)
            found = correct_frames(path, info.num_frames, info.fps)
            right.append([path.name, *(found.get(name, "cannot") for name in peers)])
            speeds = {}
            for stride in (1, 4):
                print(f"{path.name}, stride {stride} …", file=sys.stderr)
                s = speeds[stride] = random_clips(path, info.num_frames, info.fps, stride, given.repeats)
                row = [f"{s[name]:.0f} ({s['cbam3d'] / s[name]:.2f}x)" if name in s else "cannot" for name in peers]
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
    print("Frames that are those asked for:\n")
    table(["video", *peers], right)
    print("Clips a second, 16 frames to 112x112, one core; in brackets, cbam3d against it:\n")
    table(["video, stride", *peers, "share of the floor"], reads)
    print("Clips a second, ten clips of one video:\n")
    table(["video", "ten clips, one pass", "ten reads", "ratio"], passes)
    print("Clips a second, prepared copies (short side 128, GOP 12), stride 1:\n")
    table(["video", "as it is", "copy", "copy : torchcodec on the original"], copies)


if __name__ == "__main__":
    main()
