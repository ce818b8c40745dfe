"""Which files are meant, and what results about them are called."""

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

from cbam3d.data.images import picture_suffixes
from cbam3d.errors import InputError
from cbam3d.files import is_hidden, make_folder
from cbam3d.storage import Place, Url, exists, files_below, is_stored, place_of
from cbam3d.video.container import VIDEO_SUFFIXES
from cbam3d.video.frames import IMAGE_SUFFIXES
from cbam3d.video.stream import is_stream


def find_files(paths: list[str], images: bool) -> list[Place]:
    """The files that are meant, by paths, patterns and URLs: each once, those of a folder in the order of their names.

    Raises:
        InputError: a path or pattern that leads to none.
    """
    suffixes = picture_suffixes() if images else set(VIDEO_SUFFIXES)
    found: dict[Place, None] = {}
    for text in paths:
        path = place_of(text) if is_stored(text) else Path(text)
        matches: Sequence[Place]
        if isinstance(path, Url):
            names = [] if exists(path) else sorted(name for name in files_below(path) if not is_hidden(Path(name)))
            matches = [path / name for name in names if Url(name).suffix.lower() in suffixes] if names else [path]
        elif path.is_dir():
            below = [file for file in path.rglob("*") if not is_hidden(file.relative_to(path))]
            matches = sorted(file for file in below if file.suffix.lower() in suffixes)
            if not matches and not images:  # videos as folders of images
                matches = sorted({file.parent for file in below if file.suffix.lower() in IMAGE_SUFFIXES})
        else:
            matches = [path] if path.is_file() else sorted(Path(name) for name in glob.glob(text, recursive=True))
        if not matches:
            raise InputError(f"{text}: no {'image' if images else 'video'} there")
        found |= dict.fromkeys(matches)
    return list(found)


def distinct(names: Iterable[str]) -> list[str]:
    """The names, repeated ones with a number: x, y, x -> x, y, x-2."""
    taken: dict[str, None] = {}
    for name in names:
        one, count = name, 1
        while one in taken:
            count += 1
            one = f"{name}-{count}"
        taken[one] = None
    return list(taken)


def targets_of(sources: list[str], folder: str | Path, *suffixes: str) -> list[tuple[Path, ...]]:
    """Where what is written about each source goes, a file for each suffix; the folder is made.

    Raises:
        InputError: onto one of the sources, or a folder that cannot be made.
    """
    stems = [f"camera{one}" if one.isdecimal() else Path(one.partition("?")[0]).stem for one in sources]
    made = make_folder(folder)
    targets = [tuple(made / f"{stem}{suffix}" for suffix in suffixes) for stem in distinct(stems)]
    originals = {Path(one).resolve() for one in sources if not is_stream(one)}
    if lost := [path for paths in targets for path in paths if path.resolve() in originals]:
        raise InputError(f"{lost[0]} would be overwritten: name another folder than {folder}")
    return targets
