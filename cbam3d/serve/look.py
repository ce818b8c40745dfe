"""What runs see in one video: the classes, where they look, and for a longer one what happens when."""

import csv
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from cbam3d.engine.events import Window
from cbam3d.errors import InputError
from cbam3d.runs.explainer import Explainer
from cbam3d.runs.explanation import write_moving
from cbam3d.runs.run import Run
from cbam3d.video.container import VideoError
from cbam3d.video.probe import VideoInfo, measure_video, probe_video

_TOP = 5
_WINDOWS = 240  # of a timeline, at most
_HEAD = 1024  # bytes
_PLAYLISTS = (b"ffconcat", b"#", b"<", b"v=0", b"[")  # how those that FFmpeg knows begin
_CHECK_SECONDS = 60.0
_MOST_FRAMES = 240  # a second
_ROWS = 8  # classes of a timeline

Report = Callable[[float, str], None]  # share that is done, 0 … 1, and what is being done


@dataclass(frozen=True)
class Limits:
    """What a page accepts.

    Args:
        mib: size of a file.
        seconds: length of a video.
        jobs: videos at a time; others wait.
        waiting: how many may wait.
        keep_minutes: after which a video and what was found in it are deleted.
    """

    mib: float = 200.0
    seconds: float = 600.0
    jobs: int = 1
    waiting: int = 16
    keep_minutes: float = 15.0


class Looker:
    """A run that looks at videos.

    Args:
        run: a run that was trained on videos.
        device: where its network computes.

    Raises:
        InputError: a run that was trained on images, or no such device.
    """

    def __init__(self, run: Run, device: str = "cpu") -> None:
        if run.images:
            raise InputError(f"{run.path}: serve shows videos, this run was trained on images")
        self.name = run.folder.resolve().name
        self.predictor = run.predictor(device)
        self.explainer = Explainer(self.predictor)
        self.lock = Lock()  # hooks on the network's modules would see the videos of other jobs
        self.known = _confidences(run.folder / "predictions.csv") if run.is_last else np.empty((0, 2))

    def look(self, path: Path, info: VideoInfo, folder: Path, report: Report) -> dict[str, Any]:
        """What the run sees in a video, as plain data; moving pictures of where it looks are written to the folder.

        Args:
            path: of the video.
            info: about it.
            folder: where `look.mp4` goes.
            report: is told how far it is.

        Raises:
            VideoError: what cannot be read.
        """
        with self.lock:
            return self._look(path, info, folder, report)

    def _look(self, path: Path, info: VideoInfo, folder: Path, report: Report) -> dict[str, Any]:
        predictor = self.predictor
        report(0.05, "reading clips")
        try:
            views = predictor.read(path, info)
        except VideoError:  # damage that its packets do not show
            info = probe_video(path)
            views = predictor.read(path, info)
        probabilities = predictor.score(views)
        best = predictor.best(probabilities, _TOP)
        report(0.2, "drawing where it looks")
        explanation = self.explainer.explain(views[len(views) // 2], bare=True)
        write_moving(explanation, [folder / "look.mp4"])
        found: dict[str, Any] = {
            "run": self.name,
            "classes": [{"name": name, "probability": value} for name, value in best],
            "holds": predictor.holding(probabilities) if predictor.apart else None,
            "confidence": None if predictor.apart else self._in_words(best[0][1]),
            "looks": bool(explanation.maps) or explanation.grad_cam is not None,
            "timeline": None,
        }
        window = predictor.usual_window(info.fps or 25.0)
        if info.duration_seconds > 2 * window:
            found["timeline"] = self._timeline(path, info.duration_seconds, window, report)
        report(1.0, "done")
        return found

    def _timeline(self, path: Path, seconds: float, window: float, report: Report) -> dict[str, Any]:
        predictor = self.predictor
        step = max(window / 4, seconds / _WINDOWS)
        windows: list[Window] = []
        for start, end, found in predictor.windows(path, max(window, step), step):
            windows.append((start, end, found.numpy()))
            report(0.3 + 0.7 * min(1.0, end / seconds), f"looking at second {end:.0f} of {seconds:.0f}")
        values = np.stack([one[2] for one in windows])
        shown = sorted(np.argsort(-values.max(0))[:_ROWS].tolist())
        middles = [(start + end) / 2 for start, end, _ in windows]
        return {
            "step": step,
            "starts": [round(max(0.0, middle - step / 2), 3) for middle in middles],  # a window tells of its middle
            "rows": [
                {"name": predictor.classes[k], "probabilities": [round(float(v), 3) for v in values[:, k]]}
                for k in shown
            ],
            "events": [asdict(event) for event in predictor.events_of(windows, step)],
        }

    def _in_words(self, confidence: float) -> str | None:
        """How often held-out videos with about this confidence were right."""
        if not len(self.known):
            return None
        distances = np.abs(self.known[:, 0] - confidence)
        nearest = min(len(distances), max(10, len(distances) // 5))
        near = self.known[distances <= np.partition(distances, nearest - 1)[nearest - 1]]  # of equals all
        low, high = near[:, 0].min(), near[:, 0].max()
        between = f"{low:.0%} to {high:.0%}" if round(100 * low) < round(100 * high) else f"{low:.0%}"
        return f"Of {len(near)} held-out videos with a probability of {between}, {near[:, 1].mean():.0%} were right."


def check(path: Path, limits: Limits) -> VideoInfo:
    """Size and length of a video.

    Raises:
        InputError: one that cannot be read, or is longer than allowed; the text has no path.
    """
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    # a playlist would have FFmpeg open what it names
    if not any(byte < 9 for byte in head) or head.lstrip(b"\xef\xbb\xbf\t\n\r ").startswith(_PLAYLISTS):
        raise InputError("This is no video that can be read: text.")
    try:
        info = measure_video(path, _CHECK_SECONDS)
    except InputError as error:
        raise InputError(_without(str(error), path)) from None
    if not info.num_frames:
        raise InputError(f"This is no video that can be read: {_without(info.problem, path)}.")
    seconds = max(info.duration_seconds, info.num_frames / _MOST_FRAMES)  # a header can name any frame rate
    if seconds > limits.seconds:
        raise InputError(f"The video lasts {seconds:.0f} seconds, the limit is {limits.seconds:.0f}.")
    return info


def _confidences(predictions: Path) -> np.ndarray:
    """Probability of the most probable class, and whether it was right, of the held-out videos of a run, (N, 2)."""
    if not predictions.is_file():
        return np.empty((0, 2))
    with open(predictions, newline="", encoding="utf-8", errors="replace") as file:
        rows = [(row.get("probability1"), row.get("right")) for row in csv.DictReader(file)]
    pairs = [(float(p), float(right)) for p, right in rows if p and right]
    return np.array([pair for pair in pairs if math.isfinite(pair[0])]).reshape(-1, 2)


def _without(text: str, path: Path) -> str:
    """A message without the path of the machine."""
    return text.replace(f"{path}: ", "").replace(str(path), path.name).replace(str(path.parent), "")
