"""In-memory uint8 images: CIFAR through torchvision, or folders of image files."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.v2 import functional as F

from cbam3d.data.batch import Packed, SampleIndex
from cbam3d.data.recipe import Recipe
from cbam3d.data.scan import FileProgress
from cbam3d.data.split import split_by_group
from cbam3d.data.workers import num_cores
from cbam3d.errors import InputError, unknown
from cbam3d.files import is_hidden, leads_out
from cbam3d.video.pixels import is_elongated


class ImageDataset:
    """Images in memory, on any device; a batch of them is one gather.

    Args:
        images: uint8 (N, 3, H, W).
        labels: class numbers, int64 (N,).
        names: the name of each image.
        device: where to store the images; None keeps their device.
    """

    def __init__(self, images: Tensor, labels: Tensor, names: list[str], device: torch.device | None = None) -> None:
        self.images, self.labels, self.names = images, labels, names
        self.device = device or images.device

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> "ImageDataset":
        """The same images, moved to the device on first access."""
        return ImageDataset(self.images, self.labels, self.names, device)

    def name(self, index: int) -> str:
        """The image's path relative to the root, or its split and number."""
        return self.names[index]

    def stamp(self, index: int) -> str:
        """What tells an image from another: its name and its pixels."""
        return f"{self.name(index)}|{hashlib.sha256(self.images[index].cpu().numpy().tobytes()).hexdigest()}"

    def by_name(self) -> "ImageDataset":
        """Itself: nothing random happens here."""
        return self

    def __getitems__(self, indices: list[SampleIndex]) -> Packed:
        self.images, self.labels = self.images.to(self.device), self.labels.to(self.device)
        items = torch.tensor([index.item for index in indices], device=self.device)
        shapes = [tuple(self.images.shape[1:])] * len(indices)
        return Packed(indices, self.labels[items], self.images.index_select(0, items).flatten(), shapes, [])


def load_torchvision(root: Path, recipe: Recipe, size: int) -> tuple[dict[str, ImageDataset], list[str]]:
    """Load the training and test images of a torchvision data set, downloading them to `root` if missing.

    Images of another size are resized to `size` pixels.

    Returns: the data sets by split, and the class names.

    Raises:
        InputError: no network, or a checksum mismatch.
    """
    loaded, classes = {}, []
    for split in ("train", "test"):
        try:
            source = getattr(datasets, recipe.torchvision or "")(root, train=split == "train", download=True)
            images = np.asarray(source.data)  # (N, H, W, 3), or grey (N, H, W)
        except (AttributeError, TypeError):
            raise InputError(
                f"recipe {recipe.name}: torchvision.datasets.{recipe.torchvision} is not like CIFAR10"
            ) from None
        except (OSError, RuntimeError) as error:
            raise InputError(f"{recipe.torchvision} cannot be downloaded to {root}: {error}") from None
        images = np.broadcast_to(images[..., None], (*images.shape, 3)) if images.ndim == 3 else images
        images = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        if images.shape[-1] != size:
            images = F.resize(images, [size], antialias=True)
        names = [f"{split}/{i}" for i in range(len(images))]
        loaded[split] = ImageDataset(images, torch.as_tensor(source.targets), names)
        classes = list(source.classes)
    return loaded, classes


_SMALL_FILE = 1 << 14  # bytes
# those that Pillow reads itself: others it would give to programs such as Ghostscript
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")


def picture_suffixes() -> set[str]:
    """The suffixes of files that are taken for images: .jpg, .png, …"""
    return {suffix for suffix, name in Image.registered_extensions().items() if name in _FORMATS}


def load_folder(
    root: Path,
    recipe: Recipe,
    size: int,
    test_fraction: float,
    progress: FileProgress = lambda items, total: items,
    allow_outside: bool = False,
) -> tuple[dict[str, ImageDataset], list[str], list[tuple[str, str]]]:
    """Read every image below `root` into memory, shorter side resized to `size`, centre-cropped to a square.

    If the paths specify no split, `test_fraction` of each class is held out.

    Returns: the data sets by split, the class names, and (path, reason) of each file that cannot be used.

    Raises:
        InputError: no such folder, or no image in it that fits the recipe.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    suffixes, real_root = picture_suffixes(), os.path.realpath(root)
    found = {path.relative_to(root): path for path in root.rglob("*") if path.suffix.lower() in suffixes}
    paths = sorted(path for name, path in found.items() if not is_hidden(name))
    names = [path.relative_to(root).as_posix() for path in paths]
    for name in names:
        recipe.refuse_split_as_label(root, name)
    fields = [recipe.match(name) for name in names]
    classes = recipe.classes or sorted({match["label"] for match in fields if match})

    usable: list[tuple[Tensor, str, str, str]] = []  # image, label, name, split
    problems: list[tuple[str, str]] = []
    read = partial(_read, size=size, real_root=None if allow_outside else real_root)
    small = sum(path.lstat().st_size for path in paths[:64]) < 64 * _SMALL_FILE  # threads would wait for each other
    with ThreadPoolExecutor(num_cores()) as pool:
        reads = map(read, paths) if small else pool.map(read, paths)
        images = progress(reads, len(paths))
        for name, match, image in zip(names, fields, images, strict=True):
            if match is None:
                problems.append((name, f"path does not fit {' or '.join(recipe.patterns)}"))
            elif match["label"] not in classes:
                problems.append((name, unknown(f"class of {recipe.name}", match["label"], classes)))
            elif isinstance(image, str):
                problems.append((name, image))
            else:
                usable.append((image, match["label"], name, match.get("split") or ""))
    if not usable:
        raise InputError(f"{root}: no usable image ({': '.join(problems[0]) if problems else 'none found'})")

    tensors, labels, names, splits = (list(column) for column in zip(*usable, strict=True))
    if not any(splits):
        splits = split_by_group([[label] for label in labels], names, test_fraction)
    elif not all(splits):
        raise InputError(f"{root}: {splits.count('')} of {len(splits)} images have no split, the others have one")
    loaded = {}
    for split in sorted(set(splits)):
        rows = [i for i, value in enumerate(splits) if value == split]
        loaded[split] = ImageDataset(
            torch.stack([tensors[i] for i in rows]),
            torch.tensor([classes.index(labels[i]) for i in rows]),
            [names[i] for i in rows],
        )
    return loaded, classes, problems


def read_image(path: Path, size: int) -> Tensor:
    """Read an image, uint8 (3, size, size): shorter side resized to `size`, centre-cropped.

    Raises:
        InputError: a missing or unreadable image.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            image.load()
            if is_elongated(image.size):
                raise ValueError(f"{image.width}x{image.height} pixels: one side is too long for the other")
            picture = F.pil_to_tensor(_of_eight_bits(_upright(image)).convert("RGB"))
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"unreadable ({' '.join(str(error).split())})") from None
    if picture.shape[1:] == (size, size):
        return picture
    return F.center_crop(F.resize(picture, [size], antialias=True), [size, size])


def _of_eight_bits(image: Image.Image) -> Image.Image:
    """Grey pixels of 16 bits in 8, which Pillow would cut off at 255; others as they are."""
    if image.mode == "F":
        raise ValueError("its pixels are real numbers")
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))


def _upright(image: Image.Image) -> Image.Image:
    """An image as its EXIF says that it is to be shown; as it is where that cannot be read."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # of many types
        return image


def _read(path: Path, size: int, real_root: str | None) -> Tensor | str:
    """An image, or why there is none; with a root, links that lead out of it are not followed."""
    if real_root is not None and path.is_symlink() and leads_out(path, real_root):  # links to folders are not followed
        return "a link that leads out of the folder (data.allow_outside accepts it)"
    try:
        return read_image(path, size)
    except InputError as error:
        return str(error)
