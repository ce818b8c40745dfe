"""The embedded data sets `motion_events` and `motion_pairs`: long videos in which one motion of `motion` follows the
other, with pauses, at times that are known; in `motion_pairs` two happen at once.

The textured shape and its drifting background are those of `motion`. In a pause the shape rests where it is. Every
video has textures of its own, so that those of the held-out videos are new. `annotations.csv` has the times.
"""

import csv
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from cbam3d.data.motion import CLASSES, FPS, draw
from cbam3d.data.workers import num_cores
from cbam3d.files import atomic_write
from cbam3d.video.encode import write_video

NUM_VIDEOS = {"train": 96, "val": 8, "test": 16}
NUM_EVENTS = 12  # of a video

_LENGTH = 20, 36  # frames of an event: fewest, most
_PAUSE = 12, 36
_SPEED = np.array([[0.035, 0.035, 0.028, 0.06], [0.06, 0.06, 0.048, 0.12]])  # of the pose, a frame: lowest, highest
_LIMIT = np.array([0.65, 0.65, 0.5, np.inf])  # of the pose, to either side

Span = tuple[list[str], int, int]  # labels, first frame, frame after the last


def render(root: str | Path, at_once: int = 1, seed: int = 0) -> int:
    """Render the data set as ROOT/<split>/<number>.mp4 or .avi and ROOT/annotations.csv; return the number of videos.

    Args:
        root: folder, created if missing. An interrupted rendering is completed.
        at_once: how many motions happen at a time, 1 or 2.
        seed: the same seed gives the same videos.
    """
    root = Path(root)
    names = [(split, number) for split, count in NUM_VIDEOS.items() for number in range(count)]
    for split in NUM_VIDEOS:
        (root / split).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(num_cores()) as pool:  # torch and FFmpeg release the GIL
        rows = list(pool.map(partial(_render_video, root, at_once, seed), *zip(*names, strict=True)))
    with (
        atomic_write(root / "annotations.csv") as unfinished,
        open(unfinished, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["path", "label" if at_once == 1 else "labels", "start", "end", "split"])
        writer.writerows(row for of_video in rows for row in of_video)
    return len(names)


def script(rng: np.random.Generator, at_once: int) -> tuple[np.ndarray, list[Span]]:
    """What happens in a video: the poses of the shape, (T, 4), and the events."""
    pose = rng.uniform(-0.3, 0.3, 4)
    poses, spans = [np.tile(pose, (int(rng.integers(*_PAUSE)), 1))], list[Span]()
    done = len(poses[0])
    for _ in range(NUM_EVENTS):
        length = int(rng.integers(_LENGTH[0], _LENGTH[1] + 1))
        travel, labels = np.zeros(4), []
        for moving in sorted(rng.choice(4, at_once, replace=False).tolist()):
            way = length * rng.uniform(*_SPEED[:, moving])
            direction = int(rng.choice([-1, 1]))
            if abs(pose[moving] + direction * way) > _LIMIT[moving]:  # back, rather than out of the picture
                direction = -1 if pose[moving] > 0 else 1
            travel[moving] = np.clip(pose[moving] + direction * way, -_LIMIT[moving], _LIMIT[moving]) - pose[moving]
            labels.append(next(name for name, motion in CLASSES.items() if motion == (moving, direction)))
        poses.append(pose + travel * np.linspace(0, 1, length)[:, None])
        spans.append((labels, done, done + length))
        pose = pose + travel
        poses.append(np.tile(pose, (int(rng.integers(*_PAUSE)), 1)))
        done += length + len(poses[-1])
    return np.concatenate(poses), spans


def _render_video(root: Path, at_once: int, seed: int, split: str, number: int) -> list[list[str]]:
    key = [seed, at_once, list(NUM_VIDEOS).index(split), number]
    rng = np.random.default_rng(key)
    poses, spans = script(rng, at_once)
    codec, suffix = (("mpeg4", "avi"), ("libx264", "mp4"))[number % 2]
    path = root / split / f"{number:03d}.{suffix}"
    if not path.exists():
        phase, speed = rng.uniform(0, 2 * np.pi, 2), rng.uniform(0.008, 0.02, 2)
        shift = 0.25 * np.sin(phase + speed * np.arange(len(poses))[:, None])
        write_video(path, draw(np.random.default_rng([*key, 1]), poses, shift)[0], FPS, codec)
    name = path.relative_to(root).as_posix()
    return [[name, "|".join(labels), f"{first / FPS}", f"{stop / FPS}", split] for labels, first, stop in spans]
