"""Data sets that cbam3d renders itself."""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cbam3d.data import digits, motion, motion_events
from cbam3d.data.manifest import DUPLICATES_NAME, JOURNAL_NAME, TABLE_NAME
from cbam3d.errors import InputError
from cbam3d.video.index import INDEX_NAME

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Rendered:
    render: Callable[[Path], int]
    folders: Collection[str]  # that it writes
    num_files: int
    what: str


_EVENTS = motion_events.NUM_VIDEOS, sum(motion_events.NUM_VIDEOS.values()), "videos of motions at known times"
_RENDERED = {
    "motion": _Rendered(motion.render, motion.CLASSES, len(motion.CLASSES) * motion.NUM_GROUPS, "videos of motions"),
    "motion_events": _Rendered(motion_events.render, *_EVENTS),
    "motion_pairs": _Rendered(partial(motion_events.render, at_once=2), *_EVENTS),
    "digits": _Rendered(digits.render, digits.NUM_IMAGES, sum(digits.NUM_IMAGES.values()), "images of digits"),
}


def render_missing(recipe: str, root: Path) -> bool:
    """Render the files of a data set of our own, where they are missing; returns whether it is one.

    Args:
        recipe: the name of the data set.
        root: the folder.

    Raises:
        InputError: the folder holds something else, or a package is missing.
    """
    if recipe not in _RENDERED:
        return False
    rendered = _RENDERED[recipe]
    expected = {*rendered.folders, TABLE_NAME, INDEX_NAME, JOURNAL_NAME, "annotations.csv", DUPLICATES_NAME}
    if root.is_dir() and (foreign := sorted({item.name for item in root.iterdir()} - expected)):
        raise InputError(f"{root} holds {foreign[0]}: {recipe} is not rendered there; name a data.recipe")
    if sum(1 for path in root.glob("*/**/*.*") if path.is_file()) < rendered.num_files:
        logger.info(f"rendering {rendered.num_files} {rendered.what} into {root} …")
        rendered.render(root)
    return True
