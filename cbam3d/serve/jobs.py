"""Videos that wait, are looked at, and are deleted."""

import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cbam3d.errors import InputError
from cbam3d.serve.look import Limits, Report

logger = logging.getLogger(__name__)

_KEPT = 2  # videos that have been looked at, for each that may wait


class Forgotten(Exception):
    """A job has been deleted while it ran."""


@dataclass
class Job:
    """One video: how far it is, and what was found.

    Args:
        id: known to who sent it alone.
        folder: of its files.
        name: of the video, as it is shown.
    """

    id: str
    folder: Path
    name: str
    state: str = "uploading"  # then waiting, running, and done or failed
    share: float = 0.0
    doing: str = "waiting"
    forgotten: bool = False
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    touched: float = field(default_factory=time.monotonic)

    def report(self, share: float, doing: str) -> None:
        """How far it is; ends the work on a job that has been deleted."""
        if self.forgotten:
            raise Forgotten
        self.share, self.doing = share, doing


class Jobs:
    """Runs jobs, a few at a time, in a folder that is removed in the end.

    Args:
        limits: how many, and for how long they are kept.
        work: does a job, given it and what it reports to; returns the result.
    """

    def __init__(self, limits: Limits, work: Callable[[Job, Report], dict[str, Any]]) -> None:
        self.limits, self.work = limits, work
        self.root = TemporaryDirectory(prefix="cbam3d-serve-", ignore_cleanup_errors=True)
        self.pool = ThreadPoolExecutor(limits.jobs)
        self.known: dict[str, Job] = {}
        self.lock = threading.Lock()
        self.pending = 0  # jobs that have not ended

    def create(self, name: str) -> Job:
        """A job whose video is still to be written to its folder.

        Raises:
            InputError: too many are waiting.
        """
        self.forget_old()
        with self.lock:
            if self.pending >= self.limits.waiting:
                raise InputError("Too many videos are waiting. Try again later.")
            self.pending += 1
            job = Job(secrets.token_urlsafe(16), Path(self.root.name) / secrets.token_hex(8), name)
            self.known[job.id] = job
        job.folder.mkdir()
        return job

    def start(self, job: Job) -> None:
        """Let it wait for its turn."""
        with self.lock:
            if job.forgotten:
                return
            job.state = "waiting"
        self.pool.submit(self._run, job)

    def get(self, id: str) -> Job | None:
        """The job of that id, which is kept a while longer."""
        job = self.known.get(id)
        if job is not None:
            job.touched = time.monotonic()
        return job

    def forget(self, job: Job) -> None:
        """Delete a job and its files."""
        with self.lock:
            self.known.pop(job.id, None)
            if job.state == "uploading" and not job.forgotten:
                self.pending -= 1
            job.forgotten = True
        shutil.rmtree(job.folder, ignore_errors=True)

    def forget_old(self) -> None:
        """Delete those that nobody has asked for in a while, and of those that have ended all but the latest."""
        old = time.monotonic() - 60 * self.limits.keep_minutes
        with self.lock:
            jobs = sorted(self.known.values(), key=lambda job: job.touched)
        ended = [job.id for job in jobs if job.state in ("done", "failed")]
        surplus = {*ended[: -_KEPT * self.limits.waiting]}  # the disk is finite
        for job in jobs:
            if job.id in surplus or (job.touched < old and job.state not in ("waiting", "running")):
                self.forget(job)

    def close(self) -> None:
        """Delete everything; what runs ends when it next reports."""
        with self.lock:
            for job in self.known.values():
                job.forgotten = True
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.root.cleanup()

    def _run(self, job: Job) -> None:
        job.state = "running"
        try:
            job.report(0.0, "starting")
            job.result = self.work(job, job.report)
            job.touched = time.monotonic()
            job.state = "done"
        except Forgotten:
            pass
        except InputError as error:
            job.state, job.error = "failed", getattr(error, "reason", str(error))
        except Exception:
            if not job.forgotten:  # else its files are gone
                logger.exception("looking at a video failed")
            job.state, job.error = "failed", "Something went wrong here; the log of the server has the details."
        with self.lock:
            self.pending -= 1
            job.touched = time.monotonic()
        if job.forgotten or job.state == "failed":
            shutil.rmtree(job.folder, ignore_errors=True)
