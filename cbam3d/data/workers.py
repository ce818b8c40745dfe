"""Processes that read for another."""

import signal
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import BaseContext


def leave_signals_to_the_main_process(worker: int = 0) -> None:
    """A signal to the whole group must not kill the readers before the process that they read for has stopped."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def fresh_processes(preload: str) -> BaseContext:
    """A way to start processes that is not fork: this one may have threads, or a GPU in use. `preload` is a module."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([preload])
    return context
