"""Videos that are folders of numbered images, as those of Something-Something, Jester and rawframes of mmaction2.

The frames are the images whose names end with a number, in the order of these numbers, from whatever number on.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from av import CodecContext, Packet, VideoFrame
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext

from cbam3d.errors import counted
from cbam3d.files import leads_out
from cbam3d.video.container import VideoError, reason_of
from cbam3d.video.pixels import upright_size, write_rgb

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
_USUAL = "img_"  # of mmaction2, beside flow_x_ and flow_y_
_CODECS = {b"\xff\xd8\xff": "mjpeg", b"\x89PNG": "png", b"RIFF": "webp", b"BM": "bmp"}  # by the first bytes
_LARGEST_FILE = 1 << 28  # bytes


def list_frames(path: str | os.PathLike[str]) -> tuple[list[str], str]:
    """The files of the frames in order, and what is wrong with their numbers: empty, or the gaps.

    Args:
        path: the folder.

    Raises:
        VideoError: no numbered image, several sequences of which none is called img_, or two images with one number.
    """
    sequences: dict[str, dict[int, str]] = {}
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise VideoError(path, f"unreadable ({reason_of(error)})") from None
    for name in names:
        stem, suffix = os.path.splitext(name)
        match = re.fullmatch(r"(.*?)(\d{1,18})", stem, re.DOTALL)
        if suffix.lower() not in IMAGE_SUFFIXES or match is None or name.startswith("."):
            continue
        other = sequences.setdefault(match[1], {}).setdefault(int(match[2]), name)
        if other != name:
            raise VideoError(path, f"two images with one number: {other} and {name}")
    if not sequences:
        raise VideoError(path, "no numbered image in this folder")
    if len(sequences) > 1 and _USUAL not in sequences:
        raise VideoError(path, f"several sequences of images: {', '.join(f'{start}*' for start in sorted(sequences))}")
    found = sequences[_USUAL] if len(sequences) > 1 else next(iter(sequences.values()))
    files = [os.path.join(path, found[number]) for number in sorted(found)]
    missing = max(found) - min(found) + 1 - len(found)
    if not missing:
        return files, ""
    first = next(number for number in range(min(found), max(found)) if number not in found)
    return files, f"{counted(missing, 'missing frame')}, the first is {first}"


def read_sequence(path: str | os.PathLike[str], numbers: Sequence[int], size: tuple[int, int] | None) -> np.ndarray:
    """Decode frames of a folder, uint8 (3, len(numbers), H, W); numbers count the frames from 0, in their order.

    Args:
        path: the folder.
        numbers: of different frames.
        size: (height, width) in pixels to scale to; None for that of the first frame.

    Raises:
        VideoError: what `list_frames` raises, a number beyond the last frame, an image that cannot be decoded, or a
            link that leads out of the folder.
    """
    files, _ = list_frames(path)
    if max(numbers) >= len(files):
        raise VideoError(path, f"frame {max(numbers)} asked for, {len(files)} readable frames")
    if size is None:
        size = upright_size(_decode(path, files[0]))
    pixels = np.empty((3, len(numbers), *size), np.uint8)
    for place, number in enumerate(numbers):
        write_rgb(_decode(path, files[number]), pixels[:, place])
    return pixels


def frames_of(path: str | os.PathLike[str], files: Sequence[str]) -> Iterator[VideoFrame]:
    """Decode images in order.

    Raises:
        VideoError: an image that cannot be decoded, or a link that leads out of the folder.
    """
    return (_decode(path, file) for file in files)


def _decode(path: str | os.PathLike[str], file: str) -> VideoFrame:
    """Decode an image file, by a decoder of its own: FFmpeg's for PNG gives wrong pixels from the second image on."""
    name = os.path.basename(file)
    try:
        if os.path.islink(file) and leads_out(file, os.path.realpath(path)):
            raise VideoError(path, f"{name} is a link that leads out of the folder")
        if os.path.getsize(file) > _LARGEST_FILE:
            raise VideoError(path, f"{name} has more than {_LARGEST_FILE:,} bytes")
        data = Path(file).read_bytes()
        codec = next((codec for start, codec in _CODECS.items() if data.startswith(start)), None)
        if codec is None:
            raise VideoError(path, f"{name} is no JPEG, PNG, WebP or BMP image")
        context = cast(VideoCodecContext, CodecContext.create(codec, "r"))
        context.thread_count, context.options = 1, {"err_detect": "explode"}  # else half an image is one
        found = context.decode(Packet(data))
    except (FFmpegError, OSError) as error:
        raise VideoError(path, f"{name} cannot be decoded ({reason_of(error)})") from None
    if not found:
        raise VideoError(path, f"{name} cannot be decoded")
    return found[0]
