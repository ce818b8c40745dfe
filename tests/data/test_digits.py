import numpy as np
import pytest
from PIL import Image

from cbam3d.data import digits

pytest.importorskip("sklearn")


def test_rendering_is_deterministic_and_can_be_completed(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "NUM_IMAGES", {"train": 40, "test": 10})
    assert digits.render(tmp_path / "a") == 50
    digits.render(tmp_path / "b")
    files = {path.relative_to(tmp_path / "a"): path.read_bytes() for path in (tmp_path / "a").rglob("*.png")}
    assert len(files) == 50
    missing = next((tmp_path / "b").rglob("*.png"))
    missing.unlink()
    digits.render(tmp_path / "b")
    assert files == {path.relative_to(tmp_path / "b"): path.read_bytes() for path in (tmp_path / "b").rglob("*.png")}
    with Image.open(tmp_path / "a" / next(iter(files))) as image:
        assert image.size == (digits.SIZE, digits.SIZE)


def test_an_image_has_its_digit_whole():
    """Wherever it is: at its place no pixel is darker than the digit's."""
    images, _ = digits._digits()
    rng = np.random.default_rng(0)
    for _ in range(20):
        pixels, which = digits.render_image(images, np.arange(100), rng)
        side = images.shape[1]
        places = range(digits.SIZE - side + 1)
        windows = (pixels[y : y + side, x : x + side] for y in places for x in places)
        assert which < 100
        assert any((window >= images[which]).all() for window in windows)
