"""Decode a whole file once to check it, and to write a copy that decodes faster."""

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from av import VideoFrame, VideoStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet

from cbam3d.errors import InputError, counted
from cbam3d.files import leads_out
from cbam3d.storage import Place, state_of, written
from cbam3d.video.container import Deadline, VideoError, frame_rate, open_video, reason_of, video_file
from cbam3d.video.decode import ReadingLog, all_frames, demux, file_rate, read_packets, stream_facts
from cbam3d.video.encode import video_writer
from cbam3d.video.fingerprint import THUMBNAIL, fingerprint
from cbam3d.video.frames import frames_of, list_frames
from cbam3d.video.index import encode
from cbam3d.video.packets import Entry, PacketTable, entry_of, tabulate
from cbam3d.video.pixels import MOST_ELONGATED, grey_thumbnail, is_elongated, upright_size, write_rgb
from cbam3d.video.timing import encode_times, rate_by_times
from cbam3d.video.truncation import cut_off

_THUMBNAIL_EVERY = 8  # frames
_MOST_TICKS = 65_535  # a second, in MPEG-4 Part 2


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video; sizes are those of the upright frame.

    `problem` is empty for an intact file. A damaged file with some readable frames has both frames and a problem.

    Examples:
        >>> from cbam3d.data import probe_video
        >>> info = probe_video("clip.mp4")
        >>> abs(info.duration_seconds - info.num_frames / info.fps) < 0.05
        True
    """

    num_frames: int = 0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    duration_seconds: float = 0.0
    problem: str = ""
    num_bytes: int = 0  # of the file, and its modification time
    changed_ns: int = 0
    fingerprint: bytes = b""  # see fingerprint.py
    packets: bytes = b""  # of an intact file and of its copy, see index.py
    copied_packets: bytes = b""
    times: bytes = b""  # of its frames, see timing.py


@dataclass(frozen=True)
class Copies:
    """Copies to write while files are read: every frame, upright, without audio, at a constant frame rate, as MPEG-4
    Part 2 without B-frames, the fastest to decode of the formats measured.

    Args:
        root: folder of the copies, which have the paths of the originals.
        short_side: pixels; smaller videos keep their size.
        gop: frames between keyframes.
    """

    root: Place
    short_side: int
    gop: int

    def name(self, name: str) -> str:
        """Path below the root of a video's copy: the original name, followed by .avi if it has another suffix."""
        return name if name.lower().endswith(".avi") else f"{name}.avi"

    def path(self, name: str) -> Place:
        """Where a video's copy is.

        Raises:
            InputError: a name outside the folder.
        """
        copy = self.root / self.name(name)
        outside = isinstance(copy, Path) and leads_out(copy, os.path.realpath(self.root))
        if outside or ".." in name.split("/"):
            raise InputError(f"{name}: its copy would lie outside of {self.root}")
        return copy

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a copy, rounded to even numbers."""
        scale = min(1.0, self.short_side / min(height, width))
        return max(2, 2 * round(height * scale / 2)), max(2, 2 * round(width * scale / 2))

    def write(self, name: str, frames: Iterable[VideoFrame], size: tuple[int, int], rate: Fraction) -> bytes:
        """Write the copy of a video from its decoded frames; returns its packets, see index.py.

        Raises:
            InputError: it cannot be written.
        """
        path, planes = self.path(name), np.empty((3, *size), np.uint8)
        rate = min(rate, Fraction(_MOST_TICKS))  # only a label: frame n of a copy is frame n of the video
        rate = rate.limit_denominator(min(1001, max(1, int(_MOST_TICKS / rate))))
        options = {"qmin": "2", "qmax": "2", "g": str(self.gop), "bf": "0"}
        try:
            with written(path) as unfinished:
                with video_writer(unfinished, rate, "mpeg4", **options) as write:
                    for frame in frames:
                        write_rgb(frame, planes)
                        write(np.ascontiguousarray(planes.transpose(1, 2, 0)))
                return encode(read_packets(unfinished))
        except (FFmpegError, OSError) as error:
            raise InputError(f"{path}: cannot be written ({reason_of(error)})") from None


def probe_video(
    path: str | os.PathLike[str],
    timeout_seconds: float = 600.0,
    copies: Copies | None = None,
    name: str = "",
    fps: float = 0.0,
) -> VideoInfo:
    """Decode a whole file, or a folder of numbered images. Never raises for a bad one: see `problem`.

    Args:
        path: the file or folder.
        timeout_seconds: time limit.
        copies: where to write a copy, under `name`; None for none.
        fps: frame rate of a folder; 0 where it is not known.

    Raises:
        InputError: the copy cannot be written.

    Examples:
        >>> from cbam3d.data import probe_video
        >>> info = probe_video("clip.mp4")
        >>> info.num_frames, info.problem
        (24, '')
    """
    count, packets = _Count(), b""
    try:
        if os.path.isdir(path):
            files, gaps = list_frames(path)
            rate, problems = Fraction(fps).limit_denominator(1001), [gaps] if gaps else []
            size, copied = _consume(count.over(frames_of(path, files)), rate, copies, name)
        else:
            deadline = Deadline(path, timeout_seconds)
            with video_file(path, deadline) as file, open_video(file, deadline) as (container, stream):
                log = _Log(container, stream)
                known = file_rate(path, timeout_seconds) if copies else frame_rate(stream) or 0
                rate = Fraction(known).limit_denominator(_MOST_TICKS)
                frames = count.over(all_frames(container, stream, deadline, log))
                size, copied = _consume(frames, rate, copies, name)
                if size is None:
                    reason = f" ({log.errors[0]})" if log.errors else ""
                    return VideoInfo(problem=f"no frame can be decoded{reason}")
                if len(count.times) == count.frames:
                    rate = Fraction(rate_by_times(float(rate), count.times)).limit_denominator(_MOST_TICKS)
                problems = log.problems(count.frames)
                problems += [counted(count.corrupt, "corrupt frame")] if count.corrupt else []
                problems += [ending] if (ending := cut_off(file, container.format.name) or log.early_end()) else []
            table = None if problems else read_packets(path, timeout_seconds)
            if table is not None and len(table.places) > count.frames:  # seeking would count others than decoding
                problems.append(f"{counted(len(table.places) - count.frames, 'packet')} without a frame")
            packets = encode(table if table is not None and len(table.places) == count.frames else None)
    except VideoError as error:
        return VideoInfo(problem=error.reason)
    height, width = size or (0, 0)
    return VideoInfo(
        count.frames,
        float(rate),
        width,
        height,
        float(count.frames / rate) if rate else 0.0,
        ", ".join(problems),
        *state_of(Path(path)),
        fingerprint(count.thumbnails),
        packets,
        copied,
        encode_times(count.times, float(rate)) if len(count.times) == count.frames else b"",
    )


def _consume(
    frames: Iterator[VideoFrame], rate: Fraction, copies: Copies | None, name: str
) -> tuple[tuple[int, int] | None, bytes]:
    """Go through all frames, and write the copy; returns height and width, None without a frame, and its packets."""
    first = next(frames, None)
    if first is None:
        return None, b""
    size = upright_size(first)
    if is_elongated(size):
        raise VideoError(name, f"{size[1]}x{size[0]} pixels: one side is more than {MOST_ELONGATED} times the other")
    if copies is None:
        deque(frames, maxlen=0)
        return size, b""
    return size, copies.write(name, chain([first], frames), copies.size(*size), rate or Fraction(25))


def measure_video(path: str | os.PathLike[str], timeout_seconds: float = 600.0) -> VideoInfo:
    """Like `probe_video`, but without fingerprint. If the packets alone determine the number of frames, and none is
    missing, and for a folder, only the first frame is decoded: damage elsewhere is then not detected."""
    try:
        info = _measure_folder(path) if os.path.isdir(path) else _measure_file(path, Deadline(path, timeout_seconds))
    except (VideoError, StopIteration):
        info = None
    return info or probe_video(path, timeout_seconds)  # which reports the problem


def _measure_file(path: str | os.PathLike[str], deadline: Deadline) -> VideoInfo | None:
    with video_file(path, deadline) as file:
        with open_video(file, deadline) as (container, stream):
            log = _Log(container, stream)
            for packet in demux(container, stream, deadline):
                log.packet(packet)
            table, rate = log.table(), rate_by_times(float(frame_rate(stream) or 0), log.times)
            if table is None or table.gaps or log.cut or cut_off(file, container.format.name) or log.early_end():
                return None
        with open_video(file, deadline) as (container, stream):
            height, width = upright_size(next(all_frames(container, stream, deadline)))
    if is_elongated((height, width)):
        return None
    count = len(table.places)
    return VideoInfo(count, rate, width, height, count / rate if rate else 0.0, "", file.num_bytes, file.changed_ns)


def _measure_folder(path: str | os.PathLike[str]) -> VideoInfo | None:
    files, problem = list_frames(path)
    height, width = upright_size(next(frames_of(path, files)))
    return VideoInfo(len(files), 0.0, width, height, 0.0, problem, *state_of(Path(path)))


class _Count:
    """Statistics of the decoded frames."""

    def __init__(self) -> None:
        self.frames = self.corrupt = 0
        self.thumbnails: list[np.ndarray] = []
        self.times: list[float] = []  # seconds, of files whose frames have one each

    def over(self, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        for frame in frames:
            if self.frames % _THUMBNAIL_EVERY == 0:
                self.thumbnails.append(grey_thumbnail(frame, THUMBNAIL))
            if frame.time is not None and len(self.times) == self.frames:
                self.times.append(frame.time)
            self.frames += 1
            self.corrupt += frame.is_corrupt
            yield frame


class _Log(ReadingLog):
    """Statistics of the packets read."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self.errors: list[str] = []
        self.cut = 0
        self.entries: list[Entry] = []
        self.times: list[float] = []  # seconds
        self.start, self.end = math.inf, -math.inf  # seconds
        self.facts = stream_facts(container, stream)
        self.promised = 0.0  # seconds; in MP4 and MOV edit lists make a duration hard to compare
        if container.format.name in ("asf", "mxf") and stream.duration is not None and stream.time_base is not None:
            self.promised = float(stream.duration * stream.time_base)
        elif container.format.name in ("matroska,webm", "flv") and len(container.streams) == 1 and container.duration:
            self.promised = container.duration / 1e6

    def error(self, reason: str) -> None:
        self.errors.append(reason)

    def packet(self, packet: "Packet[Any]") -> None:
        if not packet.size:
            return
        self.cut += packet.is_corrupt
        self.entries.append(entry_of(packet, *self.facts))
        if packet.pts is not None and packet.time_base is not None:
            start = float(packet.pts * packet.time_base)
            self.times.append(start)
            self.start, self.end = min(self.start, start), max(self.end, start + self._duration(packet))

    def problems(self, num_frames: int) -> list[str]:
        """The problems found, given the number of decoded frames."""
        found = [f"{counted(len(self.errors), 'unreadable packet')} ({self.errors[0]})"] if self.errors else []
        found += [counted(self.cut, "truncated packet")] if self.cut else []
        table = self.table()
        if table is not None and num_frames < len(table.places):
            found.append(f"{counted(len(table.places) - num_frames, 'packet')} without a frame")
        return found

    def table(self) -> PacketTable | None:
        """The table of the packets, or None if they do not determine the frames."""
        return tabulate(self.entries, *self.facts[:2])

    def early_end(self) -> str:
        """The point where the file ends, if well before the duration in its header; else empty."""
        length = max(0.0, self.end, self.end - self.start)  # durations may count from 0, or from the first frame
        frame = self.promised / max(1, len(self.entries))  # the last one may have no duration
        if self.promised and self.promised - length > max(1.0, 0.05 * self.promised, 1.5 * frame):
            return f"cut off (at {length:.1f} of {self.promised:.1f} seconds)"
        return ""

    @staticmethod
    def _duration(packet: "Packet[Any]") -> float:
        return float((packet.duration or 0) * (packet.time_base or 0))
