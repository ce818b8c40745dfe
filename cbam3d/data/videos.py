"""Clips of the videos in a manifest."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange

from cbam3d.data.batch import Packed, Sample, Visit, pack
from cbam3d.data.container import VideoError
from cbam3d.data.decode import read_clip
from cbam3d.data.listing import leads_out
from cbam3d.data.manifest import Manifest
from cbam3d.data.pixels import scaled_size

# frames in the video, its frames a second, randomness -> the frame numbers of each clip
Clips = Callable[[int, float, np.random.Generator], list[list[int]]]


class VideoDataset:
    """One item a video: the clips that `clips` chooses, decoded in one pass.

    Args:
        root: folder that the manifest's paths are relative to.
        manifest: usable videos only.
        classes: names in the order of their numbers.
        clips: chooses the frames.
        short_side: pixels; the picture is scaled while decoding so that its shorter side has them.
        seed: of the choice of clips, together with epoch and index.
        allow_outside: read files that links lead to out of the root.
        options: further keyword arguments of `read_clip`.

    A video that cannot be read gives a `Sample` without views that names the problem.
    """

    def __init__(
        self,
        root: Path,
        manifest: Manifest,
        classes: list[str],
        clips: Clips,
        short_side: int,
        seed: int,
        allow_outside: bool = False,
        **options: Any,
    ) -> None:
        codes, names = manifest.label.codes()
        self.labels = np.array([classes.index(name) for name in names], np.int64)[codes]
        self.damaged = ~manifest.problem.equals("")
        self.root, self.manifest, self.clips = root, manifest, clips
        self.short_side, self.seed, self.options = short_side, seed, options
        self.real_root = None if allow_outside else os.path.realpath(root)

    def __len__(self) -> int:
        return len(self.manifest)

    def name(self, index: int) -> str:
        """The video's path below the root."""
        return self.manifest.path[index]

    def __getitems__(self, visits: list[Visit]) -> Packed:
        return pack([self.read(visit) for visit in visits])

    def read(self, visit: Visit) -> Sample:
        """The clips of one visit to a video."""
        table, index = self.manifest, visit.item
        rng = np.random.default_rng([self.seed, visit.epoch, index])
        clips = self.clips(int(table.num_frames[index]), float(table.fps[index]), rng)
        size = scaled_size(int(table.height[index]), int(table.width[index]), self.short_side)
        try:
            wanted = [frame for clip in clips for frame in clip]
            path = self.root / self.name(index)
            if self.real_root is not None and leads_out(path, self.real_root):
                raise VideoError(path, "a link that leads out of the folder (data.allow_outside accepts it)")
            seek = {} if self.options.get("decoder") == "torchcodec" else {"seek": not self.damaged[index]}
            frames = read_clip(path, wanted, size, **seek, **self.options)
        except VideoError as error:
            return Sample(visit, int(self.labels[index]), [], (self.name(index), error.reason))
        views = rearrange(frames, "c (v t) h w -> v c t h w", v=len(clips))
        return Sample(visit, int(self.labels[index]), list(views))
