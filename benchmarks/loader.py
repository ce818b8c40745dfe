"""Two workers reading a folder, in clips a second: our loader against pytorchvideo's LabeledVideoDataset, and against
torchcodec's own clip samplers and resizing in a DataLoader.

    python benchmarks/loader.py [FOLDER]        # class folders; without one, the demo's small videos are rendered

Clips of 16 frames, stride 1, at random starts; shorter side 128 and a random 112x112 cut, as batches of 8 on the CPU.
Both read every video once a repeat; medians over interleaved repeats.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tables import table
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler

from cbam3d.config.bundled import find_recipe
from cbam3d.data import motion
from cbam3d.data.augment import BatchTransform, train_crops
from cbam3d.data.listing import list_videos
from cbam3d.data.loader import Loader, TrainBatches
from cbam3d.data.manifest import Manifest, read_manifest
from cbam3d.data.recipe import load_recipe
from cbam3d.data.sampling import Sampling
from cbam3d.data.scan import Reading, scan_videos
from cbam3d.data.videos import VideoDataset
from cbam3d.video.index import PacketIndex

SeekMode = Literal["exact", "approximate"]
MEAN, STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)
LENGTH, SIDE, SIZE, BATCH, WORKERS = 16, 128, 112, 8, 2


def videos_of(root: Path) -> Manifest:
    """The usable videos of class folders, from their table where there is one."""
    path = root / "manifest.csv"
    if path.is_file():
        found = read_manifest(path)
    else:
        found = scan_videos(list_videos(root, load_recipe(find_recipe("folder"))), Reading(root)).manifest
    return found.select(found.usable)


def ours(root: Path, table: Manifest, clips_per_visit: int, index: PacketIndex | None = None) -> Loader:
    clips = partial(Sampling(LENGTH, 1).random, num_clips=clips_per_visit)
    data = VideoDataset(root, table, table.label.codes()[1], clips, SIDE, seed=0, index=index)
    batches = TrainBatches(data, BATCH // clips_per_visit, seed=0)
    return Loader(data, batches, BatchTransform(train_crops(SIZE), [], MEAN, STD, 0), WORKERS, torch.device("cpu"))


def theirs(root: Path, table: Manifest) -> DataLoader[Any]:
    from pytorchvideo.data import LabeledVideoDataset, RandomClipSampler

    codes, _ = table.label.codes()
    paths: list[Any] = [(str(root / path), {"label": int(code)}) for path, code in zip(table.path, codes, strict=True)]
    seconds = LENGTH / float(table.fps.mean())
    data = LabeledVideoDataset(
        paths, RandomClipSampler(clip_duration=seconds), RandomSampler, prepare_sample, decode_audio=False
    )
    return DataLoader(data, batch_size=BATCH, num_workers=WORKERS, persistent_workers=True)


def prepare_sample(sample: dict[str, Any]) -> tuple[torch.Tensor, int]:
    """What a user of pytorchvideo writes: LENGTH frames, shorter side SIDE, a random cut, normalised."""
    clip = sample["video"]
    frames = torch.linspace(0, clip.shape[1] - 1, LENGTH).long()
    scale = SIDE / min(clip.shape[2:])
    size = [max(SIZE, round(side * scale)) for side in clip.shape[2:]]
    clip = F.interpolate(clip[:, frames].movedim(1, 0), size=size, mode="bilinear").movedim(0, 1)
    return cut(clip), sample["label"]


def cut(clip: torch.Tensor) -> torch.Tensor:
    """A random place of a clip (C, T, H, W), normalised."""
    top, left = (int(torch.randint(side - SIZE + 1, ())) for side in clip.shape[2:])
    clip = clip[:, :, top : top + SIZE, left : left + SIZE] / 255
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (MEAN, STD))
    return (clip - mean) / std


class TorchcodecDataset(Dataset[torch.Tensor]):
    """Random clips of each video by torchcodec, which resizes while it decodes."""

    def __init__(self, root: Path, videos: Manifest, num_clips: int, seek_mode: SeekMode) -> None:
        self.paths = [str(root / path) for path in videos.path]
        scales = SIDE / np.minimum(videos.height, videos.width)
        self.sizes = [
            (max(SIZE, round(height * scale)), max(SIZE, round(width * scale)))
            for height, width, scale in zip(videos.height, videos.width, scales, strict=True)
        ]
        self.num_clips = num_clips
        self.seek_mode: SeekMode = seek_mode

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> torch.Tensor:
        from torchcodec.decoders import VideoDecoder  # type: ignore[reportPrivateImportUsage]
        from torchcodec.samplers import clips_at_random_indices  # type: ignore[reportPrivateImportUsage]
        from torchcodec.transforms import Resize  # type: ignore[reportPrivateImportUsage]

        decoder = VideoDecoder(self.paths[row], seek_mode=self.seek_mode, transforms=[Resize(self.sizes[row])])
        clips = clips_at_random_indices(decoder, num_clips=self.num_clips, num_frames_per_clip=LENGTH).data
        return torch.stack([cut(clip.movedim(0, 1)) for clip in clips])


def by_torchcodec(root: Path, table: Manifest, num_clips: int, seek_mode: SeekMode = "exact") -> DataLoader[Any]:
    data = TorchcodecDataset(root, table, num_clips, seek_mode)
    return DataLoader(data, BATCH // num_clips, shuffle=True, num_workers=WORKERS, persistent_workers=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Loaders, compared")
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        root = given.folder or Path(temporary)
        if given.folder is None:
            motion.render(root, num_groups=30)
            print("The demo's videos (64x64 pixels):\n")
        compare(root, videos_of(root), given.repeats)


def compare(root: Path, videos: Manifest, repeats: int) -> None:
    loaders: dict[str, Any] = {
        "cbam3d": ours(root, videos, 1),
        "cbam3d, data.clips_per_visit 4": ours(root, videos, 4),
        "pytorchvideo": theirs(root, videos),
        "torchcodec": by_torchcodec(root, videos, 1),
        "torchcodec, approximate": by_torchcodec(root, videos, 1, "approximate"),
        "torchcodec, 4 clips a video": by_torchcodec(root, videos, 4),
    }
    speeds: dict[str, list[float]] = {name: [] for name in loaders}
    for repeat in range(repeats + 1):  # the first starts the workers
        for name, loader in loaders.items():
            if isinstance(loader, Loader):
                loader.set_epoch(repeat)
            started, count = time.perf_counter(), 0
            batch: Any
            for batch in loader:
                inputs = getattr(batch, "inputs", batch[0] if isinstance(batch, list) else batch)
                count += len(inputs) * (inputs.shape[1] if inputs.ndim == 6 else 1)
            if repeat:
                speeds[name].append(count / (time.perf_counter() - started))
    base = statistics.median(speeds["pytorchvideo"])
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    rows = [[name, f"{speed:.1f}", f"{speed / base:.2f}"] for name, speed in medians.items()]
    table(["loader", "clips/s", "ratio"], rows)


if __name__ == "__main__":
    main()
