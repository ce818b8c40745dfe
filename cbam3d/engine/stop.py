"""Requests to stop: the loop checks them between two steps."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether the run should stop: SIGTERM (pre-emption), SIGINT (Ctrl-C), or the end of its time.

    Args:
        max_hours: maximum duration from now; None for no limit.
    """

    def __init__(self, max_hours: float | None = None) -> None:
        self.until = None if max_hours is None else time.monotonic() + 3600 * max_hours
        self.signal: signal.Signals | None = None

    @property
    def reason(self) -> str:
        """Why it should stop; empty if it should not."""
        if self.signal is not None:
            return self.signal.name
        return "train.max_hours is over" if self.until is not None and time.monotonic() > self.until else ""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within, the first signal is a request; a second SIGINT interrupts at once. Python handles signals in the main
        thread only: in another thread nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGINT and self.signal is not None:
                raise KeyboardInterrupt
            self.signal = signal.Signals(number)

        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def exits_on_sigterm() -> Iterator[None]:
    """Within, SIGTERM raises SystemExit, so that cleanup runs; in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
