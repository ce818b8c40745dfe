"""Read a file wherever it is: of this machine, a part of a file, or at a URL."""

import io
import math
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cbam3d.storage import remote
from cbam3d.storage.cache import BLOCK, BlockCache, CachedFile
from cbam3d.storage.places import Part, Url, is_url, place_of
from cbam3d.storage.remote import State

_MOST_AHEAD = 128  # blocks of one request while a file is read in order: 4 MiB
_MOST_HELD = 1024  # blocks in memory: 32 MiB
_SAME_SECONDS = 60.0  # that an archive, of which one part is read after the other, is taken to be the same
_NEAR = 4  # blocks: so much between two others is read with them: a request takes as long

Source = str | os.PathLike[str] | Part


class OpenFile(io.RawIOBase):
    """A file that is read at any place.

    Args:
        name: for messages, and by its suffix for FFmpeg.
        num_bytes: its size.
        changed_ns: its modification time, or 0.
    """

    def __init__(self, name: str, num_bytes: int, changed_ns: int) -> None:
        self.name, self.num_bytes, self.changed_ns = name, num_bytes, changed_ns
        self.at = 0
        self.path = ""  # of a whole file of this machine, which FFmpeg reads faster by itself
        self.failure = ""  # why a read failed; to FFmpeg, whose callbacks cannot raise, it is the end of the file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.num_bytes}[whence])
        return self.at

    def read(self, size: int = -1) -> bytes:
        stop = self.num_bytes if size < 0 else min(self.at + size, self.num_bytes)
        if stop <= self.at or self.failure:
            return b""
        try:
            data = self.range(self.at, stop)
        except OSError as error:
            self.failure = error.strerror or str(error)
            return b""
        self.at += len(data)
        return data

    def range(self, start: int, stop: int) -> bytes:
        """The bytes of a range within the file."""
        raise NotImplementedError

    def prepare(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Read ranges ahead, where it takes long: the first byte of each, and the last plus 1."""


class _LocalFile(OpenFile):
    def __init__(self, file: BinaryIO, name: str, changed_ns: int, start: int, num_bytes: int) -> None:
        super().__init__(name, num_bytes, changed_ns)
        self.file, self.start = file, start

    def range(self, start: int, stop: int) -> bytes:
        self.file.seek(self.start + start)
        data = self.file.read(stop - start)
        if len(data) < stop - start:
            raise ConnectionError(None, f"the file ends within {self.name}")
        return data


class _RemoteFile(OpenFile):
    """Reads whole blocks, and those in order in ever larger requests."""

    def __init__(
        self,
        url: Url,
        state: State,
        name: str,
        kept: CachedFile | None,
        seconds: float,
        start: int,
        num_bytes: int,
    ) -> None:
        super().__init__(name, num_bytes, state[1])
        self.url, self.size, self.kept, self.seconds, self.start = url, state[0], kept, seconds, start
        self.blocks: OrderedDict[int, bytes] = OrderedDict()
        self.expected, self.pace = -1, 1  # the block that follows the last request, and blocks of the next one

    def range(self, start: int, stop: int) -> bytes:
        start, stop = self.start + start, self.start + stop
        first, last = start // BLOCK, (stop - 1) // BLOCK
        if last - first >= _MOST_HELD // 2:
            middle = (start + stop) // 2 - self.start
            return self.range(start - self.start, middle) + self.range(middle, stop - self.start)
        missing = [block for block in range(first, last + 1) if not self._has(block)]
        if missing:
            self.pace = min(2 * self.pace, _MOST_AHEAD) if missing[0] == self.expected else 1
            self.expected = min(max(missing[-1] + 1, missing[0] + self.pace), self._num_blocks())
            self._fetch([block for block in range(missing[0], self.expected) if not self._has(block)])
        data = b"".join(self.blocks[block] for block in range(first, last + 1))
        return data[start - first * BLOCK : stop - first * BLOCK]

    def prepare(self, ranges: Sequence[tuple[int, int]]) -> None:
        blocks = dict.fromkeys(
            block
            for start, stop in sorted(ranges)
            for block in range((self.start + start) // BLOCK, -(-(self.start + stop) // BLOCK))
        )
        try:
            self._fetch([block for block in blocks if not self._has(block)][: _MOST_HELD // 2])
        except OSError as error:
            self.failure = error.strerror or str(error)

    def _num_blocks(self) -> int:
        return -(-self.size // BLOCK)

    def _has(self, block: int) -> bool:
        """Whether a block is in memory; those of the cache are then."""
        if block in self.blocks:
            self.blocks.move_to_end(block)
            return True
        data = self.kept.read(block) if self.kept else None
        if data is not None:
            self._hold(block, data)
        return data is not None

    def _fetch(self, blocks: list[int]) -> None:
        """Read blocks, ascending, in one request for those near each other, all at once."""
        runs: list[tuple[int, int]] = []
        for block in blocks:
            if runs and block - runs[-1][1] <= _NEAR:
                runs[-1] = runs[-1][0], block + 1
            else:
                runs.append((block, block + 1))
        ranges = [(first * BLOCK, min(end * BLOCK, self.size)) for first, end in runs]
        for (first, end), data in zip(runs, remote.read_ranges(self.url, ranges, self.size, self.seconds), strict=True):
            for block in range(first, end):
                part = data[(block - first) * BLOCK : (block - first + 1) * BLOCK]
                self._hold(block, part)
                if self.kept:
                    self.kept.write(block, part)

    def _hold(self, block: int, data: bytes) -> None:
        self.blocks[block] = data
        while len(self.blocks) > _MOST_HELD:
            self.blocks.popitem(last=False)


@contextmanager
def open_file(source: Source, seconds: float = 60.0, cache: BlockCache | None = None) -> Iterator[OpenFile]:
    """Yield a file to read from.

    Args:
        source: a path, a URL, or a part of what one of them names.
        seconds: after which a failing request is not repeated.
        cache: what is kept of remote files.

    Raises:
        OSError: no such file, forbidden, or no connection.
        InputError: a URL that is not supported here.
    """
    part = source if isinstance(source, Part) else None
    within = place_of(part.within if part else source)  # type: ignore[arg-type]
    name = part.name if part else within.name
    if isinstance(within, Url):
        state = _state_of(within, seconds, _SAME_SECONDS if part else 0.0)
        start, size = (part.start, part.num_bytes) if part else (0, state.num_bytes)
        if start + size > state.num_bytes:
            raise FileNotFoundError(None, f"{within} ends before it")
        key = "\n".join((within, *map(str, state)))
        with (cache or BlockCache(Path(), 0)).open(key, state.num_bytes) as kept:
            yield _RemoteFile(within, state, name, kept, seconds, start, size)
        return
    if not stat.S_ISREG(os.stat(within).st_mode):  # opening a pipe would wait for who writes to it
        raise IsADirectoryError(None, "not a file")
    with open(within, "rb") as file:
        state = os.fstat(file.fileno())
        start, size = (part.start, part.num_bytes) if part else (0, state.st_size)
        if start + size > state.st_size:
            raise FileNotFoundError(None, f"{within} ends before it")
        found = _LocalFile(file, name, state.st_mtime_ns, start, size)
        found.path = "" if part else str(within)
        yield found


def _state_of(url: Url, seconds: float, age: float) -> State:
    """The state of a remote file, at most `age` seconds old."""
    asked, state = _states.get(url, (-math.inf, None))
    if state is None or time.monotonic() - asked > age:
        state = remote.state_of(url, seconds)
        if age:
            _states[url] = time.monotonic(), state
    return state


_states: dict[Url, tuple[float, State]] = {}


def is_local(source: Source) -> bool:
    """Whether a source is a whole file of this machine."""
    return not isinstance(source, Part) and not is_url(os.fspath(source))
