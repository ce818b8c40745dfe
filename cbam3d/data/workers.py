"""Processes that read for another."""

import os
import signal
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import BaseContext
from multiprocessing.util import Finalize
from types import FrameType

import torch


class WorkerSignals:
    """What a loader's workers do with signals; called in each of them as it starts.

    A signal to the whole group must not kill the readers before the process that they read for has stopped. That one
    ends the readers it has left, after an exception for example, by SIGTERM, and waits for them: they end then.
    """

    def __init__(self) -> None:
        self.main_ends = torch.zeros((), dtype=torch.bool).share_memory_()  # by fork and by spawn
        # before multiprocessing terminates the workers
        Finalize(self, self.main_ends.fill_, args=(True,), exitpriority=100)

    def __call__(self, worker: int) -> None:
        def end(number: int, frame: FrameType | None) -> None:
            if self.main_ends:
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
