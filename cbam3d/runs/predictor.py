"""A trained network, ready for files: decoded, cropped and scored as in evaluation, in full precision."""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cbam3d.config import Config
from cbam3d.config.bundled import find_recipe
from cbam3d.data.augment import BatchTransform
from cbam3d.data.background import BACKGROUND
from cbam3d.data.batch import Sample, SampleIndex, pack
from cbam3d.data.crops import EvalCrops
from cbam3d.data.images import read_image
from cbam3d.data.recipe import load_recipe
from cbam3d.engine.events import Event, EventSettings, Window, find_events
from cbam3d.engine.scoring import activate
from cbam3d.errors import InputError, reason_of
from cbam3d.runs.checkpoint import Checkpoint, open_checkpoint
from cbam3d.runs.data import sampling_of
from cbam3d.runs.network import memory_format
from cbam3d.storage import is_stored, local_copy, place_of
from cbam3d.video.container import VideoError
from cbam3d.video.decode import read_clip
from cbam3d.video.pixels import scaled_size
from cbam3d.video.probe import VideoInfo, measure_video, probe_video
from cbam3d.video.stream import TimedFrame, stream_frames, stream_windows

MIN_SECONDS = 0.001  # of a window and a step


class Predictor:
    """Maps a file to class names and probabilities: `predictor("clip.mp4")`. Threads may share it.

    Args:
        model: (N, C, *S) -> (N, K), in evaluation mode.
        classes: K names.
        config: how clips are sampled, cropped and normalised (`data`, `eval`).
        images: whether files are images, rather than videos.
        device: where the network computes.
        thresholds: where classes are decided apart (`train.loss` bce), the probabilities from which on they are taken
            to hold, (K,); None for 0.5.

    Examples:
        >>> import cbam3d
        >>> predictor = cbam3d.load_run("runs/mine", checkpoint="best")
        >>> len(predictor("clip.mp4", top=3))
        3
    """

    def __init__(
        self,
        model: nn.Module,
        classes: list[str],
        config: Config,
        images: bool,
        device: torch.device | str = "cpu",
        thresholds: np.ndarray | None = None,
    ) -> None:
        try:
            self.device = torch.device(device)
            self.model = model.to(self.device)
        except (RuntimeError, AssertionError) as error:  # torch raises either
            raise InputError(f"device {device}: {reason_of(error)}") from None
        self.classes, self.config, self.images = classes, config, images
        self.apart = config.classes_apart
        self.thresholds = np.full(len(classes), 0.5) if thresholds is None else thresholds
        crops = EvalCrops(config.data.sides, config.eval.num_crops, config.scores_mirrored)
        self.transform = BatchTransform([crops], [], *config.data.scaling, 0)
        self.memory_format = memory_format(config, images)
        self._lock = Lock()  # networks on frames, and with other heads, keep facts of a pass: one thread at a time

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=Lock())

    @classmethod
    def of(cls, saved: Checkpoint, device: torch.device | str = "cpu", **options: Any) -> "Predictor":
        """That of a checkpoint; `options` are those of `Checkpoint.model`."""
        return cls(saved.model(**options), saved.classes, saved.config, saved.images, device, saved.thresholds)

    def __call__(self, path: str | Path, top: int = 5) -> list[tuple[str, float]]:
        """The most probable classes of a file, by its path or URL, with their probabilities 0 … 1, best first.

        Raises:
            InputError: a file that cannot be read.
        """
        return self.best(self.probabilities(path), top)

    def best(self, probabilities: Tensor, top: int) -> list[tuple[str, float]]:
        """The `top` most probable classes of probabilities (K,), best first."""
        if top < 1:
            raise InputError(f"top must be at least 1, got {top}")
        values, classes = probabilities.topk(min(top, len(self.classes)))
        return [(self.classes[int(i)], float(value)) for i, value in zip(classes, values, strict=True)]

    def holding(self, probabilities: Tensor) -> list[str]:
        """Which classes hold, given probabilities (K,), where they are decided apart: any number of them."""
        return [self.classes[k] for k in np.flatnonzero(probabilities.numpy() >= self.thresholds)]

    def activate(self, logits: Tensor) -> Tensor:
        """Probabilities of logits (N, K): the softmax, or the sigmoid where classes are decided apart."""
        return activate(logits, self.apart)

    def probabilities(self, path: str | Path) -> Tensor:
        """Of every class, (K,): the mean over the file's views, as in evaluation.

        Raises:
            InputError: a file that cannot be read.
        """
        return self.score(self.views(path))

    def windows(
        self,
        source: str | Path,
        window: float | None = None,
        step: float | None = None,
        on_frame: Callable[[TimedFrame], None] | None = None,
    ) -> Iterator[tuple[float, float, Tensor]]:
        """Classify one window of a video, a stream or a camera after the other, as soon as its frames have come.

        Args:
            source: a path or URL, or the number of a camera.
            window: seconds; None for the length of a clip, or where clips are taken from segments of the whole
                (`data.sampling`), 2. The last window is the last whole one; a shorter video is one window.
            step: seconds from window to window; None for a window.
            on_frame: is shown every frame before it is used.

        Yields: start, end (seconds) and probabilities, (K,).

        Raises:
            InputError: a source that cannot be read.
        """
        with self._frames(source) as (frames, usual):
            window, step = self._seconds(window, step, usual, 1.0)
            yield from self._windows(frames, window, step, on_frame)

    def events(
        self,
        source: str | Path,
        *,
        window: float | None = None,
        step: float | None = None,
        settings: EventSettings | None = None,
    ) -> Iterator[Event]:
        """What happens when in a video, a stream or before a camera: each event as soon as it is known to have ended.
        Overlapping windows are classified and averaged; nothing proposes or refines boundaries, so they are about as
        exact as a step. The class `background` is no event.

        Args:
            source: a path or URL, or the number of a camera.
            window: as of `windows`.
            step: seconds from window to window; None for a quarter of one.
            settings: thresholds and lengths; None for the usual ones, with the thresholds of the run where classes are
                decided apart.

        Raises:
            InputError: a source that cannot be read.
        """
        with self._frames(source) as (frames, usual):
            window, step = self._seconds(window, step, usual, 0.25)
            windows = ((start, end, found.numpy()) for start, end, found in self._windows(frames, window, step))
            yield from self.events_of(windows, step, settings)

    def events_of(
        self, windows: Iterable[Window], step: float, settings: EventSettings | None = None
    ) -> Iterator[Event]:
        """The events of windows that have been classified: start, end (seconds) and probabilities, (K,), of each,
        `step` seconds apart; `settings` as above."""
        classes = [None if name == BACKGROUND else name for name in self.classes]
        return find_events(windows, classes, step, settings or EventSettings(threshold=self.thresholds.tolist()))

    def usual_window(self, fps: float) -> float:
        """Seconds of a video of this frame rate that a clip covers; 2 where clips are taken from segments."""
        sampling = sampling_of(self.config.data)
        return 2.0 if sampling.segments else sampling.needed_frames(fps) / fps

    @staticmethod
    def _seconds(window: float | None, step: float | None, usual: float, share: float) -> tuple[float, float]:
        """A window, and a step, of which the usual one is a share of it.

        Raises:
            InputError: not a positive time.
        """
        window = usual if window is None else window
        step = share * window if step is None else step
        for name, value in (("window", window), ("step", step)):
            if not MIN_SECONDS <= value < math.inf:
                raise InputError(f"{name} must be at least {MIN_SECONDS} seconds, got {value:g}")
        return window, step

    @contextmanager
    def _frames(self, source: str | Path) -> Iterator[tuple[Iterator[TimedFrame], float]]:
        """The frames of a source, and the seconds of a usual window."""
        if self.images:
            raise InputError("windows and events are of videos, the run was trained on images")
        with local_video(source) as path:
            frames = stream_frames(str(path))
            first = next(frames)
            yield chain([first], frames), self.usual_window(first.fps)

    def _windows(
        self,
        frames: Iterable[TimedFrame],
        window: float,
        step: float,
        on_frame: Callable[[TimedFrame], None] | None = None,
    ) -> Iterator[tuple[float, float, Tensor]]:
        data = self.config.data

        def pixels(timed: TimedFrame) -> np.ndarray:
            if on_frame is not None:
                on_frame(timed)
            return timed.scaled(data.short_side, data.sides)

        for start, end, fps, chosen in stream_windows(frames, window, step, pixels):
            clips = dict.fromkeys(map(tuple, self.clips(len(chosen), fps)))  # of a short window they are the same
            views = [torch.from_numpy(np.stack([chosen[frame] for frame in clip], 1)) for clip in clips]
            yield start, end, self.score(views)

    def views(self, path: str | Path) -> list[Tensor]:
        """The views of a file that evaluation takes, before cropping: clips uint8 (3, T, H, W), or an image (3, H, W).

        Raises:
            InputError: a file that cannot be read.
        """
        if self.images:
            with local_copy(place_of(path)) as file:
                try:
                    return [read_image(file, self.config.data.short_side)]
                except InputError as error:
                    raise InputError(f"{path}: {error}") from None
        with local_video(path) as file:
            try:
                return self.read(file, measure_video(file))
            except VideoError:  # damage that its packets do not show
                return self.read(file, probe_video(file))

    def clips(self, num_frames: int, fps: float) -> list[list[int]]:
        """The frames of each clip that evaluation takes of a video of so many frames."""
        return sampling_of(self.config.data).uniform(num_frames, fps, self.config.eval.num_clips)

    def read(self, path: str | Path, info: VideoInfo) -> list[Tensor]:
        """The clips of a video, each uint8 (3, T, H, W), decoded in one pass.

        Raises:
            InputError: unreadable data, or no frame of it that can be read.
        """
        if not info.num_frames:
            raise VideoError(path, info.problem)
        data, fps = self.config.data, info.fps
        if not fps and data.fps is not None and os.path.isdir(path):  # the recipe knows the rate of images
            with suppress(InputError):  # it may be another machine's
                fps = load_recipe(find_recipe(data.recipe)).fps
        clips = self.clips(info.num_frames, fps)
        size = scaled_size(info.height, info.width, data.short_side, data.sides)
        options: dict[str, Any] = {"decoder": data.decoder}
        if data.decoder == "pyav":
            options |= {"corrupt": data.corrupt_frames, "timeout_seconds": data.timeout_seconds}
            options["seek"] = not info.problem
        frames = read_clip(path, [frame for clip in clips for frame in clip], size, **options)
        return list(frames.split([len(clip) for clip in clips], dim=1))

    def inputs(self, views: list[Tensor]) -> Tensor:
        """Views, each uint8 (3, *S) of any size, cropped and normalised as the network takes them: (V, 3, *S)."""
        packed = pack([Sample(SampleIndex(0, 0), 0, views)]).to(self.device)
        return self.transform(packed).contiguous(memory_format=self.memory_format)

    @torch.no_grad()
    def score(self, views: list[Tensor]) -> Tensor:
        """Probabilities (K,), the mean over views, each uint8 (3, *S) of any size."""
        parts = self.inputs(views).split(self.config.eval.batch_size)
        with self._lock:
            logits = [self.model(part).float() for part in parts]
        return self.activate(torch.cat(logits)).mean(0).cpu()


@contextmanager
def local_video(source: str | Path) -> Iterator[str | Path]:
    """A video as a file of this machine; a stream or a camera as it is. Errors name the source."""
    with local_copy(place_of(source)) if is_stored(source) else nullcontext(source) as path:
        try:
            yield path
        except VideoError as error:
            raise VideoError(source, error.reason) from None


def load_run(
    path: str | Path, checkpoint: str = "last", device: torch.device | str = "cpu", trust_code: bool = False
) -> Predictor:
    """What a run predicts: the short form of `open_run(path).predictor(device)`.

    Args:
        path: the folder of a run, a file of its checkpoints, or "hf:owner/name", where it was pushed to the Hub.
        checkpoint: which one of a folder: last or best.
        device: where the network computes.
        trust_code: import the class of the network where the run names one by package.module:Class.

    Raises:
        InputError: no run there, or a checkpoint that does not fit.

    Examples:
        >>> import cbam3d
        >>> predictor = cbam3d.load_run("runs/mine")
        >>> [(best, probability), *others] = predictor("clip.mp4")
        >>> best in predictor.classes
        True
    """
    return Predictor.of(open_checkpoint(path, checkpoint), device, trust_code=trust_code)
