"""The rendered data set `digits`: handwritten digits among pieces of others, for networks that look for something.

The digits are scikit-learn's, 1,797 of 8x8 pixels (E. Alpaydin and C. Kaynak, UCI repository, CC BY 4.0), enlarged. As
in the cluttered MNIST of Mnih et al. (https://arxiv.org/abs/1406.6247) each image has one, at a random place, and
pieces of others. Digits of the test images are in no training image, whole or in pieces.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from cbam3d.errors import InputError
from cbam3d.files import atomic_write

CLASSES = [str(digit) for digit in range(10)]
NUM_IMAGES = {"train": 10_000, "test": 2_000}
SIZE = 32  # pixels, height and width
_DIGIT = 16  # pixels
_PIECES = 3  # per image, half as high and wide as a digit
_NUM_TEST_DIGITS = 397


def render(root: str | Path, seed: int = 0) -> int:
    """Render the data set as ROOT/<split>/<class>/<number>.png; return the number of images.

    Args:
        root: folder, created if missing. Images that are there are kept.
        seed: the same seed gives the same images.
    """
    digits, labels = _digits()
    order = np.random.default_rng([seed, 0]).permutation(len(digits))
    sources = {"test": order[:_NUM_TEST_DIGITS], "train": order[_NUM_TEST_DIGITS:]}
    for number, (split, count) in enumerate(NUM_IMAGES.items(), start=1):
        rng = np.random.default_rng([seed, number])
        for index in range(count):
            pixels, which = render_image(digits, sources[split], rng)
            path = Path(root) / split / CLASSES[labels[which]] / f"{index:05d}.png"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(path) as unfinished:
                    Image.fromarray(pixels).save(unfinished, "png")
    return sum(NUM_IMAGES.values())


def render_image(digits: np.ndarray, sources: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """One image, uint8 (SIZE, SIZE), and the row of its digit.

    Args:
        digits: uint8 (N, 16, 16).
        sources: rows to draw from.
        rng: decides.
    """
    pixels = np.zeros((SIZE, SIZE), np.uint8)
    half = _DIGIT // 2
    for _ in range(_PIECES):
        top, left = rng.integers(0, _DIGIT - half + 1, size=2)
        _paste(pixels, digits[rng.choice(sources)][top : top + half, left : left + half], rng)
    which = int(rng.choice(sources))
    _paste(pixels, digits[which], rng)
    return pixels, which


def _paste(pixels: np.ndarray, piece: np.ndarray, rng: np.random.Generator) -> None:
    top, left = rng.integers(0, SIZE - len(piece) + 1, size=2)
    part = pixels[top : top + len(piece), left : left + len(piece)]
    np.maximum(part, piece, out=part)


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """All digits, uint8 (N, 16, 16), and their classes."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError('the data set digits needs scikit-learn: pip install "cbam3d[digits]"') from None
    flat, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(np.asarray(flat)).float().reshape(-1, 1, 8, 8) / 16
    enlarged = F.interpolate(images, size=(_DIGIT, _DIGIT), mode="bilinear", align_corners=False)[:, 0]
    return (enlarged * 255).round().clamp(0, 255).to(torch.uint8).numpy(), np.asarray(labels)
