"""Detect truncated files in containers where FFmpeg reports no error, but reads to the end of the file. In MP4, AVI and
others the truncated packet is marked, which probe.py counts.
"""

import os
from collections.abc import Callable

from cbam3d.storage import OpenFile

_EBML_HEADER, _SEGMENT = 0x1A45DFA3, 0x18538067
_OGG_TAIL = 1 << 17  # bytes; an Ogg page has at most 65,307


def cut_off(file: OpenFile, container_format: str) -> str:
    """Evidence that the end is missing; empty if there is none, or the format cannot tell.

    Args:
        file: the open file.
        container_format: FFmpeg's name for it.
    """
    check = _CHECKS.get(container_format)
    if check is None:
        return ""
    file.seek(0)
    return check(file, file.num_bytes)


def _gif(file: OpenFile, size: int) -> str:
    """The last block ends with 0, followed by a semicolon; programs may append data."""
    file.seek(max(0, size - 4096))
    return "" if b"\0;" in file.read() else "cut off (no GIF trailer)"


def _matroska(file: OpenFile, size: int) -> str:
    """The segment states its length, unless it was written as a live stream."""
    for _ in range(2):  # the EBML header, then the segment
        kind, length = _vint(file, keep_marker=True), _vint(file)
        if kind not in (_EBML_HEADER, _SEGMENT) or length is None:
            return ""
        if kind == _SEGMENT:
            missing = file.tell() + length - size
            return f"cut off ({missing:,} bytes are missing)" if missing > 0 else ""
        file.seek(length, os.SEEK_CUR)
    return ""


def _vint(file: OpenFile, keep_marker: bool = False) -> int | None:
    """Read an EBML integer: as many zero bits as bytes follow, a one, the value. None for "unknown", all ones."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    bits = 9 - first[0].bit_length()  # of the marker and the zeros before it
    value = int.from_bytes(first + file.read(bits - 1))
    if keep_marker:
        return value
    value -= 1 << (7 * bits)
    return None if value == (1 << (7 * bits)) - 1 else value


def _ogg(file: OpenFile, size: int) -> str:
    """The last page of every stream is flagged."""
    file.seek(max(0, size - _OGG_TAIL))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) > 27 and page[5] & 4 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]]):
        return ""
    return "cut off (no last Ogg page)"


def _transport_stream(file: OpenFile, size: int) -> str:
    """Packets of 188 bytes, or 192 with an arrival timestamp before each (M2TS)."""
    packet = 192 if file.read(5)[4:] == b"G" else 188
    return f"cut off (the last transport packet has {size % packet} of {packet} bytes)" if size % packet else ""


_CHECKS: dict[str, Callable[[OpenFile, int], str]] = {
    "gif": _gif,
    "matroska,webm": _matroska,
    "ogg": _ogg,
    "mpegts": _transport_stream,
}
