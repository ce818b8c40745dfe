"""A folder of videos -> its manifest: every file is found, matched to the recipe and decoded once."""

import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import TimeoutError
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from threading import BrokenBarrierError
from typing import Any

from pebble import ProcessExpired, ProcessPool

from cbam3d.data.copies import Copies
from cbam3d.data.journal import Journal
from cbam3d.data.listing import Listing
from cbam3d.data.manifest import Manifest, from_rows
from cbam3d.data.probe import Copy, VideoInfo, probe_video
from cbam3d.data.workers import fresh_processes
from cbam3d.errors import InputError

_GRACE_SECONDS = 10.0  # the decoder keeps the limit by itself, unless it hangs inside of FFmpeg: then it is killed

Progress = Callable[[Iterable[Any], int], Iterable[Any]]


@dataclass(frozen=True)
class Scan:
    """What reading a folder gave."""

    manifest: Manifest  # sorted by path
    fingerprints: list[bytes]  # of its rows, see fingerprint.py


def scan_videos(
    root: Path,
    listing: Listing,
    workers: int | None = None,
    timeout_seconds: float = 600.0,
    journal: Path | None = None,
    copies: Copies | None = None,
    progress: Progress = lambda items, total: items,
) -> Scan:
    """Read every listed video once. A file that crashes or hangs the decoder is named, and the others go on.

    Args:
        root: folder of the videos.
        listing: which they are.
        workers: processes that decode; None for one a core.
        timeout_seconds: how long a file may take.
        journal: file that keeps what is known while the scan goes on; a scan that was broken off continues.
        copies: to be written as well.
        progress: wraps the iteration over the files, given it and their number.

    Raises:
        InputError: a copy cannot be written.
    """
    rows = listing.found
    tasks = [(row["path"], copies.of(row["path"]) if copies else None) for row in rows if not row["problem"]]
    settings = [copies.short_side, copies.gop, str(copies.root)] if copies else []
    notes = Journal(journal, root, {"copies": settings})
    infos = progress(_probe_all(root, tasks, workers or os.cpu_count() or 1, timeout_seconds, notes), len(tasks))
    found = dict(zip((path for path, _ in tasks), infos, strict=True))
    # a file in the wrong place is not read
    measured = [{**asdict(found.get(row["path"], VideoInfo())), **row} for row in rows]
    for row in measured:
        row["problem"] = row["problem"] or found[row["path"]].problem
    measured.sort(key=lambda row: row["path"])
    return Scan(from_rows(measured), [row["fingerprint"] for row in measured])


def _probe_all(
    root: Path, tasks: list[tuple[str, Copy | None]], workers: int, timeout_seconds: float, journal: Journal
) -> Iterator[VideoInfo]:
    known = journal.read()
    todo = [(root / path, timeout_seconds, copy) for path, copy in tasks if not _is_done(known.get(path), copy)]
    workers, context = max(1, min(workers, len(todo))), fresh_processes("cbam3d.data.probe")
    meeting = context.Barrier(workers), context.Event()
    pool = ProcessPool(workers, initializer=_begin, initargs=meeting, context=context)
    try:
        results = pool.map(_probe, todo, timeout=timeout_seconds + _GRACE_SECONDS).result() if todo else iter(())
        for path, copy in tasks:
            if _is_done(known.get(path), copy):
                yield known[path]
            else:
                info = _outcome(results, timeout_seconds)
                journal.note(path, info)
                yield info
    finally:
        pool.stop()
        pool.join()


def _is_done(info: VideoInfo | None, copy: Copy | None) -> bool:
    return info is not None and (copy is None or not info.num_frames or copy.path.exists())


def _outcome(results: Iterator[VideoInfo], timeout_seconds: float) -> VideoInfo:
    try:
        return next(results)
    except TimeoutError:
        return VideoInfo(problem=f"timeout (not read within {timeout_seconds:g} seconds)")
    except ProcessExpired as error:
        return VideoInfo(problem=f"crashes the decoder (exit code {error.exitcode})")
    except InputError:  # of the copies: the other files would fare the same
        raise
    except Exception as error:  # one file must not cost the others
        logging.getLogger(__name__).exception("reading a video failed unexpectedly")
        return VideoInfo(problem=f"unexpected {type(error).__name__} ({' '.join(str(error).split())[:200]})")


def _probe(task: tuple[Path, float, Copy | None]) -> VideoInfo:
    return probe_video(*task)


def _begin(all_there: Barrier, met: Event) -> None:
    """Wait for the other workers: one that is still starting when the pool ends would print a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that shows the progress
    if not met.is_set():  # else this one stands in for one that was killed
        with suppress(BrokenBarrierError):
            all_there.wait(_GRACE_SECONDS)
        met.set()
