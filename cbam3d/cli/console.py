"""What is shown: messages of the library, and tables."""

import logging
import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

_STYLES = {logging.WARNING: "yellow", logging.ERROR: "red"}


def console(stderr: bool = False) -> Console:
    """Where something is shown: of several processes, only the first one shows anything. Paths are no markup."""
    return Console(stderr=stderr, quiet=not _is_first(), soft_wrap=True, markup=False, highlight=False)


class Messages(logging.Handler):
    """Shows what the library logs, above a progress bar where there is one.

    Args:
        stderr: show it there, where the output is for other programs.
    """

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(logging.INFO)
        self.stderr = stderr

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{logging.Formatter().formatException(record.exc_info)}"
        with tqdm.external_write_mode():
            console(self.stderr).print(text, style=_STYLES.get(record.levelno))


def install_messages(stderr: bool = False) -> Callable[[], None]:
    """Show what the library logs from now on; returns what ends that."""
    logger, handler = logging.getLogger("cbam3d"), Messages(stderr)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)

    def end() -> None:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before

    return end


def table_of(rows: Sequence[Sequence[str]], **options: str) -> Table:
    """A table whose first row is its header; numbers, behind the first column, are flush right."""
    header, *others = rows
    table = Table(title_justify="left", caption_justify="left", **options)  # type: ignore[arg-type]
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left", overflow="fold")
    for cells in others:
        table.add_row(*cells)
    return table


def _is_first() -> bool:
    torch = sys.modules.get("torch")  # before it is imported there is one process
    if torch is None or not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return True
    return torch.distributed.get_rank() == 0
