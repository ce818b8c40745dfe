"""A folder of bounded size with what was read of remote files, shared by processes.

Each remote file has one sparse file here: the checksums of its blocks, then the blocks where they are in the original.
A block is there if it has its checksum, so that it does not matter who writes it, or how often. The file's time tells
when it was last used; those not used for longest are deleted.
"""

import hashlib
import logging
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cbam3d.errors import InputError
from cbam3d.files import make_folder

BLOCK = 1 << 15  # bytes
_HEAD = b"cbam3d blocks 1\n"
_PAGE = 4096  # bytes; blocks begin at a multiple
_CHECKS = 32  # how much may be written until the size is looked at: the limit divided by this

logger = logging.getLogger(__name__)


def default_folder() -> Path:
    """Where caches belong: in XDG_CACHE_HOME, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cbam3d"


class BlockCache:
    """Blocks of remote files. It may be passed to other processes.

    Args:
        folder: may be that of other processes.
        most_bytes: on disk; each process may exceed them by 1/32. 0 keeps nothing.

    Examples:
        >>> from pathlib import Path
        >>> from cbam3d.storage import BlockCache
        >>> cache = BlockCache(Path("cache"), most_bytes=2**30)
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        self._written = most_bytes  # the first writing looks at what others left
        self._broken = most_bytes <= 0

    @contextmanager
    def open(self, key: str, num_bytes: int) -> "Iterator[CachedFile | None]":
        """Yield what is kept of a file, or None if nothing can be.

        Args:
            key: what tells the file from others, and from itself after a change.
            num_bytes: its size.
        """
        if self._broken or not num_bytes:
            yield None
            return
        digest = hashlib.blake2b(key.encode(errors="surrogateescape"), digest_size=16).hexdigest()
        path = self.folder / digest[:2] / digest
        try:
            make_folder(path.parent)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except PermissionError:  # of another user
            yield None
            return
        except (OSError, InputError) as error:
            self._give_up(error)
            yield None
            return
        try:
            yield CachedFile(self, file, num_bytes)
            with suppress(OSError):
                os.utime(path)
        finally:
            os.close(file)

    def wrote(self, num_bytes: int) -> None:
        """Count what was written, and delete what is too much."""
        self._written += num_bytes
        if self._written >= self.most_bytes / _CHECKS:
            self._written = 0
            self._trim()

    def _trim(self) -> None:
        found = []
        for folder in (item for item in os.scandir(self.folder) if item.is_dir(follow_symlinks=False)):
            for item in os.scandir(folder):
                with suppress(OSError):  # another process has deleted it
                    state = item.stat(follow_symlinks=False)
                    found.append((state.st_mtime_ns, 512 * state.st_blocks, item.path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.most_bytes:
                return
            with suppress(OSError):
                os.unlink(path)
            total -= size

    def _give_up(self, error: Exception) -> None:
        """A cache that cannot be written is not used."""
        if not self._broken:
            logger.warning(f"{self.folder}: nothing is kept of remote files ({error})")
        self._broken = True


class CachedFile:
    """The blocks of one remote file."""

    def __init__(self, cache: BlockCache, file: int, num_bytes: int) -> None:
        self.cache, self.file = cache, file
        self.start = -(-(len(_HEAD) + 4 * -(-num_bytes // BLOCK)) // _PAGE) * _PAGE

    def read(self, block: int) -> bytes | None:
        """A block, or None if it is not there as it was written. The last block of a file ends with its zeros."""
        try:
            checksum = int.from_bytes(os.pread(self.file, 4, len(_HEAD) + 4 * block), "little")
            data = os.pread(self.file, BLOCK, self.start + BLOCK * block) if checksum else b""
        except OSError:
            return None
        data = data.ljust(BLOCK, b"\0")
        return data if checksum and checksum == zlib.crc32(data) else None

    def write(self, block: int, data: bytes) -> None:
        """Keep a block."""
        data = data.ljust(BLOCK, b"\0")
        try:
            os.pwrite(self.file, _HEAD, 0)
            os.pwrite(self.file, data, self.start + BLOCK * block)
            os.pwrite(self.file, zlib.crc32(data).to_bytes(4, "little"), len(_HEAD) + 4 * block)
            self.cache.wrote(BLOCK)
        except OSError as error:
            self.cache._give_up(error)
