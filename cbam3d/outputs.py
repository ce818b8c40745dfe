"""Where results go."""

from collections.abc import Iterable
from pathlib import Path

from cbam3d.errors import InputError


def make_folder(path: str | Path) -> Path:
    """The folder, made where it is missing.

    Raises:
        InputError: it cannot be made, or something else has its name.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be used as a folder ({error.strerror})") from None
    return Path(path)


def distinct(names: Iterable[str]) -> list[str]:
    """The names, those that were there before with a number behind: x, y, x -> x, y, x-2."""
    taken: dict[str, None] = {}
    for name in names:
        one, count = name, 1
        while one in taken:
            count += 1
            one = f"{name}-{count}"
        taken[one] = None
    return list(taken)
