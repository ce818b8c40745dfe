"""Open a video file: its container and first video stream, with every failure reported."""

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from typing import Any

import av
import av.logging
from av import VideoStream
from av.container import InputContainer
from av.error import ExitError, FFmpegError
from av.stream import Discard

from cbam3d.errors import InputError
from cbam3d.storage import BlockCache, OpenFile, Source, open_file

av.logging.set_level(None)  # FFmpeg would write to stderr from C; errors are raised or reported
logging.getLogger("libav").setLevel(logging.CRITICAL)

# titles in any encoding; PyAV 19 has no such option, and needs none
_ANY_METADATA: dict[str, Any] = {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "ignore"}
_MATROSKA = b"\x1a\x45\xdf\xa3"
_SUFFIXES = """
    264 265 3g2 3gp 3gpp amv apng asf av1 avi avs cavs dav divx drc dv dvr-ms evo f4v flv gif gxf h261 h263 h264
    h265 h26l hevc ismv ivf jpm kux m1v m2p m2t m2ts m2v m4v mj2 mjpeg mjpg mk3d mkv mod mov mp2v mp4 mp4v mpe
    mpeg mpg mpv mpv2 mts mve mxf mxg nsv nut obu ogg ogm ogv ogx qt rm rmvb roq rv swf tod tp trp ts vc1 vob
    vro webm webp wm wmv wtv xvid y4m
"""
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _SUFFIXES.split())  # of files that count as videos


class VideoError(InputError):
    """An unusable video: one line with the file and the reason.

    Examples:
        >>> from cbam3d.data import VideoError, read_clip
        >>> try:
        ...     read_clip("groups.csv", [0])
        ... except VideoError as error:
        ...     print(error.path)
        groups.csv
    """

    def __init__(self, path: Source, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return VideoError, (self.path, self.reason)


# Formats whose files do not tell the mean frame rate: it is that of the first packets, or the nominal one.
_RATE_IS_GUESSED = {"matroska,webm", "flv", "mpegts", "avi", "asf", "nut", "apng"}


def frame_rate(stream: VideoStream) -> Fraction | None:
    """Frames a second: the mean that the file tells, which counts pauses, or FFmpeg's guess from the first packets."""
    return stream.average_rate or stream.guessed_rate


def tells_rate(container: InputContainer, stream: VideoStream) -> bool:
    """Whether `frame_rate` is sure: the file tells it, and the usual distance of frames agrees."""
    mean, usual = stream.average_rate, stream.guessed_rate
    if container.format.name in _RATE_IS_GUESSED or not mean or not usual:
        return False
    return abs(mean - usual) <= 0.05 * usual


class Deadline:
    """The time limit of a file, in seconds from now."""

    def __init__(self, path: Source, seconds: float) -> None:
        self.path, self.seconds, self.until = path, seconds, time.monotonic() + seconds

    def check(self) -> None:
        """Raise VideoError if the time limit has passed."""
        if time.monotonic() > self.until:
            raise self.error()

    def restart(self) -> None:
        """Restart the time limit, as endless streams do for each frame."""
        self.until = time.monotonic() + self.seconds

    def error(self) -> VideoError:
        return VideoError(self.path, f"timeout (not read within {self.seconds:g} seconds)")


@contextmanager
def video_file(path: Source, deadline: Deadline, cache: BlockCache | None = None) -> Iterator[OpenFile]:
    """Yield an open file that is not empty.

    Args:
        path: a path, a URL, or a part of a file.
        deadline: for opening and reading.
        cache: what is kept of remote files.

    Raises:
        VideoError: a missing, empty or unreadable file.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_file(path, deadline.seconds, cache))
        except FileNotFoundError as error:
            raise VideoError(path, "no such file" if error.errno else reason_of(error)) from None
        except InputError:
            raise
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise VideoError(path, f"unreadable ({reason_of(error)})") from None
        if file.num_bytes == 0:
            raise VideoError(path, "empty file")
        yield file


@contextmanager
def open_video(
    file: OpenFile, deadline: Deadline, trust_header: bool = False
) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Yield the container and its first video stream that is not a cover image.

    Args:
        file: of `video_file`.
        deadline: for opening, and for each further read.
        trust_header: if the container's header describes the stream (MP4, MOV, Matroska), do not decode a
            frame to probe it. The pixel format is then unknown until the first frame.

    Raises:
        VideoError: no video stream, or unreadable data; also from within the `with` block.
    """
    options = {"codec_whitelist": "none"} if trust_header and _describes_itself(file) else {}
    if not file.path:  # FFmpeg would let it name files and hosts, which it does not let a file on a disk
        options["protocol_whitelist"] = "none"
    file.seek(0)
    try:
        with open_input(file.path or file, deadline, options=options) as opened:
            yield opened
    finally:
        if file.failure:
            raise VideoError(deadline.path, f"unreadable ({file.failure})") from None


@contextmanager
def open_input(
    source: str | OpenFile, deadline: Deadline, options: dict[str, str] | None = None, format: str | None = None
) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Like `open_video`, for any source that FFmpeg opens, such as network streams.

    Args:
        source: a path, a URL, the name of a device, or an open file.
        deadline: for opening, and for each further read.
        options: of FFmpeg.
        format: name of an FFmpeg input format; None to detect it.

    Raises:
        VideoError: nothing to open, no video stream, or unreadable data; also from within the `with` block.
    """
    name = source if isinstance(source, str) else deadline.path
    try:
        limits = (deadline.seconds, deadline.seconds)
        with av.open(source, format=format, options=options or {}, timeout=limits, **_ANY_METADATA) as container:
            pictures = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
            if container.format.name == "concat":  # a list of other files, which may lie anywhere
                raise VideoError(deadline.path, "a list of files, not a video")
            if not pictures:
                raise VideoError(deadline.path, "no video stream")
            if pictures[0].codec_context is None:
                raise VideoError(deadline.path, "no decoder for the video stream")
            for stream in container.streams:
                if stream is not pictures[0]:
                    stream.discard = Discard.all
            pictures[0].codec_context.thread_count = 1  # parallelism is over videos
            yield container, pictures[0]
    except FileNotFoundError:
        raise VideoError(name, "no such file") from None
    except ExitError:
        raise deadline.error() from None
    except (FFmpegError, OSError) as error:  # garbage has been seen to raise PermissionError
        raise VideoError(deadline.path, f"unreadable ({reason_of(error)})") from None


def reason_of(error: Exception) -> str:
    """FFmpeg's error message in lower case."""
    return (getattr(error, "strerror", None) or str(error)).lower()


def _describes_itself(file: OpenFile) -> bool:
    start = file.read(12)
    return start.startswith(_MATROSKA) or start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free")
