"""Which packet of a file holds which frame, and which packets to decode for some frames.

A frame's number is its place in presentation order. It can be told without decoding where the container
gives every frame a timestamp, and for MPEG-4 Part 2, whose packets say how they are reordered (the AVI files
of UCF101 have no presentation timestamps, and two frames in one packet). Elsewhere only decoding tells.
"""

from array import array
from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from av.codec import Codec
from av.packet import Packet

# Containers with a presentation timestamp for each frame, and codecs with one frame in each packet.
_TIMED_FORMATS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flv", "mpegts", "gif"}
_ONE_FRAME_A_PACKET = {"h264", "hevc", "vp9", "av1", "gif", "ffv1", "huffyuv"}
# Codecs whose decoder can tell a frame that no other refers to before decoding it.
_SKIPPABLE = {"h264", "mpeg4"}

_VOP_START = b"\0\0\1\xb6"  # MPEG-4 Part 2: here a picture begins; the next two bits are its kind
_P, _B = 1, 2
_LARGEST_EMPTY_VOP = 19  # bytes; a P-picture as small as this may be a placeholder that shows nothing


class Entry(NamedTuple):
    """What the table needs to know of a packet."""

    timestamp: int | None  # of presentation
    keyframe: bool
    hidden: bool  # by an edit list: decoded, but not shown
    vop: int | None = None  # MPEG-4 Part 2: kind of picture; None where it cannot be told


@dataclass(frozen=True)
class PacketTable:
    """What the packets of a stream, in coding order, show."""

    places: Sequence[int]  # frame number -> place of its packet in coding order
    ranks: Sequence[int]  # of every packet in presentation order, the hidden ones included
    keyframes: Sequence[int]  # places, rising, of packets where decoding can start
    skippable: bool


@dataclass(frozen=True)
class Run:
    """Packets to decode in one go, by their places: from a keyframe up to `stop`, exclusive."""

    start: int
    stop: int


def describe(packet: Packet, codec: Codec) -> Entry:
    """The entry of a packet; those of MPEG-4 Part 2 must hold one picture each."""
    vop = _kind_of_vop(packet) if codec.canonical_name == "mpeg4" else None
    return Entry(packet.pts, packet.is_keyframe, packet.is_discard, vop)


def tabulate(entries: Sequence[Entry], codec: Codec, container_format: str) -> PacketTable | None:
    """The table of a stream, or None where only decoding can tell it.

    Args:
        entries: of all packets, in coding order.
        codec: of the stream.
        container_format: FFmpeg's name of it.
    """
    name = codec.canonical_name
    keyframes = [place for place, entry in enumerate(entries) if entry.keyframe]
    if not keyframes or keyframes[0] != 0:
        return None
    if codec.intra_only:
        order: list[int] | None = list(range(len(entries)))
    elif name == "mpeg4":
        order = _vop_order([entry.vop for entry in entries])
    elif name in _ONE_FRAME_A_PACKET and container_format in _TIMED_FORMATS:
        order = _timestamp_order(entries)
    else:
        order = None
    if order is None or order[0] != min(order):  # frames shown before the first keyframe may not be decodable
        return None
    presented = sorted(range(len(entries)), key=order.__getitem__)
    ranks = array("q", presented)
    for rank, place in enumerate(presented):
        ranks[place] = rank
    places = array("q", [place for place in presented if not entries[place].hidden])
    return PacketTable(places, ranks, array("q", keyframes), name in _SKIPPABLE)


def plan(table: PacketTable, wanted: Collection[int]) -> list[Run]:
    """The runs that hold the wanted frames, with as little to decode as possible.

    What follows a keyframe in coding order but precedes it on the screen may lack its references after a jump,
    so a keyframe serves the frames from its own on.
    """
    runs: list[Run] = []
    for number in sorted(wanted):
        place = table.places[number]
        before = bisect_right(table.keyframes, place)
        while table.ranks[table.keyframes[before - 1]] > table.ranks[place]:
            before -= 1
        start = table.keyframes[before - 1]
        if runs and start <= runs[-1].stop:
            runs[-1] = Run(runs[-1].start, max(runs[-1].stop, place + 1))
        else:
            runs.append(Run(start, place + 1))
    return runs


def _timestamp_order(entries: Sequence[Entry]) -> list[int] | None:
    timestamps = [entry.timestamp for entry in entries if entry.timestamp is not None]
    return timestamps if len(timestamps) == len(entries) == len(set(timestamps)) else None


def _kind_of_vop(packet: Packet) -> int | None:
    data = bytes(packet)
    start = data.find(_VOP_START)
    if start < 0 or start + 4 >= len(data):
        return None
    kind = data[start + 4] >> 6
    return None if kind == _P and len(data) <= _LARGEST_EMPTY_VOP else kind


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
