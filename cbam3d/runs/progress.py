"""Progress bars: in a terminal, in a notebook, and none where the output is a file."""

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from tqdm.auto import tqdm

from cbam3d.engine.progress import Progress

T = TypeVar("T")
logger = logging.getLogger(__name__)


def show_progress(items: Iterable[T], total: int, text: Callable[[], str], done: int = 0) -> Iterable[T]:
    """A bar with the text, the rate and the time left, which disappears at the end; see `engine.progress.Progress`."""
    with tqdm(items, text(), total, leave=False, disable=None, dynamic_ncols=True, initial=done) as bar:
        for item in bar:
            yield item
            bar.set_description(text(), refresh=False)


def over_files(progress: Progress, text: str) -> Callable[[Iterable[Any], int], Iterable[Any]]:
    """What shows the reading of files, given them and their number."""

    def show(files: Iterable[Any], total: int) -> Iterable[Any]:
        logger.info(f"{text} ({total} files) …")
        return progress(files, total, lambda: text)

    return show
