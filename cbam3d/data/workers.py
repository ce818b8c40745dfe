"""Worker processes: how many, signals, and start methods."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_all_start_methods, get_start_method, spawn
from multiprocessing.context import BaseContext, ForkServerContext, ForkServerProcess, SpawnContext, SpawnProcess
from multiprocessing.util import Finalize
from threading import Lock, get_ident
from types import FrameType
from typing import Any

import torch

from cbam3d.data.malloc import return_freed_memory


def num_cores() -> int:
    """How many cores this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Worker:
    """Signals and memory of loader workers; called in each worker as it starts.

    A signal to the process group must not kill the workers before the main process has stopped. At exit, after an
    exception for example, the main process sends them SIGTERM and waits for them: only then do they end.
    """

    def __init__(self) -> None:
        self.main_ends = torch.zeros((), dtype=torch.bool).share_memory_()  # with fork and with spawn
        # before multiprocessing terminates the workers
        Finalize(self, self.main_ends.fill_, args=(True,), exitpriority=100)

    def __call__(self, worker: int) -> None:
        def end(number: int, frame: FrameType | None) -> None:
            if self.main_ends:
                os._exit(0)

        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, end)
        return_freed_memory()


def fresh_processes(preload: str) -> BaseContext:
    """A start method other than fork, as this process may have threads or a GPU in use. `preload` is a module."""
    if "forkserver" not in get_all_start_methods():
        return _Spawn()
    context = _ForkServer()
    context.set_forkserver_preload([preload])
    return context


def loader_processes() -> BaseContext | None:
    """The start method of loader workers; None for fork, if that is the default."""
    method = get_start_method()
    return None if method == "fork" else _Spawn() if method == "spawn" else _ForkServer()


@contextmanager
def _without_main() -> Iterator[None]:
    """Within, a process that this thread starts does not run the main module again: a script needs no `__main__` guard
    then. Nothing of ours is defined there."""
    thread = get_ident()

    def without_main(name: str) -> dict[str, Any]:
        facts: dict[str, Any] = original(name)
        if get_ident() != thread:
            return facts
        return {key: value for key, value in facts.items() if not key.startswith("init_main_")}

    with _lock:
        original, spawn.get_preparation_data = spawn.get_preparation_data, without_main
        try:
            yield
        finally:
            spawn.get_preparation_data = original


class _Spawn(SpawnContext):
    class Process(SpawnProcess):
        @staticmethod
        def _Popen(process_obj: Any) -> Any:
            with _without_main():
                return SpawnProcess._Popen(process_obj)  # type: ignore[attr-defined]


class _ForkServer(ForkServerContext):
    class Process(ForkServerProcess):
        @staticmethod
        def _Popen(process_obj: Any) -> Any:
            with _without_main():
                return ForkServerProcess._Popen(process_obj)  # type: ignore[attr-defined]


_lock = Lock()
