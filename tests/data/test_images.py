import pickle
import struct
import subprocess
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from cbam3d.data.batch import SampleIndex
from cbam3d.data.images import load_folder, load_torchvision, read_image
from cbam3d.data.recipe import Recipe
from cbam3d.errors import InputError

RECIPE = Recipe("image_folder", "image", ["{split}/{label}/{name}", "{label}/{name}"])


def save(path, size=(10, 8), colour=(200, 10, 60), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path)


def test_images_are_read_scaled_and_labelled(tmp_path):
    save(tmp_path / "train/b/1.png")
    save(tmp_path / "train/a/2.png", (30, 60), (1, 2, 3))
    save(tmp_path / "test/a/3.png", mode="L")
    loaded, classes, problems = load_folder(tmp_path, RECIPE, 6, 0.2)
    assert classes == ["a", "b"]
    assert problems == []
    assert sorted(loaded) == ["test", "train"]
    train = loaded["train"]
    assert train.images.shape == (2, 3, 6, 6)
    batch = train.__getitems__([SampleIndex(0, 1), SampleIndex(0, 0)])
    assert [train.name(index.item) for index in batch.indices] == ["train/b/1.png", "train/a/2.png"]
    assert batch.labels.tolist() == [1, 0]
    (views,) = batch.views_of_one_shape()
    assert views.shape == (2, 3, 6, 6)
    assert views[1, :, 3, 3].tolist() == [1, 2, 3]


def test_photos_are_made_upright(tmp_path):
    upright = Image.fromarray(np.arange(36, dtype=np.uint8).reshape(6, 6)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    for name, tolerance in (("a.png", 0), ("a.jpg", 3)):
        upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / name, exif=exif, quality=98, subsampling=0)
        difference = read_image(tmp_path / name, 6).int() - torch.from_numpy(np.asarray(upright).copy()).permute(
            2, 0, 1
        )
        assert difference.abs().max() <= tolerance
    upright.save(tmp_path / "odd.png", exif=b"Exif\0\0nonsense")
    assert read_image(tmp_path / "odd.png", 6).shape == (3, 6, 6)


def test_without_splits_a_part_of_each_class_is_held_out(tmp_path):
    for label in "ab":
        for i in range(20):
            save(tmp_path / label / f"{i}.png")
    loaded, _, _ = load_folder(tmp_path, RECIPE, 6, 0.25)
    assert np.bincount(loaded["test"].labels).tolist() == [5, 5]
    assert np.bincount(loaded["train"].labels).tolist() == [15, 15]


def test_what_cannot_be_used_is_named(tmp_path):
    save(tmp_path / "train/a/good.png")
    (tmp_path / "train/a/bad.jpg").write_bytes(b"no image")
    save(tmp_path / "stray.png")
    save(tmp_path / "train/tiger/x.png")
    recipe = Recipe("pets", "image", ["{split}/{label}/{name}"], classes=["a", "tigers"])
    loaded, _, problems = load_folder(tmp_path, recipe, 6, 0.2)
    assert len(loaded["train"]) == 1
    reasons = dict(problems)
    assert reasons["stray.png"].startswith("path does not fit")
    assert reasons["train/a/bad.jpg"].startswith("unreadable")
    assert reasons["train/tiger/x.png"] == "unknown class of pets 'tiger': did you mean 'tigers'?"


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        load_folder(tmp_path / "nowhere", RECIPE, 6, 0.2)
    with pytest.raises(InputError, match="no usable image"):
        load_folder(tmp_path, RECIPE, 6, 0.2)


def test_cifar_comes_through_torchvision(tmp_path, monkeypatch):
    """The files of CIFAR-10 in its own format, a few images long; the checksums are those of the real ones."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    pixels = {}
    names = [name for name, _ in datasets.CIFAR10.train_list + datasets.CIFAR10.test_list]
    for name in names:
        pixels[name] = rng.integers(0, 256, (4, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": pixels[name], "labels": [3, 1, 4, 1]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr(datasets.cifar, "check_integrity", lambda *arguments: True)
    loaded, classes = load_torchvision(tmp_path, Recipe("cifar10", "image", torchvision="CIFAR10"), 32)
    assert loaded["train"].images.shape == (20, 3, 32, 32)
    assert classes == list("abcdefghij")
    assert loaded["test"].labels.tolist() == [3, 1, 4, 1]
    expected = torch.from_numpy(pixels["test_batch"][2].reshape(3, 32, 32))
    assert torch.equal(loaded["test"].images[2], expected)
    larger, _ = load_torchvision(tmp_path, Recipe("cifar10", "image", torchvision="CIFAR10"), 64)
    assert larger["test"].images.shape == (4, 3, 64, 64)


def test_a_picture_too_large_to_open_is_named(tmp_path):
    """A PNG header of 10^6 x 10^6 pixels."""
    header = struct.pack(">IIBBBBB", 10**6, 10**6, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "bomb.png").write_bytes(start + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    with pytest.raises(InputError, match=r"unreadable \(.*exceeds limit") as error:
        read_image(tmp_path / "bomb.png", 32)
    assert "\n" not in str(error.value)


def test_no_other_program_is_asked_to_read_a_picture(tmp_path, monkeypatch):
    """PostScript by another name would go to Ghostscript."""
    save(tmp_path / "test/red/good.png")
    (tmp_path / "test/red/bad.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    (tmp_path / "test/red/worse.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    monkeypatch.setattr(subprocess, "Popen", None)
    loaded, _, problems = load_folder(tmp_path, RECIPE, 6, 0.2)
    assert loaded["test"].names == ["test/red/good.png"]
    ((name, reason),) = problems
    assert name == "test/red/bad.png"
    assert "cannot identify" in reason


def test_links_that_lead_out_are_followed_where_that_is_allowed(tmp_path):
    save(tmp_path / "elsewhere/secret.png")
    save(tmp_path / "data/test/red/good.png")
    (tmp_path / "data/test/red/link.png").symlink_to(tmp_path / "elsewhere/secret.png")
    loaded, _, problems = load_folder(tmp_path / "data", RECIPE, 6, 0.2)
    assert loaded["test"].names == ["test/red/good.png"]
    assert problems == [("test/red/link.png", "a link that leads out of the folder (data.allow_outside accepts it)")]
    loaded, _, problems = load_folder(tmp_path / "data", RECIPE, 6, 0.2, allow_outside=True)
    assert (len(loaded["test"].names), problems) == (2, [])


def test_grey_images_of_16_bits_keep_their_shades(tmp_path):
    shades = np.linspace(0, 65_535, 64).astype(np.uint16).reshape(8, 8)
    for name in ("a.png", "a.tif"):
        Image.fromarray(shades).save(tmp_path / name)
        assert np.array_equal(read_image(tmp_path / name, 8)[0].numpy(), shades >> 8)
    Image.fromarray(shades.astype(np.float32)).save(tmp_path / "real.tif")
    with pytest.raises(InputError, match="its pixels are real numbers"):
        read_image(tmp_path / "real.tif", 8)
    save(tmp_path / "strip.png", (1, 33))
    with pytest.raises(InputError, match="1x33 pixels: one side is too long"):
        read_image(tmp_path / "strip.png", 8)


def test_hidden_files_and_folders_are_no_data(tmp_path):
    for name in ("train/a/1.png", "test/a/2.png", "train/.checkpoints/0.png", "train/a/._1.png"):
        save(tmp_path / name)
    loaded, classes, problems = load_folder(tmp_path, RECIPE, 6, 0.2)
    assert (classes, problems, len(loaded["train"])) == (["a"], [], 1)


def test_grey_images_of_torchvision_and_what_is_not_like_cifar(tmp_path, monkeypatch):
    class Grey:
        def __init__(self, root, train, download):
            self.data, self.targets, self.classes = (
                torch.arange(32).view(2, 4, 4).byte(),
                torch.tensor([0, 1]),
                ["a", "b"],
            )

    monkeypatch.setattr(datasets, "Grey", Grey, raising=False)
    loaded, classes = load_torchvision(tmp_path, Recipe("grey", "image", ["{label}"], torchvision="Grey"), 4)
    assert classes == ["a", "b"]
    assert torch.equal(loaded["train"].images, torch.arange(32).view(2, 1, 4, 4).byte().expand(2, 3, 4, 4))
    for name in ("STL10", "Nothing"):
        with pytest.raises(InputError, match=rf"torchvision\.datasets\.{name} is not like CIFAR10"):
            load_torchvision(tmp_path, Recipe("other", "image", ["{label}"], torchvision=name), 4)
