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
    state: str = "waiting"  # waiting, running, done, failed
    share: float = 0.0
    doing: str = "waiting"
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    touched: float = field(default_factory=time.monotonic)

    def report(self, share: float, doing: str) -> None:
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

    def create(self, name: str) -> Job:
        """A job whose video is still to be written to its folder.

        Raises:
            InputError: too many are waiting.
        """
        self.forget_old()
        with self.lock:
            if sum(job.state in ("waiting", "running") for job in self.known.values()) >= self.limits.waiting:
                raise InputError("Too many videos are waiting. Try again later.")
            job = Job(secrets.token_urlsafe(16), Path(self.root.name) / secrets.token_hex(8), name)
            self.known[job.id] = job
        job.folder.mkdir()
        return job

    def start(self, job: Job) -> None:
        """Let it wait for its turn."""
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
        shutil.rmtree(job.folder, ignore_errors=True)

    def forget_old(self) -> None:
        """Delete those that nobody has asked for in a while."""
        old = time.monotonic() - 60 * self.limits.keep_minutes
        for job in [job for job in self.known.values() if job.touched < old and job.state != "running"]:
            self.forget(job)

    def close(self) -> None:
        """Delete everything."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.root.cleanup()

    def _run(self, job: Job) -> None:
        if job.id not in self.known:  # deleted while it waited
            return
        job.state = "running"
        try:
            job.result = self.work(job, job.report)
            job.state = "done"
        except InputError as error:
            job.state, job.error = "failed", getattr(error, "reason", str(error))
        except Exception:
            logger.exception("looking at a video failed")
            job.state, job.error = "failed", "Something went wrong here; the log of the server has the details."
        job.touched = time.monotonic()
