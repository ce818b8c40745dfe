"""Progress: bars in a terminal and in a notebook, and where the output is a file a line a minute."""

import logging
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any, TypeVar

from cbam3d.engine.progress import Progress

if find_spec("ipywidgets") is None:  # without which a notebook would show no bar, and say no word
    from tqdm import tqdm
else:
    from tqdm.auto import tqdm

T = TypeVar("T")
logger = logging.getLogger(__name__)

_LINE_SECONDS = 60.0


def show_progress(items: Iterable[T], total: int, text: Callable[[], str], done: int = 0) -> Iterable[T]:
    """A bar with the text, the rate and the time left, which disappears at the end; see `engine.progress.Progress`."""
    with tqdm(items, text(), total, leave=False, disable=None, dynamic_ncols=True, initial=done) as bar:
        if bar.disable:  # no terminal
            yield from _in_lines(items, total, text, done)
            return
        for item in bar:
            yield item
            bar.set_description(text(), refresh=False)


def _in_lines(items: Iterable[T], total: int, text: Callable[[], str], done: int) -> Iterable[T]:
    """Log a line a minute: how many items are done, the rate and the time left."""
    began = said = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - said >= _LINE_SECONDS:
            said, rate = now, count / (now - began)
            left = tqdm.format_interval(max(0, total - done - count) / rate)
            at = f"{done + count:,} of {total:,} ({(done + count) / total:.0%})" if total else f"{done + count:,}"
            logger.info(f"{text()}: {at}, {rate:.3g}/s" + (f", {left} left" if total else ""))


def over_files(progress: Progress, text: str) -> Callable[[Iterable[Any], int], Iterable[Any]]:
    """What shows the reading of files, given them and their number."""

    def show(files: Iterable[Any], total: int) -> Iterable[Any]:
        logger.info(f"{text} ({total} files) …")
        return progress(files, total, lambda: text)

    return show
