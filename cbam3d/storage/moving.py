"""Whole files to and from wherever they are, and lists of them."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISDIR
from typing import Any

from cbam3d.errors import InputError
from cbam3d.files import atomic_write, make_folder
from cbam3d.storage import remote
from cbam3d.storage.places import Place, Url


def state_of(place: Place) -> tuple[int, int]:
    """Size in bytes and modification time in nanoseconds of a file; zeros if there is none. A folder, such as a video
    of numbered images, has the sum of its files' sizes and the latest of their times.

    Raises:
        InputError: a URL that cannot be asked for.
    """
    try:
        if isinstance(place, Url):
            return remote.state_of(place)[:2]
        state = os.stat(place)
        if S_ISDIR(state.st_mode):
            with os.scandir(place) as entries:
                states = [entry.stat() for entry in entries if entry.is_file()]
            return sum(one.st_size for one in states), max((one.st_mtime_ns for one in states), default=0)
    except (FileNotFoundError, IsADirectoryError):
        return 0, 0
    except (OSError, ValueError) as error:
        if isinstance(place, Url):
            raise _refused(place, error) from None
        return 0, 0
    return state.st_size, state.st_mtime_ns


def exists(place: Place) -> bool:
    """Whether there is a file."""
    return place.is_file() if isinstance(place, Path) else state_of(place) != (0, 0)


def files_below(root: Url, missing_ok: bool = False) -> dict[str, tuple[int, int]]:
    """The files of a remote folder and its subfolders: their paths below it, with size and time.

    Args:
        root: the folder.
        missing_ok: nothing there is no error.

    Raises:
        InputError: no such folder, forbidden, or no connection.
    """

    try:
        return {name: state[:2] for name, state in remote.list_below(root).items()}
    except OSError as error:
        if missing_ok and isinstance(error, FileNotFoundError):
            return {}
        raise _refused(root, error) from None


@contextmanager
def local_copy(place: Place) -> Iterator[Path]:
    """Yield a path of this machine with what is at a place, as long as the block lasts.

    Raises:
        InputError: it cannot be read; paths of this machine are not looked at.
    """
    if isinstance(place, Path):
        yield place
        return

    with tempfile.TemporaryDirectory(prefix="cbam3d-") as folder:
        path = Path(folder) / place.name
        try:
            remote.download(place, path, remote.state_of(place))
        except OSError as error:
            raise _refused(place, error) from None
        yield path


def kept_copy(place: Place, folder: Path) -> Path:
    """A path of this machine with what is at a place, for as long as it does not change.

    Args:
        place: of the file.
        folder: of the copies, one of each file.

    Raises:
        InputError: it cannot be read, or the copy not be written.
    """
    if isinstance(place, Path):
        return place

    try:
        state = remote.state_of(place)
        url, now = (hashlib.blake2b(repr(key).encode(), digest_size=8).hexdigest() for key in (place, state))
        path = make_folder(folder) / f"{url}-{now}-{place.name}"
        if not path.exists():
            with atomic_write(path) as unfinished:
                remote.download(place, unfinished, state)
            for older in folder.glob(f"{url}-*"):
                if older != path:
                    older.unlink(missing_ok=True)
    except OSError as error:
        raise _refused(place, error) from None
    return path


@contextmanager
def written(place: Place) -> Iterator[Path]:
    """Yield a path to write to. What is there is at the place when the block ends, and nowhere when it fails: readers
    find the whole file, the previous one, or none.

    Raises:
        InputError: it cannot be written.
    """
    if isinstance(place, Path):
        make_folder(place.parent)
        with atomic_write(place) as unfinished:
            yield unfinished
        return

    with tempfile.TemporaryDirectory(prefix="cbam3d-") as folder:
        path = Path(folder) / place.name
        yield path
        if path.exists():
            try:
                remote.upload(path, place)
            except (OSError, NotImplementedError) as error:
                raise InputError(f"{place}: cannot be written ({error})") from None


def remove(place: Place) -> None:
    """Remove a file, or a folder of files, if it is there.

    Raises:
        InputError: it cannot be removed from a URL.
        OSError: or from here.
    """
    if isinstance(place, Url):
        try:
            remote.delete(place)
        except OSError as error:
            raise _refused(place, error) from None
        return
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


class Refused(InputError):
    """A file that is missing or forbidden, by the server's final answer."""

    def __init__(self, place: Url, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place, self.reason = place, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return Refused, (self.place, self.reason)


def _refused(place: Url, error: Exception) -> InputError:
    reason = str(getattr(error, "strerror", None) or error)
    if isinstance(error, (FileNotFoundError, PermissionError)):
        return Refused(place, reason)
    return InputError(f"{place}: {reason}")
