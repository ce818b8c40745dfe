"""Processes that read for another."""

import os
import signal
from multiprocessing import Event, get_all_start_methods, get_context
from multiprocessing.context import BaseContext
from multiprocessing.synchronize import Event as EventType
from multiprocessing.util import Finalize
from types import FrameType


class WorkerSignals:
    """What a loader's workers do with signals; called in each of them as it starts.

    A signal to the whole group must not kill the readers before the process that they read for has stopped. That one
    ends the readers it has left, after an exception for example, by SIGTERM, and waits for them: they end then.
    """

    def __init__(self) -> None:
        self.main_ends: EventType = Event()
        Finalize(self, self.main_ends.set, exitpriority=100)  # before multiprocessing terminates the workers

    def __call__(self, worker: int) -> None:
        def end(number: int, frame: FrameType | None) -> None:
            if self.main_ends.is_set():
                os._exit(0)

        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, end)


def fresh_processes(preload: str) -> BaseContext:
    """A way to start processes that is not fork: this one may have threads, or a GPU in use. `preload` is a module."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([preload])
    return context
