"""Which packet of a file holds which frame, and which packets to decode for some frames.

A frame's number is its place in presentation order. It can be told without decoding where the container
gives every frame a timestamp, and for MPEG-4 Part 2, whose packets say how they are reordered (the AVI files
of UCF101 have no presentation timestamps, and two frames in one packet). Elsewhere only decoding tells.

Timestamps of H.264 and HEVC are not believed where they have the order of coding although there are B-pictures:
some tools write them so, and decoders go by the order that the pictures themselves have.
"""

from array import array
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from av.packet import Packet

# Containers with a presentation timestamp for each frame, and codecs with one frame in each packet.
_TIMED_FORMATS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flv", "mpegts", "gif"}
_PREDICTED = {"h264", "hevc", "vp9", "av1"}
_ONE_FRAME_A_PACKET = _PREDICTED | {"gif", "ffv1", "huffyuv"}
_INTRA_ONLY = {"mjpeg", "prores", "dnxhd", "dvvideo", "v210"}  # and in which each packet says all of it

_VOP_START = b"\0\0\1\xb6"  # MPEG-4 Part 2: here a picture begins; the next two bits are its kind
_I, _P, _B = 0, 1, 2
_LONGEST_HEAD = 1 << 16  # bytes before a picture's first slice
_LARGEST_EMPTY_VOP = 19  # bytes; a P-picture as small as this may be a placeholder that shows nothing


class Entry(NamedTuple):
    """What the table needs to know of a packet; times in the stream's units."""

    shown_at: int | None
    seek_time: int | None
    keyframe: bool
    hidden: bool  # by an edit list: decoded, but not shown
    kind: int | None = None  # of picture, I, P or B, where the codec is read for it; None where it cannot be told


@dataclass(frozen=True)
class PacketTable:
    """What the packets of a stream, in coding order, show."""

    places: Sequence[int]  # frame number -> place of its packet in coding order
    ranks: Sequence[int]  # of every packet in presentation order, the hidden ones included
    times: Sequence[int]  # that the container seeks by, different for every packet; see `seek_time`
    keyframes: Sequence[int]  # places, rising, of packets where decoding can start
    skippable: bool  # whether frames that no other refers to may be passed over on the way
    gaps: bool  # whether packets may be missing: how many frames a decoder makes of the others, only decoding tells

    @property
    def num_bytes(self) -> int:
        return 4 * (len(self.places) + len(self.ranks)) + 8 * len(self.times) + 4 * len(self.keyframes)


@dataclass(frozen=True)
class Span:
    """Packets to decode in one go, by their places: from a keyframe up to `stop`, exclusive."""

    start: int
    stop: int


def seek_time(packet: "Packet[Any]", container_format: str) -> int | None:
    """The time by which a container finds a packet: of presentation in Matroska, elsewhere of decoding."""
    return packet.pts if container_format == "matroska,webm" else packet.dts


def entry_of(packet: "Packet[Any]", codec: str, container_format: str, extradata: bytes | None) -> Entry:
    """The entry of a packet; those of MPEG-4 Part 2 must hold one picture each.

    Args:
        packet: not decoded yet, or decoded.
        codec: the canonical name of the stream's.
        container_format: FFmpeg's name of it.
        extradata: the stream's.
    """
    kind = None
    if codec == "mpeg4":
        kind = _kind_of_vop(packet)
    elif codec in ("h264", "hevc"):
        kind = _kind_of_slice(packet, codec, extradata or b"")
    return Entry(packet.pts, seek_time(packet, container_format), packet.is_keyframe, packet.is_discard, kind)


def tabulate(entries: Sequence[Entry], codec: str, container_format: str) -> PacketTable | None:
    """The table of a stream, or None where only decoding can tell it.

    Args:
        entries: of all packets, in coding order.
        codec: the canonical name of the stream's.
        container_format: FFmpeg's name of it.
    """
    keyframes = [place for place, entry in enumerate(entries) if entry.keyframe]
    if not keyframes or keyframes[0] != 0:
        return None
    times = _distinct([entry.seek_time for entry in entries])
    timed = container_format in _TIMED_FORMATS
    shown = _distinct([entry.shown_at for entry in entries]) if timed else None
    if codec in _INTRA_ONLY:
        order: Sequence[int] | None = range(len(entries))
    elif codec == "mpeg4":
        order = _vop_order([entry.kind for entry in entries])
    elif codec in _ONE_FRAME_A_PACKET and timed:
        order = shown
        if order is not None and list(order) == sorted(order) and any(entry.kind == _B for entry in entries):
            return None
    else:
        order = None
    if times is None or order is None:
        return None
    if order[0] != min(order):  # frames shown before the first keyframe may not be decodable
        return None
    presented = sorted(range(len(entries)), key=order.__getitem__)
    ranks = array("i", presented)
    for rank, place in enumerate(presented):
        ranks[place] = rank
    places = array("i", [place for place in presented if not entries[place].hidden])
    gaps = codec in (*_PREDICTED, "mpeg4") and shown is not None and not _is_even(shown)
    skippable = codec in ("mpeg4", "h264") and not gaps
    return PacketTable(places, ranks, times, array("i", keyframes), skippable, gaps)


def plan(table: PacketTable, wanted: Collection[int]) -> list[Span]:
    """The spans that hold the wanted frames, with as little to decode as possible.

    What follows a keyframe in coding order but precedes it on the screen may lack its references after a jump,
    so a keyframe serves the frames from its own on.
    """
    spans: list[Span] = []
    for number in sorted(wanted):
        place = table.places[number]
        before = bisect_right(table.keyframes, place)
        while table.ranks[table.keyframes[before - 1]] > table.ranks[place]:
            before -= 1
        start = table.keyframes[before - 1]
        if spans and start <= spans[-1].stop:
            spans[-1] = Span(spans[-1].start, max(spans[-1].stop, place + 1))
        else:
            spans.append(Span(start, place + 1))
    return spans


def _distinct(times: Sequence[int | None]) -> Sequence[int] | None:
    """The times, where every packet has its own."""
    known = array("q", [time for time in times if time is not None])
    return known if len(known) == len(times) == len(set(known)) else None


def _is_even(times: Sequence[int]) -> bool:
    """Whether frames come at a constant rate. Where one is missing, the decoder makes up what refers to it from
    whatever it has decoded, and that would depend on what was passed over."""
    steps = [b - a for a, b in pairwise(sorted(times))]
    return not steps or max(steps) < 1.5 * min(steps)


def _kind_of_vop(packet: "Packet[Any]") -> int | None:
    data = bytes(packet)
    start = data.find(_VOP_START)
    if start < 0 or start + 4 >= len(data):
        return None
    kind = data[start + 4] >> 6
    return None if kind == _P and len(data) <= _LARGEST_EMPTY_VOP else kind


def _kind_of_slice(packet: "Packet[Any]", codec: str, extradata: bytes) -> int | None:
    """Kind of the first slice of an H.264 or HEVC picture; of HEVC as coded where the PPS asks for nothing more."""
    for unit in _units(memoryview(packet), codec, extradata):
        if codec == "h264" and len(unit) > 1 and unit[0] & 31 in (1, 5):
            bits = unit[1] & 127  # behind the 1 that codes first_mb_in_slice 0; slice_type follows in the same byte
            is_b = bits >> 4 == 0b010 or bits >> 2 == 0b00111
            return _I if unit[0] & 31 == 5 else _B if is_b else _P
        if codec == "hevc" and len(unit) > 2 and (kind := unit[0] >> 1) < 32:
            return _I if kind >= 16 else _B if unit[2] & 32 else _P  # behind first_slice_segment and pps_id 0
    return None


def _units(data: memoryview, codec: str, extradata: bytes) -> Iterator[memoryview]:
    """NAL units: each behind its length where the extradata says so (MP4, Matroska), else behind 0 0 1."""
    if extradata[:1] == b"\1":
        size, start = (extradata[4 if codec == "h264" else 21] & 3) + 1, 0
        while start + size < len(data):
            stop = start + size + int.from_bytes(data[start : start + size])
            yield data[start + size : stop]
            start = stop
        return
    head = bytes(data[:_LONGEST_HEAD])
    start = head.find(b"\0\0\1")
    while start >= 0:
        yield data[start + 3 :]
        start = head.find(b"\0\0\1", start + 3)


def _vop_order(kinds: Sequence[int | None]) -> list[int] | None:
    """A B-picture is shown at once, any other when the next that is no B-picture has been decoded."""
    order = [0] * len(kinds)
    position, held, references = 0, -1, 0
    for place, kind in enumerate(kinds):
        if kind is None or (kind == _B and references < 2):
            return None
        shown = place if kind == _B else held
        if shown >= 0:
            order[shown] = position
            position += 1
        if kind != _B:
            held, references = place, references + 1
    if held >= 0:
        order[held] = position
    return order
