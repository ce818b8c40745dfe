"""Errors of the user's input, in one line."""

import re
import sysconfig
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class InputError(ValueError):
    """Invalid input: a key, a path, a file. Its text is one line that states what and where.

    Examples:
        >>> import cbam3d
        >>> try:
        ...     cbam3d.load_config({"train.epohcs": 3})
        ... except cbam3d.errors.InputError as error:
        ...     print(error)
        unknown key 'train.epohcs': did you mean 'train.epochs'?
    """

    def __init__(self, text: str = "") -> None:
        super().__init__(" ".join(text.splitlines()))


class Stopped(Exception):
    """A command stopped early on request, with all that it did kept.

    Args:
        message: one line that states how to resume.
        status: of the process.

    Examples:
        >>> import cbam3d
        >>> try:
        ...     cbam3d.train({"config": "folder", "data.root": "videos", "train.max_hours": 1e-9}, run_dir="runs/short")
        ... except cbam3d.errors.Stopped as stopped:
        ...     stopped.status
        0
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def is_foreign(error: BaseException) -> bool:
    """Whether an error came out of code that is neither this package nor an installed library: the user's own, whose
    traceback is worth more than its text."""
    known = (Path(__file__).parent, Path(sysconfig.get_path("stdlib")))
    files = [Path(frame.f_code.co_filename) for frame, _ in traceback.walk_tb(error.__traceback__)]
    return not all(
        file.name.startswith("<")
        or {"site-packages", "dist-packages"}.intersection(file.parts)
        or any(file.is_relative_to(folder) for folder in known)
        for file in files
    )


def reason_of(error: BaseException) -> str:
    """The first line of an error's text, or its kind where it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


_SHOWN = 40  # names in a message


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The line that names the nearest known name, or where none is near, all of them, if they are few."""
    known = sorted(known)
    of_lower = {one.lower(): one for one in known}
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    near = near or [of_lower[one] for one in get_close_matches(name.lower(), of_lower, n=1, cutoff=0.6)]
    if near:
        return f"unknown {kind} {name!r}: did you mean {near[0]!r}?"
    rest = f", … ({len(known)} in all)" if len(known) > _SHOWN else ""
    return f"unknown {kind} {name!r}: known are {', '.join(known[:_SHOWN])}{rest}"


def counted(number: int, noun: str) -> str:
    """A number and what it counts: 1 video, 2,000 videos."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def check_options(owner: str, options: Iterable[str], known: Iterable[str]) -> None:
    """Raise ValueError for the first option that the owner does not have; the nearest known one is named."""
    for option in options:
        if option not in known:
            raise ValueError(unknown(f"option of {owner}", option, known))


def check_new_name(kind: str, name: str, taken: Iterable[str]) -> None:
    """Raise ValueError for a name to register that is taken or malformed."""
    if not re.fullmatch("[a-z][a-z0-9_]*", name) or name in taken:
        raise ValueError(f"a new {kind} needs a name of its own, in lower case and underscores, got {name!r}")
