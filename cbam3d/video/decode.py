"""Decode the frames of a clip by number, uint8 (C, T, H, W).

A frame's number is its position in presentation order, as output by a decoder that reads the whole file. If the
packets determine that order (packets.py), decoding starts at the keyframe before the requested frames and ends with
the last of them. The result is checked against the packet table; if the two disagree (damaged files, wrong keyframe
flags), or if there is no table, the file is decoded from its start.
"""

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import chain, dropwhile, islice
from operator import index as index_of
from threading import Lock
from typing import Any, Literal, cast

import av
import numpy as np
import torch
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer
from av.error import ExitError, FFmpegError
from av.packet import Packet
from torch import Tensor

from cbam3d.storage import BlockCache, OpenFile, Source, is_local, place_of
from cbam3d.video.container import (
    Deadline,
    VideoError,
    frame_rate,
    open_video,
    reason_of,
    tells_rate,
    video_file,
)
from cbam3d.video.frames import read_sequence
from cbam3d.video.index import PacketIndex
from cbam3d.video.packets import PacketTable, Span, entry_of, plan, seek_time, tabulate
from cbam3d.video.pixels import upright_size, write_rgb
from cbam3d.video.timing import rate_by_times
from cbam3d.video.torchcodec import read_frames


def read_clip(
    path: Source,
    frames: Sequence[int],
    size: tuple[int, int] | None = None,
    *,
    seek: bool = True,
    corrupt: Literal["keep", "drop"] = "keep",
    timeout_seconds: float | None = None,
    decoder: Literal["pyav", "torchcodec"] = "pyav",
    index: PacketIndex | None = None,
    cache: BlockCache | None = None,
) -> Tensor:
    """Decode the given frames of a video.

    Args:
        path: a file that FFmpeg reads, by its path or URL, or as part of another file; or a folder of numbered images
            (frames.py).
        frames: numbers in presentation order from 0, in any order, repeats allowed.
        size: (height, width) in pixels to scale to while decoding; None keeps the video's own.
        seek: False decodes from the file's start. Use it for files known to be damaged: frames lost before the
            point where decoding would start shift the numbers undetected. Files with gaps in their timestamps
            (variable frame rate, lost packets) are always decoded from the start.
        corrupt: handling of frames that the decoder marks as corrupt: "keep" returns them, "drop" returns the last
            intact frame instead (the first intact one if there is none before).
        timeout_seconds: time limit for reading; None for 60.
        decoder: torchcodec does not support seek, corrupt, timeout_seconds, index, AVI files, or files that are not
            whole files of this machine (torchcodec.py).
        index: of the packets of many videos, as `cbam3d prepare` writes it; without one, or where it does not have the
            file as it is now, all packets are read once. Of a remote file, only the bytes from the keyframe to the
            last frame are then read.
        cache: keeps what was read of remote files; None for nothing.

    Returns: uint8 (3, len(frames), height, width), RGB, upright (rotation and mirroring by metadata are applied).

    Raises:
        VideoError: no such file, no video stream, unreadable data, a frame beyond the end, or a timeout.
        ValueError: no frames, a negative number, or an option that torchcodec does not support.

    Examples:
        >>> from cbam3d.data import read_clip
        >>> read_clip("clip.mp4", frames=[0, 4, 8], size=(32, 32)).shape
        torch.Size([3, 3, 32, 32])
    """
    try:
        frames = [index_of(frame) for frame in frames]
    except TypeError:
        raise ValueError(f"frames must be whole numbers, got {list(frames)}") from None
    if len(frames) == 0 or min(frames) < 0:
        raise ValueError(f"frames must be numbers from 0, at least one, got {frames}")
    if size is not None and (len(pair := list(size)) != 2 or min(pair) < 1):
        raise ValueError(f"size must be height and width, at least 1, got {tuple(size)}")
    order = sorted(set(frames))
    if isinstance(path, str) and path.startswith("file:"):
        path = place_of(path)
    if is_local(path) and os.path.isdir(cast(str, path)):
        clip = torch.from_numpy(read_sequence(cast(str, path), order, size))
    elif decoder == "torchcodec":
        if not seek or corrupt != "keep" or timeout_seconds is not None or index is not None:
            raise ValueError("seek, corrupt, timeout_seconds and index have no effect with the decoder torchcodec")
        if not is_local(path):
            raise VideoError(path, "torchcodec reads whole files of this machine: use the decoder pyav")
        clip = read_frames(cast(str, path), order, size)
    else:
        deadline = Deadline(path, 60.0 if timeout_seconds is None else timeout_seconds)
        with video_file(path, deadline, cache) as file:
            clip = torch.from_numpy(_read(path, file, order, size, deadline, seek, corrupt, index))
    if order == [*frames]:
        return clip
    places = {number: place for place, number in enumerate(order)}
    return clip[:, [places[number] for number in frames]]


def _read(
    path: Source,
    file: OpenFile,
    order: Sequence[int],
    size: tuple[int, int] | None,
    deadline: Deadline,
    seek: bool,
    corrupt: str,
    index: PacketIndex | None,
) -> np.ndarray:
    """Frames in ascending order, uint8 (3, T, H, W)."""
    clip = _Clip(order, size)
    try:
        complete = seek and _read_by_table(path, file, clip, deadline, index)
    except VideoError:
        if file.failure:
            raise
        complete = False
    if not complete:
        clip = _Clip(order, size)
        _read_from_start(path, file, clip, deadline, corrupt)
    return clip.pixels


def stream_facts(container: InputContainer, stream: av.VideoStream) -> tuple[str, str, bytes | None]:
    """The arguments of `entry_of` for a stream: codec, container format and extradata."""
    context = stream.codec_context
    return context.codec.canonical_name, container.format.name, context.extradata


class ReadingLog:
    """Callbacks of `all_frames`; these do nothing."""

    def error(self, reason: str) -> None:
        """Called for a packet that cannot be read or decoded."""

    def packet(self, packet: "Packet[Any]") -> None:
        """Called for each decoded packet."""


def all_frames(
    container: InputContainer, stream: av.VideoStream, deadline: Deadline, log: ReadingLog | None = None
) -> Iterator[av.VideoFrame]:
    """Yield all readable frames in presentation order. A packet that cannot be decoded is skipped and logged."""
    log = log or ReadingLog()
    packets = container.demux(stream)
    while True:
        deadline.check()
        try:
            packet = next(packets)
            frames = cast(list[av.VideoFrame], packet.decode())
        except StopIteration:
            return
        except (ExitError, ConnectionError, TimeoutError):  # no damage: there is nothing more to read
            raise
        except (FFmpegError, OSError) as error:
            log.error(reason_of(error))
            continue
        log.packet(packet)
        yield from frames


class _Clip:
    """Pixels of the requested frames, which are different ones, and which are still missing. If no size is given, the
    file's first frame is requested as well: a stream may change its size midway, and a clip has that of the first."""

    def __init__(self, frames: Sequence[int], size: tuple[int, int] | None) -> None:
        self.places = {number: place for place, number in enumerate(frames)}
        self.missing = {*frames} if size else {0, *frames}
        self.size = size
        self.pixels = np.empty(0, np.uint8)

    def put(self, number: int, frame: av.VideoFrame) -> None:
        if number not in self.missing:
            return
        if not self.pixels.size:
            self.pixels = np.empty((3, len(self.places), *(self.size or upright_size(frame))), np.uint8)
        if number in self.places:
            write_rgb(frame, self.pixels[:, self.places[number]])
        self.missing.remove(number)


def _read_from_start(path: Source, file: OpenFile, clip: _Clip, deadline: Deadline, corrupt: str) -> None:
    with open_video(file, deadline) as (container, stream):
        shown: av.VideoFrame | None = None
        waiting: list[int] = []  # corrupt frames without a preceding intact one
        number = -1
        for number, frame in enumerate(all_frames(container, stream, deadline)):
            if corrupt == "keep" or not frame.is_corrupt:
                shown = frame
            waiting.append(number)
            if shown is not None:
                for place in waiting:
                    clip.put(place, shown)
                waiting.clear()
                if not clip.missing:
                    return
    if clip.missing <= set(waiting):
        raise VideoError(path, f"all of {number + 1} frames are corrupt")
    raise VideoError(path, f"frame {max(clip.missing)} asked for, {number + 1} readable frames")


def read_packets(path: str | os.PathLike[str], timeout_seconds: float = 60.0) -> PacketTable | None:
    """The packet table of a video, without decoding; None where its packets do not determine its frames.

    Raises:
        VideoError: what `video_file` and `open_video` raise.
    """
    deadline = Deadline(path, timeout_seconds)
    with (
        video_file(path, deadline) as file,
        open_video(file, deadline, trust_header=True) as (container, stream),
    ):
        return _table_of(container, stream, deadline)


def file_rate(path: Source, timeout_seconds: float = 600.0) -> float:
    """Frames a second, by the times of all packets where the file does not tell, see `rate_by_times`; 0 if unknown.

    Raises:
        VideoError: a file that cannot be read.
    """
    deadline = Deadline(path, timeout_seconds)
    with video_file(path, deadline) as file, open_video(file, deadline) as (container, stream):
        known, base = float(frame_rate(stream) or 0), stream.time_base
        if tells_rate(container, stream) or base is None:
            return known
        shown = (packet.pts for packet in demux(container, stream, deadline))
        return rate_by_times(known, [float(pts * base) for pts in shown if pts is not None])


def _table_of(container: InputContainer, stream: av.VideoStream, deadline: Deadline) -> PacketTable | None:
    facts = stream_facts(container, stream)
    return tabulate([entry_of(packet, *facts) for packet in demux(container, stream, deadline)], *facts[:2])


def _read_by_table(path: Source, file: OpenFile, clip: _Clip, deadline: Deadline, index: PacketIndex | None) -> bool:
    """Whether all requested frames were decoded, intact and as the table predicts. A file that contradicts its table
    is treated as having none from then on."""
    key = (str(path), file.changed_ns, file.num_bytes)
    known, table = _tables.look_up(key)
    if not known and index is not None:
        known, table = index.look_up(path, file.num_bytes, file.changed_ns)
    if not file.path and table is not None and max(clip.missing) < len(table.places):
        file.prepare(table.byte_ranges(plan(table, clip.missing), file.num_bytes))
    with open_video(file, deadline, trust_header=True) as (container, stream):
        if not known:
            table = _table_of(container, stream, deadline)
        _tables.add(key, table)
        if table is None or max(clip.missing) >= len(table.places) or table.gaps:
            return False
        wanted = {table.ranks[table.places[number]]: number for number in clip.missing}
        for span in plan(table, clip.missing):
            if span.start or not known:
                container.seek(table.times[span.start], stream=stream)
                stream.codec_context.flush_buffers()
            if not _decode_span(container, stream, span, table, wanted, clip, deadline):
                _tables.forget(key)
                return False
    if clip.missing:
        _tables.forget(key)
    return not clip.missing


def _decode_span(
    container: InputContainer,
    stream: av.VideoStream,
    span: Span,
    table: PacketTable,
    wanted: dict[int, int],
    clip: _Clip,
    deadline: Deadline,
) -> bool:
    """Decode a span into the clip; `wanted` maps rank to frame number. False at the first sign of damage, or if the
    decoder outputs frames in another order than the table."""
    context, kind, skip = stream.codec_context, container.format.name, ""
    first_time, first_rank = table.times[span.start], table.ranks[span.start]
    last_rank = -1
    packets = dropwhile(lambda packet: seek_time(packet, kind) != first_time, demux(container, stream, deadline))
    for place, packet in enumerate(chain(islice(packets, span.stop - span.start), [None]), span.start):
        if packet is not None:
            rank = table.ranks[place]
            if seek_time(packet, kind) != table.times[place]:
                return False
            if rank < first_rank:
                continue
            packet.pts = rank  # the decoder copies it to the frame
            if table.skippable and skip != (needed := "DEFAULT" if rank in wanted else "NONREF"):
                context.skip_frame = skip = needed
        try:
            frames = context.decode(packet)  # None flushes the decoder
        except FFmpegError:
            return False
        for frame in frames:
            if frame.pts is None or frame.pts <= last_rank:
                return False
            last_rank = frame.pts
            if frame.pts in wanted:
                if frame.is_corrupt:
                    return False
                clip.put(wanted[frame.pts], frame)
    return True


def demux(container: InputContainer, stream: av.VideoStream, deadline: Deadline) -> "Iterator[Packet[Any]]":
    """Yield the stream's packets; those of MPEG-4 Part 2, which may hold two pictures each, are unpacked."""
    mpeg4 = stream.codec_context.codec.canonical_name == "mpeg4"
    unpack = BitStreamFilterContext("mpeg4_unpack_bframes", stream) if mpeg4 else None
    for packet in container.demux(stream):
        deadline.check()
        if packet.size:
            yield from unpack.filter(packet) if unpack else (packet,)
    if unpack:
        yield from unpack.filter(None)


Key = tuple[str, int, int]  # path, modification time, size


class _Tables:
    """LRU cache of packet tables; None for a file without one."""

    def __init__(self, most_bytes: int) -> None:
        self.tables: OrderedDict[Key, PacketTable | None] = OrderedDict()
        self.num_bytes, self.most_bytes = 0, most_bytes
        self.lock = Lock()

    def look_up(self, key: Key) -> tuple[bool, PacketTable | None]:
        """Whether the file is cached, and its table."""
        with self.lock:
            if key not in self.tables:
                return False, None
            self.tables.move_to_end(key)
            return True, self.tables[key]

    def add(self, key: Key, table: PacketTable | None) -> None:
        """Cache a file's table, evicting the least recently used ones."""
        with self.lock:
            if key in self.tables:  # by another thread
                return
            self.tables[key] = table
            self.num_bytes += _num_bytes(table)
            while self.num_bytes > self.most_bytes and len(self.tables) > 1:
                _, oldest = self.tables.popitem(last=False)
                self.num_bytes -= _num_bytes(oldest)

    def forget(self, key: Key) -> None:
        """Mark a file as having no table."""
        with self.lock:
            self.num_bytes -= _num_bytes(self.tables.pop(key, None)) if key in self.tables else 0
        self.add(key, None)


def _num_bytes(table: PacketTable | None) -> int:
    return 600 + (table.num_bytes if table else 0)  # the objects' overhead is a rough estimate


_tables = _Tables(most_bytes=16 * 2**20)
