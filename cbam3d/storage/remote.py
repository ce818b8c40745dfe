"""Files at URLs, by fsspec (https://filesystem-spec.readthedocs.io), which needs the extra `storage`.

fsspec rather than pyarrow.fs, which is there anyway: it reads https as well, and works in processes that were forked
after it was used. Credentials, regions and endpoints are those of the environment, as each kind of storage defines
them. A request that fails is repeated after growing delays, unless the answer is final.
"""

import logging
import random
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import fsspec

from cbam3d.errors import InputError
from cbam3d.storage.places import Url

T = TypeVar("T")
logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # errors are raised

_ATTEMPTS = 8
_FIRST_DELAY, _LONGEST_DELAY = 0.2, 5.0  # seconds
_CONNECT_SECONDS, _SILENCE_SECONDS = 10, 20  # until a request is given up
_LIBRARIES = {"aiohttp", "aiobotocore", "botocore", "fsspec", "gcsfs", "google", "requests", "s3fs", "urllib3"}
_FINAL = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ParamValidationError"}
_FINAL |= {"ProfileNotFound", "NoRegionError", "InvalidURL", "NonHttpUrlClientError", "DefaultCredentialsError"}


class State(NamedTuple):
    """What tells a file from what it was before."""

    num_bytes: int
    changed_ns: int  # 0 if it is not known
    tag: str  # of its content, as the server gives it; may be empty


def attempt(url: Url, action: Callable[[Any, str], T], seconds: float = 60.0) -> T:
    """The result of `action`, given the file system of a URL and the path in it.

    Args:
        url: where.
        action: is repeated, so it must be possible to do it twice.
        seconds: after which it is not begun again.

    Raises:
        FileNotFoundError: no such file, folder or bucket.
        PermissionError: forbidden, or no credentials.
        ConnectionError: all attempts failed.
        InputError: the extra is not installed.
    """
    until, delay = time.monotonic() + seconds, _FIRST_DELAY
    attempts = 1 if url.lower().startswith("gs:") else _ATTEMPTS  # gcsfs repeats requests by itself
    for number in range(1, attempts + 1):
        try:
            return action(*_file_system(url))
        except ImportError as error:
            raise InputError(f'{url}: not installed (pip install "cbam3d[storage]"; {error})') from None
        except Exception as error:
            if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in _LIBRARIES:
                raise
            cause = error.__cause__
            if not (isinstance(error, FileNotFoundError) and type(cause).__module__.startswith("aiohttp")):
                cause = error  # else fsspec calls any failure so
            reason = _reason_of(cause or error)
            _raise_if_final(cause or error, url, reason)
            if number == attempts or time.monotonic() + delay > until:
                raise ConnectionError(None, f"no answer in {number} attempts: {reason}") from None
            time.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(2 * delay, _LONGEST_DELAY)
    raise AssertionError


def state_of(url: Url, seconds: float = 60.0) -> State:
    """Size and time of a file.

    Raises:
        OSError: see `attempt`; also of a folder, or a file whose size the server does not tell.
    """

    def ask(files: Any, path: str) -> State:
        facts = files.info(path)
        if facts.get("type") == "directory":
            raise IsADirectoryError(None, "a folder")
        if facts.get("size") is None:
            raise PermissionError(None, "the server does not tell its size")
        return _state(facts)

    return attempt(url, ask, seconds)


def read_ranges(url: Url, ranges: list[tuple[int, int]], size: int, seconds: float = 60.0) -> list[bytes]:
    """Parts of a file, asked for at once.

    Args:
        url: of the file.
        ranges: the first byte of each, and the last plus 1.
        size: of the whole file.
        seconds: see `attempt`.

    Raises:
        OSError: see `attempt`.
    """
    found = dict[tuple[int, int], bytes]()

    def ask(files: Any, path: str) -> None:
        missing = [one for one in ranges if one not in found]
        paths, (starts, stops) = [path] * len(missing), zip(*missing, strict=True)
        given = files.cat_ranges(paths, list(starts), list(stops), on_error="return")
        for (start, stop), data in zip(missing, given, strict=True):
            if isinstance(data, Exception):
                raise data
            if len(data) == size:  # servers may give the whole file
                data = data[start:stop]
            if len(data) != stop - start:
                raise ConnectionResetError(None, f"cut off ({len(data):,} of {stop - start:,} bytes)")
            found[start, stop] = data

    if ranges:
        attempt(url, ask, seconds)
    return [found[one] for one in ranges]


def list_below(url: Url) -> dict[str, State]:
    """All files of a folder and its subfolders: their paths below it.

    Raises:
        OSError: see `attempt`; no file at all is a FileNotFoundError.
    """

    def ask(files: Any, path: str) -> dict[str, State]:
        root, found = path.rstrip("/"), {}
        for name, facts in files.find(root, detail=True).items():
            if name.startswith(f"{root}/"):
                found[name[len(root) + 1 :]] = _state(facts)
        return found

    found = attempt(url, ask, 600)
    if not found:
        raise FileNotFoundError(None, "no such folder, or an empty one")
    return found


def download(url: Url, path: Path, state: State, seconds: float = 600.0) -> None:
    """Copy a file to a path.

    Raises:
        OSError: see `attempt`.
    """
    size = state.num_bytes
    with open(path, "wb") as file:
        for start in range(0, size, _PIECE):
            file.write(*read_ranges(url, [(start, min(start + _PIECE, size))], size, seconds))


def upload(path: Path, url: Url) -> None:
    """Copy a file to a URL.

    Raises:
        OSError: see `attempt`.
    """
    attempt(url, lambda files, there: files.put_file(str(path), there), 600)


def delete(url: Url) -> None:
    """Delete a file, or a folder with all that is in it; nothing may be there.

    Raises:
        OSError: see `attempt`.
    """
    try:
        attempt(url, lambda files, path: files.rm(path, recursive=True))
    except FileNotFoundError:
        return


_PIECE = 8 << 20  # bytes of a request, when a whole file is read


def _file_system(url: Url) -> tuple[Any, str]:
    """A process and a thread have their own; fsspec keeps them."""
    scheme = url.partition("://")[0].lower()
    options: dict[str, Any] = {"use_listings_cache": False}
    if scheme == "s3":
        limits = {"connect_timeout": _CONNECT_SECONDS, "read_timeout": _SILENCE_SECONDS, "retries": {"max_attempts": 1}}
        options["config_kwargs"] = limits
    elif scheme != "gs":
        from aiohttp import ClientTimeout

        limit = ClientTimeout(sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS)
        options["client_kwargs"] = {"timeout": limit, "trust_env": True}
    files = fsspec.filesystem(scheme, **options)
    files.retries = 1  # of s3fs: `attempt` does it
    return files, files._strip_protocol(url)


def _state(facts: dict[str, Any]) -> State:
    changed = facts.get("LastModified") or facts.get("mtime") or facts.get("updated")
    changed_ns = int(changed.timestamp()) * 10**9 if isinstance(changed, datetime) else 0  # not all answers have more
    tag = facts.get("ETag") or facts.get("etag") or facts.get("Last-Modified") or ""
    return State(int(facts["size"] or 0), changed_ns, str(tag))


def _raise_if_final(error: BaseException, url: Url, reason: str) -> None:
    status = getattr(error, "status", None) or getattr(error, "code", None)
    if isinstance(error, (FileNotFoundError, IsADirectoryError)) or status == 404:
        raise FileNotFoundError(None, _missing(error, url, reason)) from None
    if isinstance(error, PermissionError) or status in (401, 403):
        raise PermissionError(None, reason if "forbidden" in reason else f"forbidden ({reason})") from None
    if type(error).__name__ in _FINAL or (isinstance(status, int) and 400 <= status < 500 and status not in (408, 429)):
        raise PermissionError(None, reason) from None


def _missing(error: BaseException, url: Url, reason: str) -> str:
    if "bucket does not exist" in reason or "nosuchbucket" in reason.replace(" ", ""):
        return f"no such bucket: {url.partition('://')[2].partition('/')[0]}"
    return "a folder" if isinstance(error, IsADirectoryError) else "no such file"


def _reason_of(error: BaseException) -> str:
    """One line without the URL, which may hold a signature."""
    if (status := getattr(error, "status", None)) is not None:
        return f"HTTP {status} {getattr(error, 'message', '')}".strip()
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:200].lower()
