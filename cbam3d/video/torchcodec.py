"""torchcodec as an alternative decoder; needs FFmpeg's libraries and the extra `torchcodec`."""

import os
from collections.abc import Sequence

from torch import Tensor

from cbam3d.errors import InputError, reason_of
from cbam3d.video.container import VideoError


def read_frames(path: str | os.PathLike[str], frames: Sequence[int], size: tuple[int, int] | None) -> Tensor:
    """Like decode.read_clip, using torchcodec, for ascending numbers.

    Raises:
        InputError: torchcodec is not installed, or does not find FFmpeg's libraries.
        VideoError: unreadable data, a frame beyond the end, or an AVI file, whose frames it may number wrongly.
    """
    try:
        from torchcodec.decoders import VideoDecoder  # type: ignore[reportPrivateImportUsage]
    except ImportError:
        raise InputError('decoder torchcodec: not installed (pip install "cbam3d[torchcodec]")') from None
    except RuntimeError as error:
        raise _not_loaded(error) from None
    if not os.path.exists(path):
        raise VideoError(path, "no such file")
    if os.path.getsize(path) == 0:
        raise VideoError(path, "empty file")
    if _is_avi(path):
        raise VideoError(path, "in AVI files torchcodec numbers frames wrongly: use the decoder pyav")
    try:
        decoder = VideoDecoder(os.fspath(path), seek_mode="exact", num_ffmpeg_threads=1)
        if max(frames) >= len(decoder):
            raise VideoError(path, f"frame {max(frames)} asked for, {len(decoder)} readable frames")
        pictures = decoder.get_frames_at(list(frames)).data
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, VideoError):
            raise
        if "libtorchcodec" in str(error):  # which newer versions load only now
            raise _not_loaded(error) from None
        raise VideoError(path, f"unreadable ({reason_of(error).lower()})") from None
    if size is not None and tuple(size) != tuple(pictures.shape[-2:]):
        from torchvision.transforms.v2 import functional as F  # whose import takes seconds

        pictures = F.resize(pictures, list(size), antialias=True)
    return pictures.movedim(1, 0).contiguous()


def _is_avi(path: str | os.PathLike[str]) -> bool:
    with open(path, "rb") as file:
        return file.read(12)[8:] == b"AVI "


def _not_loaded(error: Exception) -> InputError:
    reason = reason_of(error)
    return InputError(f"decoder torchcodec: {reason} (it needs FFmpeg's libraries; data.decoder pyav has its own)")
