"""Build the manifest of a folder of videos, each decoded once."""

import hashlib
import logging
import math
import os
import platform
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import TimeoutError
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import BrokenBarrierError
from typing import Any, Protocol

from pebble import ProcessExpired, ProcessPool

from cbam3d.data.journal import Journal
from cbam3d.data.listing import Listing
from cbam3d.data.manifest import Manifest, from_rows
from cbam3d.data.workers import fresh_processes, num_cores
from cbam3d.errors import InputError
from cbam3d.storage import Place, Refused, Url, files_below, local_copy, state_of
from cbam3d.video.probe import Copies, VideoInfo, probe_video
from cbam3d.video.timing import EXACT, end_of, frames_between

_GRACE_SECONDS = 10.0  # the decoder enforces the limit itself, unless it hangs inside FFmpeg: then it is killed
_DOWNLOAD_SECONDS = 600.0
_BEYOND = 1.0  # seconds by which a part may exceed its video: tables have whole seconds
_MOST_IN_TASK = 200  # videos of a task of a cluster

FileProgress = Callable[[Iterable[Any], int], Iterable[Any]]


@dataclass(frozen=True)
class Scan:
    """The result of scanning a folder."""

    manifest: Manifest  # sorted by path, parts of a video by time
    fingerprints: list[bytes]  # of its rows, see fingerprint.py
    packets: list[bytes]  # of its rows, and of their copies, see index.py
    copied_packets: list[bytes]


@dataclass(frozen=True)
class Reading:
    """How the videos of a folder are read.

    Args:
        root: the folder.
        timeout_seconds: time limit per file.
        copies: copies to write as well.
        fps: of folders of images.
        journal: folder that keeps results as they come; an interrupted scan resumes from it.
    """

    root: Place
    timeout_seconds: float = 600.0
    copies: Copies | None = None
    fps: float = 0.0
    journal: Place | None = None

    def notes(self, part: str = "") -> Journal:
        """The journal, or one part of it, of results that are of use here."""
        copies = self.copies
        settings = [copies.short_side, copies.gop, str(copies.root)] if copies else []
        folder = self.journal / part if self.journal and part else self.journal
        return Journal(folder, {"copies": settings, "fps": self.fps})

    def read(self, names: list[str], workers: int, notes: Journal) -> Iterator[tuple[str, VideoInfo]]:
        """Read videos in processes, each once. A file that crashes or hangs the decoder is reported, and the others are
        read.

        Raises:
            InputError: a copy cannot be written, or a remote file not be reached.
        """
        todo = [(self.root / name, self.timeout_seconds, self.copies, name, self.fps) for name in names]
        workers, limit = max(1, min(workers, len(todo))), self.timeout_seconds + _GRACE_SECONDS
        if isinstance(self.root, Url):
            limit += _DOWNLOAD_SECONDS
        scratch = TemporaryDirectory(prefix="cbam3d-", ignore_cleanup_errors=True)  # of processes that may be killed
        context = fresh_processes("cbam3d.data.scan")
        meeting = context.Barrier(workers), context.Event(), {**os.environ, "TMPDIR": scratch.name}
        pool = ProcessPool(workers, initializer=_begin, initargs=meeting, context=context)
        try:
            results = pool.map(_probe, todo, timeout=limit).result() if todo else iter(())
            for name in names:
                info = _outcome(results, self.timeout_seconds)
                if info.num_bytes or isinstance(self.root, Path):
                    state = (info.num_bytes, info.changed_ns) if info.num_bytes else state_of(self.root / name)
                    notes.note(name, state, info)
                yield name, info
        finally:
            pool.stop()
            pool.join()
            notes.flush()
            scratch.cleanup()


class Spread(Protocol):
    """Runs tasks elsewhere, those that killed their process one by one."""

    num_workers: int

    def __call__(
        self, task: Callable[[Any, list[str]], list[Any]], about: Any, parts: list[list[str]]
    ) -> Iterator[list[tuple[str, Any]]]:
        """The results of `task(about, part)` for each part, as they come: the names in it, each with its result, or
        None for those that killed the process."""
        ...


def scan_videos(
    listing: Listing,
    reading: Reading,
    workers: int | None = None,
    spread: Spread | None = None,
    progress: FileProgress = lambda items, total: items,
) -> Scan:
    """Read every listed video once, however many parts of it are listed.

    Args:
        listing: the videos.
        reading: how they are read.
        workers: decoder processes; None for one per core.
        spread: reads on other machines; None for processes of this one.
        progress: wraps the iterable of results, given it and the number of files.

    Raises:
        InputError: see `Reading.read`.
    """
    rows = listing.found
    names = list(dict.fromkeys(row["path"] for row in rows if not row["problem"]))
    found = _known(reading, listing)
    todo = [name for name in names if name not in found]

    def results() -> Iterator[VideoInfo]:
        yield from (found[name] for name in names if name in found)
        if spread is None:
            pairs = reading.read(todo, workers or num_cores(), reading.notes())
        else:
            size = max(1, min(_MOST_IN_TASK, len(todo) // (4 * spread.num_workers)))
            parts = [todo[start : start + size] for start in range(0, len(todo), size)]
            pairs = (pair for part in spread(_read_part, reading, parts) for pair in part)
        for name, info in pairs:
            found[name] = info or VideoInfo(problem="kills the process that reads it")
            yield found[name]

    for _ in progress(results(), len(names)):
        pass
    # files with a problem are not read
    facts = {name: asdict(found[name]) for name in names}
    measured = []
    for row in rows:
        one = {**(asdict(VideoInfo()) if row["problem"] else facts[row["path"]]), **row}
        one["problem"] = row["problem"] or found[row["path"]].problem
        measured.append(one | _part(one) if row.get("end") else one)
    measured.sort(key=lambda row: (row["path"], row.get("start", 0.0)))
    kept = ([row[name] for row in measured] for name in ("fingerprint", "packets", "copied_packets"))
    return Scan(from_rows(measured, listing.several), *kept)


def _part(row: dict[str, Any]) -> dict[str, Any]:
    """What a row about a part of a video says, given what it says about the video."""
    num_frames, fps, times = row["num_frames"], row["fps"], row["times"]
    start, end, open_end = row["start"], row["end"], math.isinf(row["end"])
    unusable = {"num_frames": 0, "end": start + EXACT if open_end else end}
    if not num_frames:
        return unusable
    if not fps and not times:
        return {**unusable, "problem": "its frames have no times (a recipe of frames names their fps)"}
    until = end_of(num_frames, fps, times)
    if start >= until or (not open_end and end > until + _BEYOND):
        span = f"the part from {start:g} s to {'the end' if open_end else f'{end:g} s'}"
        return {**unusable, "problem": f"{span} lies beyond the end of the video at {until:.2f} s"}
    end = until if open_end else end
    first, count = frames_between(start, end, num_frames, fps, times)
    if not count:
        return {**unusable, "problem": "no frame is shown in this part"}
    return {"end": end, "first_frame": first, "file_frames": num_frames, "num_frames": count}


def _known(reading: Reading, listing: Listing) -> dict[str, VideoInfo]:
    """What the journal has."""
    root, copies = reading.root, reading.copies
    state = (lambda name: listing.states.get(name, (0, 0))) if listing.states else lambda name: state_of(root / name)
    known = reading.notes().read(state)
    if copies is None or not known:
        return known
    there = _files(copies.root)
    return {name: info for name, info in known.items() if there(copies.name(name)) != (0, 0)}


def _files(root: Place) -> Callable[[str], tuple[int, int]]:
    """Size and time of files of a folder, which at a URL is listed once."""
    if not isinstance(root, Url):
        return lambda name: state_of(root / name)
    states = files_below(root, missing_ok=True)
    return lambda name: states.get(name, (0, 0))


def _read_part(reading: Reading, names: list[str]) -> list[VideoInfo]:
    """Read some videos, one after the other, that a process before may have read in part."""
    root = reading.root
    for name in names if isinstance(root, Path) else ():
        if not os.path.lexists(root / name):
            raise InputError(f"{root / name}: not there on {platform.node()}")
    notes = reading.notes(hashlib.blake2b("\0".join(names).encode(errors="surrogateescape"), digest_size=8).hexdigest())
    found = notes.read(lambda name: state_of(root / name))
    found |= reading.read([name for name in names if name not in found], 1, notes)
    return [found[name] for name in names]


def copies_manifest(copies: Copies, scan: Scan) -> tuple[Manifest, list[bytes]]:
    """The manifest of the copies of the usable videos, and the packets of its rows."""
    rows, states = [], _files(copies.root)
    for row, packets in zip(scan.manifest.rows(), scan.copied_packets, strict=True):
        if not row["num_frames"]:
            continue
        name = copies.name(row["path"])
        height, width = copies.size(row["height"], row["width"])
        num_bytes, changed_ns = states(name)
        facts = {"num_bytes": num_bytes, "changed_ns": changed_ns, "height": height, "width": width, "problem": ""}
        rows.append({**row, **facts, **_times_in_copy(row), "path": name, "packets": packets})
    rows.sort(key=lambda row: (row["path"], row["start"]))
    return from_rows(rows, scan.manifest.several), [row["packets"] for row in rows]


def _times_in_copy(row: dict[str, Any]) -> dict[str, float]:
    """When a part begins and ends in the copy, whose rate is constant, where that is other than in the video."""
    seconds, first = 1 / (row["fps"] or 25.0), row["first_frame"]
    times = {"start": first * seconds, "end": (first + row["num_frames"]) * seconds}
    listed = {"start": row["start"], "end": min(row["end"], row["duration_seconds"])}  # tables have whole seconds
    moved = row["end"] and any(abs(listed[name] - time) > seconds + EXACT for name, time in times.items())
    return times if moved else {}


def _outcome(results: Iterator[VideoInfo], timeout_seconds: float) -> VideoInfo:
    try:
        return next(results)
    except TimeoutError:
        return VideoInfo(problem=f"timeout (not read within {timeout_seconds:g} seconds)")
    except ProcessExpired as error:
        return VideoInfo(problem=f"crashes the decoder (exit code {error.exitcode})")
    except InputError:  # from writing copies: other files would fail too
        raise
    except Exception as error:  # one file must not affect the others
        logging.getLogger(__name__).exception("reading a video failed unexpectedly")
        return VideoInfo(problem=f"unexpected {type(error).__name__} ({' '.join(str(error).split())[:200]})")


def _probe(task: tuple[Place, float, Copies | None, str, float]) -> VideoInfo:
    place, timeout_seconds, copies, name, fps = task
    if isinstance(place, Path):
        return probe_video(place, timeout_seconds, copies, name, fps)
    try:
        with local_copy(place) as path:
            num_bytes, changed_ns = state_of(place)
            info = probe_video(path, timeout_seconds, copies, name, fps)
    except Refused as error:
        return VideoInfo(problem=error.reason)
    return replace(info, num_bytes=num_bytes, changed_ns=changed_ns)


def _begin(all_there: Barrier, met: Event, environment: dict[str, str]) -> None:
    """Take over the environment, of which the process that forks workers may know an older one; and wait for the other
    workers: one that is still starting when the pool ends would print a traceback."""
    os.environ.update(environment)
    tempfile.tempdir = None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles Ctrl-C
    if not met.is_set():  # else this worker replaces one that was killed
        with suppress(BrokenBarrierError):
            all_there.wait(_GRACE_SECONDS)
        met.set()
