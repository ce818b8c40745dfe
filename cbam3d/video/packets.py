"""Map frames to packets, and plan which packets to decode for given frames.

A frame's number is its position in presentation order. It is known without decoding if the container gives
every frame a timestamp, and for MPEG-4 Part 2, whose packets determine their reordering (the AVI files of
UCF101 have no presentation timestamps, and two frames in one packet). All other files must be decoded.

Timestamps of H.264 and HEVC are not trusted if they are in coding order although there are B-pictures: some
tools write them so, and decoders use the order coded in the pictures themselves.
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
_INTRA_ONLY = {"mjpeg", "prores", "dnxhd", "dvvideo", "v210"}  # and each packet is self-contained

PAGE = 4096  # bytes of a file
_HEAD = 4 * PAGE
_VOP_START = b"\0\0\1\xb6"  # MPEG-4 Part 2: start of a picture; the next two bits are its type
_I, _P, _B = 0, 1, 2
_LONGEST_HEAD = 1 << 16  # bytes before a picture's first slice
_LARGEST_EMPTY_VOP = 19  # bytes; a P-picture this small may be a placeholder that shows nothing


class Entry(NamedTuple):
    """Properties of a packet for the table; times in the stream's time base."""

    shown_at: int | None
    seek_time: int | None
    keyframe: bool
    hidden: bool  # by an edit list: decoded, but not shown
    kind: int | None = None  # picture type I, P or B, for codecs that are parsed; None if unknown
    position: int | None = None  # in the file, bytes


@dataclass(frozen=True)
class PacketTable:
    """The frames in the packets of a stream, in coding order."""

    places: Sequence[int]  # frame number -> position of its packet in coding order
    ranks: Sequence[int]  # of every packet in presentation order, including hidden ones
    times: Sequence[int]  # for seeking, unique per packet; see `seek_time`
    keyframes: Sequence[int]  # positions, ascending, of packets where decoding can start
    skippable: bool  # whether non-reference frames may be skipped
    gaps: bool  # whether packets may be missing: the number of decoded frames is then unknown
    pages: Sequence[int] = ()  # of every packet, the page of the file where it begins; empty if they are not known

    @property
    def num_bytes(self) -> int:
        small = (self.places, self.ranks, self.keyframes, self.pages)
        return 4 * sum(map(len, small)) + 8 * len(self.times)

    def byte_ranges(self, spans: Sequence["Span"], file_bytes: int) -> list[tuple[int, int]]:
        """What is read of the file to decode spans, in whole pages: first bytes, and last ones plus 1. Beside the spans
        it is what the file begins with, and what it ends with where there is no room for a table of contents before its
        packets. Nothing if places in the file are not known."""
        if not self.pages:
            return []
        found = [(0, _HEAD)]
        for span in spans:
            first, last = min(self.pages[span.start : span.stop]), max(self.pages[span.start : span.stop + 1])
            found.append((first * PAGE, (last + 1) * PAGE if span.stop < len(self.pages) else file_bytes))
        if self.pages[0] * PAGE < _HEAD:
            found.append((file_bytes - _HEAD, file_bytes))
        return [(max(0, start), min(stop, file_bytes)) for start, stop in found]


@dataclass(frozen=True)
class Span:
    """Positions of packets to decode in one go: from a keyframe up to `stop`, exclusive."""

    start: int
    stop: int


def seek_time(packet: "Packet[Any]", container_format: str) -> int | None:
    """The timestamp by which a container seeks to a packet: PTS in Matroska, DTS elsewhere."""
    return packet.pts if container_format == "matroska,webm" else packet.dts


def entry_of(packet: "Packet[Any]", codec: str, container_format: str, extradata: bytes | None) -> Entry:
    """Create the entry of a packet; those of MPEG-4 Part 2 must hold one picture each.

    Args:
        packet: before or after decoding.
        codec: its canonical name.
        container_format: FFmpeg's name for it.
        extradata: of the stream.
    """
    kind = None
    if codec == "mpeg4":
        kind = _kind_of_vop(packet)
    elif codec in ("h264", "hevc"):
        kind = _kind_of_slice(packet, codec, extradata or b"")
    time = seek_time(packet, container_format)
    return Entry(packet.pts, time, packet.is_keyframe, packet.is_discard, kind, packet.pos)


def tabulate(entries: Sequence[Entry], codec: str, container_format: str) -> PacketTable | None:
    """Create the table of a stream, or None if it requires decoding.

    Args:
        entries: of all packets, in coding order.
        codec: its canonical name.
        container_format: FFmpeg's name for it.
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
    positions = [entry.position for entry in entries]
    pages = array("i", [at // PAGE for at in positions if at is not None and at >= 0])
    known = pages if len(pages) == len(positions) else ()
    return PacketTable(places, ranks, times, array("i", keyframes), skippable, gaps, known)


def plan(table: PacketTable, wanted: Collection[int]) -> list[Span]:
    """Find the spans to decode for the wanted frames, as short as possible.

    Packets that follow a keyframe in coding order but precede it in presentation order may lack their references
    after a seek, so a keyframe only serves frames from its own on.
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
    """The times, or None unless every packet has a unique one."""
    known = array("q", [time for time in times if time is not None])
    return known if len(known) == len(times) == len(set(known)) else None


def _is_even(times: Sequence[int]) -> bool:
    """Whether the frame rate is constant. If a frame is missing, the decoder fills in what refers to it from what it
    has decoded, which would depend on the skipped packets."""
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
    """Type of the first slice of an H.264 or HEVC picture; for HEVC, assuming no extra slice header bits in the PPS."""
    for unit in _units(memoryview(packet), codec, extradata):
        if codec == "h264" and len(unit) > 1 and unit[0] & 31 in (1, 5):
            bits = unit[1] & 127  # after the 1 that codes first_mb_in_slice 0; slice_type follows in the same byte
            is_b = bits >> 4 == 0b010 or bits >> 2 == 0b00111
            return _I if unit[0] & 31 == 5 else _B if is_b else _P
        if codec == "hevc" and len(unit) > 2 and (kind := unit[0] >> 1) < 32:
            return _I if kind >= 16 else _B if unit[2] & 32 else _P  # after first_slice_segment and pps_id 0
    return None


def _units(data: memoryview, codec: str, extradata: bytes) -> Iterator[memoryview]:
    """Yield NAL units: length-prefixed if the extradata says so (MP4, Matroska), else after start codes 0 0 1."""
    if extradata[:1] == b"\1":
        described = 4 if codec == "h264" else 21  # the byte with the size of a length
        if len(extradata) <= described:
            return
        size, start = (extradata[described] & 3) + 1, 0
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
    """Presentation order: a B-picture is shown at once, any other once the next non-B-picture is decoded."""
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
