"""Clips of the videos in a manifest."""

import os
from collections.abc import Callable
from copy import copy
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange

from cbam3d.data.batch import Packed, Sample, SampleIndex, pack
from cbam3d.data.manifest import Manifest
from cbam3d.data.rng import numbers_of
from cbam3d.files import leads_out
from cbam3d.storage import Part, Place, Source, Url, state_of
from cbam3d.video.container import VideoError
from cbam3d.video.decode import read_clip
from cbam3d.video.pixels import scaled_size

# number of frames and frame rate of the video, generator -> the frame numbers of each clip
Clips = Callable[[int, float, np.random.Generator], list[list[int]]]


class VideoDataset:
    """One item per video, or per part of one: the clips chosen by `clips`, decoded in one pass.

    Args:
        root: folder that the manifest's paths are relative to.
        manifest: usable videos only.
        classes: names in index order.
        clips: chooses the frames.
        short_side: pixels to which the shorter side is scaled while decoding.
        seed: of the choice of clips, together with epoch and index.
        allow_outside: follow links to files outside the root.
        reach: how many frames clips may reach beyond their part, on either side, given the frame rate; None for none.
        least: height and width that are needed; a video is scaled further where the shorter side is not enough.
        options: further keyword arguments of `read_clip`.

    An unreadable video gives a `Sample` without views that states the problem.
    """

    def __init__(
        self,
        root: Place,
        manifest: Manifest,
        classes: list[str],
        clips: Clips,
        short_side: int,
        seed: int,
        allow_outside: bool = False,
        least: tuple[int, int] = (1, 1),
        reach: Callable[[float], int] | None = None,
        **options: Any,
    ) -> None:
        self.labels = _numbers(manifest, classes)
        self.damaged = ~manifest.problem.equals("")
        self.root, self.manifest, self.clips = root, manifest, clips
        self.short_side, self.least, self.seed, self.options = short_side, least, seed, options
        self.reach = reach
        self.real_root = None if allow_outside or isinstance(root, Url) else os.path.realpath(root)
        self.numbers = np.arange(len(manifest))

    def __len__(self) -> int:
        return len(self.manifest)

    def name(self, index: int) -> str:
        """The video's path relative to the root, and the times of a part."""
        return self.manifest.name(index)

    def stamp(self, index: int) -> str:
        """What tells a video from another, and from itself after a change: its name, size and time."""
        source, table = self.manifest.source(self.root, index), self.manifest
        state = state_of(source) if isinstance(source, Path) else (table.num_bytes[index], table.changed_ns[index])
        return f"{self.name(index)}|{'|'.join(map(str, state))}"

    def by_name(self) -> "VideoDataset":
        """The same videos, whose random clips follow from their names, rather than from the seed and their rows."""
        other = copy(self)
        other.seed, other.numbers = 0, numbers_of(self.manifest.names())
        return other

    def __getitems__(self, indices: list[SampleIndex]) -> Packed:
        return pack([sample for _, own in groupby(indices, lambda index: index.item) for sample in self._read([*own])])

    def frames_of(self, index: SampleIndex) -> list[list[int]]:
        """The numbers of the frames of each clip of a video for an epoch."""
        table, row = self.manifest, index.item
        rng = np.random.default_rng([self.seed, index.epoch, int(self.numbers[row])])
        first, count, fps = int(table.first_frame[row]), int(table.num_frames[row]), float(table.fps[row])
        if self.reach is not None and table.end[row] > 0:
            stop = min(first + count + self.reach(fps), int(table.file_frames[row]))
            first = max(0, first - self.reach(fps))
            count = stop - first
        clips = self.clips(count, fps, rng)
        return [[first + frame for frame in clip] for clip in clips]

    def read(self, index: SampleIndex) -> Sample:
        """Read the clips of a video for an epoch."""
        return self._read([index])[0]

    def source(self, row: int) -> Source:
        """Where the video of a row is.

        Raises:
            VideoError: a link leads out of the folder, which is not allowed.
        """
        source = self.manifest.source(self.root, row)
        place = source.within if isinstance(source, Part) else source
        if self.real_root is not None and isinstance(place, Path) and leads_out(place, self.real_root):
            raise VideoError(source, "a link that leads out of the folder (data.allow_outside accepts it)")
        return source

    def _read(self, indices: list[SampleIndex]) -> list[Sample]:
        """Read the clips of a video for several epochs, in one pass."""
        table, row = self.manifest, indices[0].item
        chosen = [self.frames_of(index) for index in indices]
        clips = [clip for those in chosen for clip in those]
        size = scaled_size(int(table.height[row]), int(table.width[row]), self.short_side, self.least)
        try:
            wanted = [frame for clip in clips for frame in clip]
            source = self.source(row)
            seek = {} if self.options.get("decoder") == "torchcodec" else {"seek": not self.damaged[row]}
            frames = read_clip(source, wanted, size, **seek, **self.options)
        except VideoError as error:
            return [Sample(index, self.labels[row], [], (self.name(row), error.reason)) for index in indices]
        views = rearrange(frames, "c (e v t) h w -> e v c t h w", e=len(indices), v=len(chosen[0]))
        return [Sample(index, self.labels[row], list(own)) for index, own in zip(indices, views, strict=True)]


def _numbers(manifest: Manifest, classes: list[str]) -> np.ndarray:
    """The class of each video, int (N,); or where it may have several, whether it has each, bool (N, K): of a part also
    the labels of others that hold during half of it or more."""
    codes, texts = manifest.label.codes()
    number = {name: place for place, name in enumerate(classes)}
    if not manifest.several:
        return np.array([number[text] for text in texts], np.int64)[codes]
    has = np.zeros((len(texts), len(classes)), bool)
    for row, text in enumerate(texts):
        has[row, [number[name] for name in text.split("|") if name]] = True
    own = has[codes]
    united = own.copy()
    for rows in manifest.rows_of_parts():
        start, end = manifest.start[rows], manifest.end[rows]
        shared = np.minimum(end[:, None], end) - np.maximum(start[:, None], start)
        covered = shared >= (end - start)[:, None] / 2
        united[rows] |= (covered[:, :, None] & own[rows]).any(1)
    return united
