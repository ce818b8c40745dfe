"""What several test modules need."""

import csv
import os
import shlex
import subprocess
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the tensors here are too small for more, in processes too

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from cbam3d import train
from cbam3d.data import motion
from cbam3d.runs import comparison
from cbam3d.video.encode import write_video
from tests.tiny import train_tiny

SHARED = Path(__file__).parents[2] / "shared" / "data"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        if os.environ.get("CBAM3D_REQUIRE_CUDA"):
            pytest.fail("CBAM3D_REQUIRE_CUDA is set, but there is no CUDA device")
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def plots_are_blank(request, monkeypatch):
    """Drawing takes longer than a training of a second: figures are made, but a blank picture of each is saved, except
    by tests marked `draws`."""
    if request.node.get_closest_marker("draws") is None:
        monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: Image.new("L", (1, 1)).save(path, "PNG"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real files beside the clone; absent in most places."""
    if not SHARED.is_dir():
        pytest.skip(f"no real data at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """The folder of a run of one epoch on 16 of the demo's videos, which lie in `videos` beside it."""
    root = tmp_path_factory.mktemp("tiny")
    motion.render(root / "videos", num_groups=2)
    return train_tiny(root / "videos", root / "run", {"data.stride": 1}).folder


@pytest.fixture(scope="session")
def picture_run(tmp_path_factory) -> Path:
    """The folder of a run of one epoch on 24 small pictures, which lie in `pictures` beside it."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split in ("train", "test"):
        for label, base in (("dark", 0), ("light", 100)):
            folder = root / "pictures" / split / label
            folder.mkdir(parents=True)
            for i in range(6):
                Image.fromarray(rng.integers(base, base + 150, (40, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    data = {"data.recipe": "image_folder", "data.root": str(root / "pictures"), "eval.flip": True}
    model = {"model.options.width": 8, "model.attention": "cbam", "train.epochs": 1, "train.batch_size": 4}
    return train({"config": "cifar10", **data, **model}, run_dir=root / "run").folder


@pytest.fixture
def compared_here(monkeypatch):
    """`compare` trains in this process, instead of one of its own for each network."""

    def run(self, command, **options):
        train(command[command.index("--config") + 1])
        return 0

    monkeypatch.setattr(comparison._Processes, "run", run)


@pytest.fixture(scope="session")
def s3_server():
    from tests.storage.s3 import serve  # a second to import

    with serve() as running:
        yield running


@pytest.fixture
def s3(s3_server):
    """An S3 server with one bucket, `films`, which can be told to fail."""
    s3_server.restart()
    yield s3_server
    s3_server.restart()


def pictures(*shape: int) -> torch.Tensor:
    """Noise, uint8."""
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def numbered_frames(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames that survive any codec: the frame's number as eight black or white bars, most significant first.

    Below them lies noise, so that every frame takes some bytes, as in real videos.
    """
    bits = (np.arange(count)[:, None] >> np.arange(7, -1, -1)) & 1
    columns = np.repeat(bits, width // 8, axis=1).astype(np.uint8) * 255
    frames = np.broadcast_to(columns[:, None, :, None], (count, height, width, 3)).copy()
    noise = np.random.default_rng(0).integers(0, 256, (count, height // 3, width, 3), dtype=np.uint8)
    frames[:, -(height // 3) :] = noise
    return frames


def read_numbers(clip: torch.Tensor) -> list[int]:
    """The numbers in a clip of `numbered_frames`, uint8 (3, T, H, W), of any size."""
    _, _, height, width = clip.shape
    centres = (np.arange(8) + 0.5) * width / 8
    bits = clip.float().mean(0)[:, height // 2, centres.astype(int)] > 127
    return [int("".join(str(int(bit)) for bit in row), 2) for row in bits]


def ffmpeg(folder: Path, command: str) -> bytes:
    """Run FFmpeg's own command in a folder; return what it writes to its output."""
    parts = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *shlex.split(command)]
    done = subprocess.run(parts, cwd=folder, capture_output=True, check=False)
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.fixture
def make_video(tmp_path: Path):
    """A function that writes a video of numbered frames below tmp_path and returns its path."""

    def make(name: str = "video.mp4", count: int = 40, codec: str = "libx264", **options: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, numbered_frames(count), 25, codec, **options)
        return path

    return make
