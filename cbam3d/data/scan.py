"""Build the manifest of a folder of videos, each decoded once."""

import json
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

from cbam3d.data.listing import Listing
from cbam3d.data.manifest import Manifest, from_rows
from cbam3d.data.workers import fresh_processes
from cbam3d.errors import InputError
from cbam3d.storage import state_of
from cbam3d.video.probe import Copies, VideoInfo, probe_video

_GRACE_SECONDS = 10.0  # the decoder enforces the limit itself, unless it hangs inside FFmpeg: then it is killed

_BYTES = ("fingerprint", "packets", "copied_packets")

Progress = Callable[[Iterable[Any], int], Iterable[Any]]


@dataclass(frozen=True)
class Scan:
    """The result of scanning a folder."""

    manifest: Manifest  # sorted by path
    fingerprints: list[bytes]  # of its rows, see fingerprint.py
    packets: list[bytes]  # of its rows, and of their copies, see index.py
    copied_packets: list[bytes]


class Journal:
    """A JSON Lines file with one line per video read.

    Args:
        path: the file; None disables the journal.
        root: folder of the videos.
        facts: plain data; entries written with other facts are ignored.
    """

    def __init__(self, path: Path | None, root: Path, facts: dict[str, Any]) -> None:
        self.path, self.root, self.facts = path, root, facts

    def read(self) -> dict[str, VideoInfo]:
        """The results by path, of files that have not changed since."""
        if self.path is None or not self.path.exists():
            return {}
        known = {}
        for line in self.path.read_text(encoding="ascii", errors="replace").split("\n"):
            try:
                note = json.loads(line)
                info = note["info"] | {name: bytes.fromhex(note["info"][name]) for name in _BYTES}
                if note["state"] == self._state(note["path"]) and note["facts"] == self.facts:
                    known[note["path"]] = VideoInfo(**info)
            except (ValueError, KeyError, TypeError, OSError):
                continue  # the last line of a scan that was killed
        return known

    def note(self, path: str, info: VideoInfo) -> None:
        """Append the result for a file."""
        if self.path is None:
            return
        plain = {name: value.hex() if name in _BYTES else value for name, value in asdict(info).items()}
        note = {"path": path, "state": self._state(path), "facts": self.facts, "info": plain}
        with open(self.path, "a", encoding="ascii") as file:
            file.write(json.dumps(note) + "\n")

    def _state(self, path: str) -> list[int]:
        return list(state_of(self.root / path))


def scan_videos(
    root: Path,
    listing: Listing,
    workers: int | None = None,
    timeout_seconds: float = 600.0,
    journal: Path | None = None,
    copies: Copies | None = None,
    fps: float = 0.0,
    progress: Progress = lambda items, total: items,
) -> Scan:
    """Read every listed video once. A file that crashes or hangs the decoder is reported, and the scan continues.

    Args:
        root: folder of the videos.
        listing: the videos.
        workers: decoder processes; None for one per core.
        timeout_seconds: time limit per file.
        journal: file that records results as they come; an interrupted scan resumes from it.
        copies: copies to write as well.
        fps: of folders of images.
        progress: wraps the iterable of results, given it and the number of files.

    Raises:
        InputError: a copy cannot be written.
    """
    rows = listing.found
    names = [row["path"] for row in rows if not row["problem"]]
    settings = [copies.short_side, copies.gop, str(copies.root)] if copies else []
    notes = Journal(journal, root, {"copies": settings, "fps": fps})
    infos = _probe_all(root, names, copies, fps, workers or os.cpu_count() or 1, timeout_seconds, notes)
    found = dict(zip(names, progress(infos, len(names)), strict=True))
    # files with a problem are not read
    measured = [{**asdict(found.get(row["path"], VideoInfo())), **row} for row in rows]
    for row in measured:
        row["problem"] = row["problem"] or found[row["path"]].problem
    measured.sort(key=lambda row: row["path"])
    return Scan(from_rows(measured), *([row[name] for row in measured] for name in _BYTES))


def copies_manifest(copies: Copies, scan: Scan) -> tuple[Manifest, list[bytes]]:
    """The manifest of the copies of the usable videos, and the packets of its rows."""
    rows = []
    for row, packets in zip(scan.manifest.rows(), scan.copied_packets, strict=True):
        if not row["num_frames"]:
            continue
        path = copies.path(row["path"])
        height, width = copies.size(row["height"], row["width"])
        num_bytes, changed_ns = state_of(path)
        facts = {"num_bytes": num_bytes, "changed_ns": changed_ns, "height": height, "width": width, "problem": ""}
        rows.append({**row, **facts, "path": path.relative_to(copies.root).as_posix(), "packets": packets})
    rows.sort(key=lambda row: row["path"])
    return from_rows(rows), [row["packets"] for row in rows]


def _probe_all(
    root: Path,
    names: list[str],
    copies: Copies | None,
    fps: float,
    workers: int,
    timeout_seconds: float,
    journal: Journal,
) -> Iterator[VideoInfo]:
    known = {
        name: info
        for name, info in journal.read().items()
        if copies is None or not info.num_frames or copies.path(name).exists()
    }
    todo = [(root / name, timeout_seconds, copies, name, fps) for name in names if name not in known]
    workers, context = max(1, min(workers, len(todo))), fresh_processes("cbam3d.video.probe")
    meeting = context.Barrier(workers), context.Event()
    pool = ProcessPool(workers, initializer=_begin, initargs=meeting, context=context)
    try:
        results = pool.map(_probe, todo, timeout=timeout_seconds + _GRACE_SECONDS).result() if todo else iter(())
        for name in names:
            if name in known:
                yield known[name]
            else:
                info = _outcome(results, timeout_seconds)
                journal.note(name, info)
                yield info
    finally:
        pool.stop()
        pool.join()


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


def _probe(task: tuple[Path, float, Copies | None, str, float]) -> VideoInfo:
    return probe_video(*task)


def _begin(all_there: Barrier, met: Event) -> None:
    """Wait for the other workers: one that is still starting when the pool ends would print a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles Ctrl-C
    if not met.is_set():  # else this worker replaces one that was killed
        with suppress(BrokenBarrierError):
            all_there.wait(_GRACE_SECONDS)
        met.set()
