"""An explanation: maps over the frames of a clip, as a sheet of images and as an animation."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional as F

from cbam3d.files import make_folder
from cbam3d.video.encode import write_video

_MAX_COLUMNS, _MAX_ROWS = 8, 4
_SIDE = 256  # pixels, height of an animation's frames
_FLAT = 0.01  # of the largest value: a range below is no pattern
SUFFIXES = (".png", ".gif", ".mp4", ".npz")  # of what is written
_FRAMES_PER_SECOND = 4  # slower than life, for the eye


@dataclass(frozen=True)
class Explanation:
    """The central clip of a video (or an image, as a clip of one frame), and where the network looks in it.

    Args:
        frames: as the network sees them, uint8 (T, H, W, 3).
        best: the most probable classes of this clip, with probabilities.
        target: the class that Grad-CAM asks for.
        maps: of each block: "channel" (C,), "spatial" (T', H', W'), "temporal" (T',).
        grad_cam: at least 0, (T', H', W'); None without captum.
        layer: whose features Grad-CAM weighs.

    Examples:
        >>> import cbam3d
        >>> found = cbam3d.open_run("runs/mine").explain("clip.mp4")
        >>> [file.suffix for file in found.save("shown/clip")]
        ['.png', '.gif', '.mp4', '.npz']
    """

    frames: np.ndarray
    best: list[tuple[str, float]]
    target: str
    maps: dict[str, dict[str, np.ndarray]]
    grad_cam: np.ndarray | None
    layer: str

    def __repr__(self) -> str:
        best = ", ".join(f"{name} {probability:.1%}" for name, probability in self.best[:3])
        return f"Explanation({best}; {len(self.frames)} frames, maps of {len(self.maps)} blocks)"

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        picture = BytesIO()
        draw_sheet(self, "{} ({:.1%})".format(*self.best[0]), picture)
        return picture.getvalue()

    def arrays(self) -> dict[str, np.ndarray]:
        """Frames, maps ("block/kind") and Grad-CAM ("grad_cam/layer") by name."""
        maps = {f"{block}/{kind}": one for block, views in self.maps.items() for kind, one in views.items()}
        grad_cam = {} if self.grad_cam is None else {f"grad_cam/{self.layer}": self.grad_cam}
        return {"frames": self.frames, **maps, **grad_cam}

    def save(self, stem: str | Path, title: str = "") -> list[Path]:
        """Write everything: a sheet `stem`.png, the clip `stem`.gif and .mp4, and all maps as numbers in `stem`.npz.

        Args:
            stem: path without suffix; its folder is created where it is missing.
            title: over the sheet; empty for the most probable class.

        Returns: the files.
        """
        stem = make_folder(Path(stem).parent) / Path(stem).name
        files = [stem.with_name(f"{stem.name}{suffix}") for suffix in SUFFIXES]
        best, probability = self.best[0]
        draw_sheet(self, title or f"{best} ({probability:.1%})", files[0])
        if len(self.frames) > 1:
            write_moving(self, files[1:3])
        else:
            files = [files[0], files[3]]
        np.savez_compressed(files[-1], **self.arrays())  # pyright: ignore[reportArgumentType]
        return files

    def resized(self, one: np.ndarray) -> np.ndarray:
        """A map (T', H', W') at the size of the frames, linearly, (T, H, W)."""
        size = self.frames.shape[:3]
        return F.interpolate(torch.from_numpy(one)[None, None], size=size, mode="trilinear")[0, 0].numpy()


def overlay(frames: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Frames in grey under a map in colours, from its minimum (blue) to its maximum (red); one that is flat has one
    colour.

    Args:
        frames: uint8 (T, H, W, 3).
        values: (T, H, W).

    Returns: uint8 (T, H, W, 3).
    """
    low, high = values.min(), values.max()
    relative = np.full_like(values, 0.5) if _is_flat(values) else (values - low) / (high - low)
    colours = matplotlib.colormaps["turbo"](relative)[..., :3] * 255
    return (0.5 * frames.mean(-1, keepdims=True) + 0.5 * colours).round().astype(np.uint8)


def layers(found: Explanation) -> dict[str, np.ndarray]:
    """The maps to show over the frames, by caption, at their own resolution, (T', H', W'). Grad-CAM first, then the
    spatial maps of at most four blocks, spread over the depth."""
    shown: dict[str, np.ndarray] = {}
    if found.grad_cam is not None:
        shown[f"Grad-CAM of {found.target}\n{found.layer}"] = found.grad_cam
    for name in _spread([name for name, views in found.maps.items() if "spatial" in views]):
        values = found.maps[name]["spatial"]
        shown[f"spatial map\n{name}\n{_span(values)}"] = values
    return shown


def _is_flat(values: np.ndarray) -> bool:
    """Whether a map's range is so small that colours would show what is not there."""
    return float(np.ptp(values)) <= _FLAT * float(np.abs(values).max())


def _span(values: np.ndarray) -> str:
    return f"flat: {values.mean():.3f}" if _is_flat(values) else f"{values.min():.3f} … {values.max():.3f}"


def draw_sheet(found: Explanation, title: str, path: Path | BytesIO) -> None:
    """A PNG: the frames, each map over them, smoothly, and at the right as it is, with its scale; under them the
    temporal weights and the channels' weights."""
    count = len(found.frames)
    columns = np.unique(np.linspace(0, count - 1, min(count, _MAX_COLUMNS)).round().astype(int))
    maps = layers(found)
    rows = {"input": found.frames} | {name: overlay(found.frames, found.resized(one)) for name, one in maps.items()}
    temporal = {name: views["temporal"] for name, views in found.maps.items() if "temporal" in views}
    temporal = {name: temporal[name] for name in _spread(list(temporal))}
    channel = {name: views["channel"] for name, views in found.maps.items() if "channel" in views}
    heights = [1.0] * len(rows) + [0.5] * len(temporal) + [1.2] * bool(channel)
    width = max(1.3 * len(columns), 6.0)
    figure = Figure(figsize=(4.0 + width, 0.6 + 1.3 * sum(heights)), layout="constrained")
    figure.suptitle(title, fontsize=11)
    grid = figure.add_gridspec(len(heights), len(columns) + 1, height_ratios=heights)
    for row, (name, pictures) in enumerate(rows.items()):
        for column, frame in enumerate(columns):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(pictures[frame])
            axes.set(xticks=[], yticks=[])
            if row == 0 and count > 1:
                axes.set_title(f"frame {frame}", fontsize=8)
            if column == 0:
                axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
        if name in maps:
            _draw_map(figure, figure.add_subplot(grid[row, -1]), maps[name])
    for row, (name, weights) in enumerate(temporal.items(), start=len(rows)):
        _draw_temporal(figure.add_subplot(grid[row, :-1]), name, weights)
    if channel:
        _draw_channels(figure.add_subplot(grid[-1, :-1]), channel)
    figure.savefig(path, dpi=110)


def _draw_map(figure: Figure, axes: Axes, values: np.ndarray) -> None:
    """The middle frame of a map as it is, with its scale."""
    middle = len(values) // 2
    margin = float(np.abs(values).max()) if _is_flat(values) else 0.0
    image = axes.imshow(values[middle], cmap="turbo", vmin=values.min() - margin, vmax=values.max() + margin)
    axes.set(xticks=[], yticks=[])
    axes.set_title(f"frame {middle} of {' x '.join(map(str, values.shape))}", fontsize=7)
    figure.colorbar(image, ax=axes).ax.tick_params(labelsize=6)


def _draw_temporal(axes: Axes, name: str, weights: np.ndarray) -> None:
    """The weights of frames, (T,)."""
    axes.bar(np.arange(len(weights)) + 0.5, weights, width=0.9, color="tab:blue")
    axes.set(xlim=(0, len(weights)), ylim=(0, 1.1 * float(weights.max())), xticks=[])
    axes.tick_params(labelsize=7)
    label = f"temporal weights\n{name}\n{_span(weights)}"
    axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8, labelpad=24)


def _draw_channels(axes: Axes, channel: dict[str, np.ndarray]) -> None:
    """The weights of channels, sorted, of some of the blocks."""
    for name in _spread(list(channel)):
        weights = np.sort(channel[name])[::-1]
        axes.plot(np.linspace(0, 100, len(weights)), weights, label=f"{name} ({len(weights)} channels)")
    axes.set_xlabel("share of the channels, %, by weight", fontsize=8)
    axes.set_ylabel("channel weights", rotation=0, ha="right", va="center", fontsize=8, labelpad=24)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


def write_moving(found: Explanation, paths: Iterable[Path]) -> None:
    """The clip as .mp4 or .gif, four frames a second: input, Grad-CAM and the spatial map that varies most,
    side by side, over the temporal weights, of which that of the frame is filled."""
    pictures = [Image.fromarray(frame) for frame in _composed(found)]
    first, *others = pictures
    for path in paths:
        if path.suffix == ".gif":
            first.save(path, save_all=True, append_images=others, duration=1000 // _FRAMES_PER_SECOND, loop=0)
        else:
            write_video(path, map(np.asarray, pictures), _FRAMES_PER_SECOND)


def _composed(found: Explanation) -> Iterator[np.ndarray]:
    shown = {name: found.resized(one) for name, one in layers(found).items()}
    grad_cam = [name for name in shown if name.startswith("Grad-CAM")]
    spatial = sorted((name for name in shown if name.startswith("spatial")), key=lambda name: np.ptp(shown[name]))[-1:]
    parts = {"input": found.frames} | {name: overlay(found.frames, shown[name]) for name in grad_cam + spatial}
    temporal = {name: views["temporal"] for name, views in found.maps.items() if "temporal" in views}
    weights = next(reversed(temporal.values()), None)
    height, width = found.frames.shape[1:3]
    wide = round(_SIDE * width / height) // 2 * 2
    strip = 48 if weights is not None else 0
    font = ImageFont.load_default(11)
    for t in range(len(found.frames)):
        canvas = Image.new("RGB", (wide * len(parts), 48 + _SIDE + strip), "white")
        draw = ImageDraw.Draw(canvas)
        for i, (name, frames) in enumerate(parts.items()):
            canvas.paste(Image.fromarray(frames[t]).resize((wide, _SIDE), Image.Resampling.BILINEAR), (i * wide, 48))
            draw.multiline_text((i * wide + 4, 2), name, "black", font)
        if weights is not None:
            _draw_weights(draw, weights, t / len(found.frames), canvas.size, strip)
        yield np.asarray(canvas)


def _draw_weights(
    draw: ImageDraw.ImageDraw, weights: np.ndarray, moment: float, size: tuple[int, int], strip: int
) -> None:
    """Bars at the bottom; the one of the moment (0 … 1) is filled."""
    low, span = weights.min(), max(float(np.ptp(weights)), 1e-6)
    step = size[0] / len(weights)
    for i, weight in enumerate(weights):
        tall = 6 + (strip - 12) * (weight - low) / span
        box = (i * step + 2, size[1] - 2 - tall, (i + 1) * step - 2, size[1] - 2)
        now = i == int(moment * len(weights))
        draw.rectangle(box, fill="steelblue" if now else None, outline="black")


def _spread(names: list[str]) -> list[str]:
    """At most four of them, evenly spread, the last among them."""
    if len(names) <= _MAX_ROWS:
        return names
    return [names[i] for i in np.linspace(0, len(names) - 1, _MAX_ROWS).round().astype(int)]
