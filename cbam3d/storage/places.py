"""Where a file or folder is: a path of this machine, a URL, or a part of a file."""

import os
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from cbam3d.errors import InputError, unknown

SCHEMES = ("s3", "gs", "https", "http")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


class Url(str):
    """The URL of a file or folder, joined and taken apart like a path."""

    def __truediv__(self, name: str | os.PathLike[str]) -> "Url":
        return Url(f"{self.rstrip('/')}/{os.fspath(name)}")

    @property
    def parent(self) -> "Url":
        """
        Raises:
            InputError: of a bucket or host.
        """
        if self.rstrip("/").count("/") <= 2:
            raise InputError(f"{self}: name a folder in it")
        return Url(self.rstrip("/").rpartition("/")[0])

    @property
    def name(self) -> str:
        return self.rstrip("/").rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return os.path.splitext(self.name)[1]

    def with_name(self, name: str) -> "Url":
        return self.parent / name


Place = Path | Url


class Part(NamedTuple):
    """A file within a file, such as a member of a tar archive.

    Examples:
        >>> from pathlib import Path
        >>> from cbam3d.storage import Part
        >>> Part(Path("shards/train-000000.tar"), start=512, num_bytes=227_000, name="000000000.avi").name
        '000000000.avi'
    """

    within: Place
    start: int  # bytes
    num_bytes: int
    name: str

    def __str__(self) -> str:
        return f"{self.within}: {self.name}"


def is_url(text: str) -> bool:
    """Whether a text is a URL rather than a path."""
    return _SCHEME.match(text) is not None


def is_stored(text: str | os.PathLike[str]) -> bool:
    """Whether a text is the URL of a file, and not of a stream, which those of the web may be."""
    match = _SCHEME.match(os.fspath(text))
    return match is not None and match[1].lower() in ("s3", "gs", "file")


def place_of(text: str | os.PathLike[str]) -> Place:
    """The place that a path or URL (s3, gs, https, http, file) names.

    Raises:
        InputError: a URL of another kind, or with a password.
    """
    if isinstance(text, Url):
        return text
    text = os.fspath(text)
    match = _SCHEME.match(text)
    if match is None:
        return Path(text)
    scheme, parts = match[1].lower(), urlsplit(text)
    if scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise InputError(f"{text}: a file of another machine")
        return Path(unquote(parts.path))
    if scheme not in SCHEMES:
        raise InputError(f"{text}: {unknown('kind of URL', scheme, (*SCHEMES, 'file'))}")
    if "@" in parts.netloc:
        raise InputError(f"{scheme}://…@{parts.netloc.rpartition('@')[2]}: no names and passwords in URLs")
    return Url(text.rstrip("/"))
