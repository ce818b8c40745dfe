"""How an iteration that takes long is shown: one call around it."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Yields the items of an iteration, and shows how far it is."""

    def __call__(self, items: Iterable[T], total: int, text: Callable[[], str], done: int = 0) -> Iterable[T]:
        """
        Args:
            items: what is iterated over.
            total: number of items, those done before included.
            text: what is going on, asked for after each item.
            done: items that were done before.
        """
        ...


def no_progress(items: Iterable[T], total: int, text: Callable[[], str], done: int = 0) -> Iterable[T]:
    """Show nothing."""
    return items


@contextmanager
def ended(items: Iterable[T]) -> Iterator[Iterator[T]]:
    """An iterator that is closed at the end of the context, rather than when nothing knows it any more: a notebook
    keeps what the last exception saw."""
    iterator = iter(items)
    try:
        yield iterator
    finally:
        if (close := getattr(iterator, "close", None)) is not None:
            close()
