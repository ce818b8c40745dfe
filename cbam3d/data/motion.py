"""The embedded data set `motion`: eight motions, rendered to real video files.

A textured shape moves over a textured background that drifts independently. Four quantities describe its
pose: horizontal and vertical position, logarithm of scale, angle. Each of the eight classes increases or
decreases one of them. To make the order of the frames the only cue:

- every video draws a ramp for each of the four quantities; the class's own follows its ramp, the others
  stay at a random point of theirs. A random frame's pose thus has the same distribution in every class;
- a class and its opposite are each other's videos reversed in time, so shuffled frames cannot distinguish them.

The eight videos of a group, one per class, share textures and belong to the same split.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from cbam3d.data.workers import num_cores
from cbam3d.video.encode import write_video

# class -> (which quantity of the pose moves, in which direction). y grows downwards, the angle clockwise.
CLASSES: dict[str, tuple[int, int]] = {
    "move_left": (0, -1),
    "move_right": (0, +1),
    "move_up": (1, -1),
    "move_down": (1, +1),
    "zoom_out": (2, -1),
    "zoom_in": (2, +1),
    "rotate_counter_clockwise": (3, -1),
    "rotate_clockwise": (3, +1),
}
NUM_GROUPS = 100
NUM_FRAMES = 24
SIZE = 64  # pixels, height and width
FPS = 25

# Sampling limits: [position, position, log scale, angle] in half frames, octaves·ln2, radians.
_CENTRE = np.array([0.3, 0.3, 0.2, np.pi])  # the middle of the ramp is within ± this
_TRAVEL = np.array([[0.6, 0.6, 0.55, 1.4], [1.1, 1.1, 0.9, 2.8]])  # length of the ramp: minimum, maximum


def render(root: str | Path, seed: int = 0, num_groups: int = NUM_GROUPS) -> int:
    """Render the data set as ROOT/<class>/<class>_g<group>.avi (MPEG-4) or .mp4 (H.264); return the number of videos.

    Args:
        root: folder, created if missing. An interrupted rendering is completed.
        seed: the same seed gives the same videos.
        num_groups: groups of eight videos.
    """
    root = Path(root)
    for label in CLASSES:
        (root / label).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(num_cores()) as pool:  # torch and FFmpeg release the GIL
        return sum(pool.map(partial(_render_group, root, seed), range(1, num_groups + 1)))


def render_video(label: str, seed: int, group: int) -> tuple[np.ndarray, np.ndarray]:
    """One video before encoding: frames, uint8 (T, H, W, 3), and the shape's mask, bool (T, H, W)."""
    rng = np.random.default_rng([seed, group, list(CLASSES).index(label)])
    poses = _pose(label, rng)
    direction, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.2)
    shift = np.linspace(-0.5, 0.5, NUM_FRAMES)[:, None] * speed * [np.cos(direction), np.sin(direction)]
    return draw(np.random.default_rng([seed, group]), poses, shift)


def draw(textures: np.random.Generator, poses: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames, uint8 (T, H, W, 3), of a shape before a background, and the shape's mask, bool (T, H, W).

    Args:
        textures: draws what both look like.
        poses: of the shape, (T, 4): x, y, log scale, angle.
        shift: of the background, (T, 2), in half frames.
    """
    num_frames = len(poses)
    thing, background = _texture(textures, SIZE), _texture(textures, 2 * SIZE)
    corners = int(textures.integers(3, 8))
    x, y, log_scale, angle = poses.T
    cos, sin, shrink = np.cos(angle), np.sin(angle), np.exp(-log_scale)

    # Map the frame's pixels to the shape's coordinates: invert translation, rotation and scale.
    inverse = np.stack([cos, sin, -x * cos - y * sin, -sin, cos, x * sin - y * cos], axis=1)
    inverse = inverse.reshape(-1, 2, 3) * shrink[:, None, None] / 0.5
    grid = F.affine_grid(torch.from_numpy(inverse).float(), [num_frames, 3, SIZE, SIZE], align_corners=False)
    over = F.grid_sample(thing.expand(num_frames, -1, -1, -1), grid, padding_mode="border", align_corners=False)
    mask = _inside(grid, corners)[:, None]

    drift = np.concatenate([np.tile(np.eye(2) * 0.5, (num_frames, 1, 1)), shift[:, :, None]], axis=2)
    grid = F.affine_grid(torch.from_numpy(drift).float(), [num_frames, 3, SIZE, SIZE], align_corners=False)
    under = F.grid_sample(background.expand(num_frames, -1, -1, -1), grid, align_corners=False)

    frames = (torch.where(mask, over, under) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    return frames.numpy(), mask[:, 0].numpy()


def _pose(label: str, rng: np.random.Generator) -> np.ndarray:
    """The trajectory of the shape, (T, 4): x, y, log scale, angle."""
    centre = rng.uniform(-_CENTRE, _CENTRE)
    travel = rng.uniform(*_TRAVEL) * rng.choice([-1, 1], size=4)
    moment = np.tile(rng.uniform(-0.5, 0.5, size=4), (NUM_FRAMES, 1))
    moving, direction = CLASSES[label]
    travel[moving] = direction * abs(travel[moving])
    moment[:, moving] = np.linspace(-0.5, 0.5, NUM_FRAMES)
    return centre + travel * moment


def _texture(rng: np.random.Generator, size: int) -> torch.Tensor:
    """Three octaves of noise between two colours, (1, 3, size, size) in 0 … 1."""
    noise = torch.zeros(1, 1, size, size)
    for cells, strength in ((size // 16, 1.0), (size // 8, 1.0), (size // 4, 0.5)):
        octave = torch.from_numpy(rng.standard_normal((1, 1, cells, cells))).float()
        noise += strength * F.interpolate(octave, size=(size, size), mode="bicubic", align_corners=False)
    dark, light = torch.from_numpy(rng.uniform([[0.0] * 3, [0.45] * 3], [[0.55] * 3, [1.0] * 3])).float()
    return torch.lerp(dark[:, None, None], light[:, None, None], torch.sigmoid(2 * noise))


def _inside(grid: torch.Tensor, corners: int) -> torch.Tensor:
    """Whether points in the shape's coordinates lie inside it, a rounded star with `corners` corners."""
    x, y = grid.unbind(-1)
    return torch.hypot(x, y) < 0.85 + 0.15 * torch.cos(corners * torch.atan2(y, x))


def _render_group(root: Path, seed: int, group: int) -> int:
    for i, label in enumerate(CLASSES):
        codec, suffix = (("mpeg4", "avi"), ("libx264", "mp4"))[(group + i) % 2]
        path = root / label / f"{label}_g{group:03d}.{suffix}"
        if not path.exists():
            write_video(path, render_video(label, seed, group)[0], FPS, codec)
    return len(CLASSES)
