"""What a run can do from Python: networks of the user's own, code that is trusted or not, scripts, threads."""

import logging
import pickle
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import cbam3d
from cbam3d import create_model, load_run, open_run, register_model, train
from cbam3d.errors import InputError
from cbam3d.files import load_tensors
from cbam3d.models import zoo
from cbam3d.runs.predictor import Predictor
from cbam3d.runs.progress import show_progress
from tests.conftest import pictures
from tests.tiny import TINY, train_tiny


class Own(nn.Module):
    """A network of the user's own, (N, 3, T, H, W) -> (N, num_classes)."""

    def __init__(self, num_classes: int, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, width, 3, padding=1)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3, 4)))


class Tied(nn.Module):
    """Two layers with the same weights."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, num_classes)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x.mean((2, 3, 4)))))


@pytest.fixture
def videos(tiny_run):
    return tiny_run.parent / "videos"


def test_a_network_that_is_given_trains_and_comes_back(videos, tmp_path):
    network = Own(8)
    before = network.head.weight.detach().clone()
    run = train_tiny(videos, tmp_path / "run", model=network)
    assert not torch.equal(network.head.weight, before)  # in place
    video = next(videos.rglob("*.avi"))
    opened = open_run(tmp_path / "run", model=Own(8))
    assert opened.predictor()(video) == run.predictor()(video)
    assert opened.evaluate().scores["loss"] == pytest.approx(run.metrics["loss"], rel=1e-5)
    train({"train.epochs": 2}, run_dir=tmp_path / "run", resume=True, model=Own(8))
    with pytest.raises(InputError, match=r"the network was passed to train\(model=…\)"):
        load_run(tmp_path / "run")
    with pytest.raises(InputError, match="does not fit the network"):
        open_run(tmp_path / "run", model=Own(8, width=5)).model()


def test_a_network_with_other_logits_is_refused_before_training(videos, tmp_path):
    with pytest.raises(InputError, match=r"logits \(2, 8\), got \(2, 7\)"):
        train_tiny(videos, tmp_path / "run", model=Own(7))
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


def test_what_has_no_effect_on_a_network_that_is_given_is_refused(videos, tmp_path):
    for values, message in (
        ({"model.weights": "weights.pt"}, r"model\.weights has no effect on a network of your own"),
        ({"model": {"head": "attention"}}, r"model\.head has no effect"),
    ):
        with pytest.raises(InputError, match=message):
            train_tiny(videos, tmp_path / "run", values, model=Own(8))


def test_a_checkpoint_before_the_last_is_not_published_with_its_scores(videos, tmp_path):
    run = train_tiny(videos, tmp_path / "run", {"train.epochs": 2})
    first = tmp_path / "run" / "checkpoints" / "best.ckpt"
    state = torch.load(first, weights_only=True)
    state["state"]["epoch"] = 1
    torch.save(state, first)
    assert "video_top1" in repr(run)
    assert "video_top1" not in repr(open_run(first))
    with pytest.raises(InputError, match="the scores of its run are those of epoch 2, not of 1"):
        open_run(first).save_pretrained(tmp_path / "out")


def test_tied_weights_are_saved(videos, tmp_path):
    network = Tied(8)
    run = train_tiny(videos, tmp_path / "run", model=network)
    folder = run.save_pretrained(tmp_path / "out")
    saved = load_file(folder / "model.safetensors")
    assert torch.equal(saved["second.weight"], saved["first.weight"])
    assert torch.equal(saved["first.weight"], network.first.weight.detach())


@pytest.mark.parametrize("model", [Own, "resnet10", len])
def test_what_is_no_network_is_refused_at_once(tiny_run, tmp_path, model):
    for use in (lambda: train(TINY, run_dir=tmp_path / "run", model=model), lambda: open_run(tiny_run, model=model)):
        with pytest.raises(InputError, match=r"model must be a torch\.nn\.Module"):
            use()
    assert not (tmp_path / "run").exists()


def test_a_network_that_does_not_take_the_clips_is_refused_in_one_line(videos, tmp_path):
    with pytest.raises(InputError, match="does not accept a float32 batch of shape") as raised:
        train_tiny(videos, tmp_path / "run", model=nn.Linear(3, 8))
    assert "\n" not in str(raised.value)


def test_a_class_is_named_by_its_path(videos, tmp_path):
    values = {"model.name": "tests.runs.test_run:Own", "model.options": {"width": 6}, "model.attention": "none"}
    run = train_tiny(videos, tmp_path / "run", values)
    assert run.model().conv.out_channels == 6
    for name, message in (
        ("tests.runs.test_run:Onw", "no 'Onw' in tests.runs.test_run"),
        ("nowhere.at_all:Own", "no module 'nowhere' to import"),
        ("os:system", "is not a subclass of torch.nn.Module"),
        ("tests.runs.test_run:TINY", "is not a subclass of torch.nn.Module"),
    ):
        with pytest.raises(ValueError, match=message):
            create_model(name, 8)


def test_code_that_a_checkpoint_names_is_imported_only_when_it_is_trusted(tiny_run, tmp_path, monkeypatch):
    (tmp_path / "stranger_net.py").write_text(
        "import pathlib\npathlib.Path(__file__).with_name('imported').touch()\nfrom tests.runs.test_run import Own\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    shutil.copytree(tiny_run, tmp_path / "run")
    path = tmp_path / "run/checkpoints/last.ckpt"
    saved = load_tensors(path, "checkpoint")
    saved["config"]["model"] |= {"name": "stranger_net:Own", "attention": "none", "options": {}}
    saved["model"] = Own(8).state_dict()
    torch.save(saved, path)
    with pytest.raises(InputError, match="its network is the class stranger_net:Own, which is code"):
        load_run(tmp_path / "run")
    assert not (tmp_path / "imported").exists()
    config = (tmp_path / "run/config.yaml").read_text().replace("name: resnet10", "name: stranger_net:Own")
    (tmp_path / "run/config.yaml").write_text(config)
    with pytest.raises(InputError, match=r"which is code: give it as model\.name to trust it"):
        train(run_dir=tmp_path / "run", resume=True)
    assert not (tmp_path / "imported").exists()
    saved["config"]["run"] |= {"precision": "auto", "accelerator": "cpu"}  # which asks what the network consists of
    torch.save(saved, path)
    with pytest.raises(InputError, match="its network is the class stranger_net:Own, which is code"):
        open_run(tmp_path / "run").evaluate()
    assert not (tmp_path / "imported").exists()
    assert isinstance(open_run(tmp_path / "run", trust_code=True).model(), Own)
    assert (tmp_path / "imported").exists()
    del sys.modules["stranger_net"]


def test_a_registered_network_is_one_of_all(monkeypatch):
    monkeypatch.setattr(zoo.networks, "added", {})
    register_model("own_net", Own)
    assert "own_net" in cbam3d.list_models()
    model = create_model("own_net", 5, attention="se", attention_options={"position": ["conv"]}, width=8)
    assert model(torch.zeros(2, 3, 4, 8, 8)).shape == (2, 5)
    assert [one.where for one in cbam3d.list_insertions(model)] == ["conv"]
    for name in ("own_net", "resnet18", "Own", "a/b"):
        with pytest.raises(ValueError, match="a name of its own"):
            register_model(name, Own)
    with pytest.raises(ValueError, match=r"own_net: .*unexpected keyword argument 'widht'"):
        create_model("own_net", 5, widht=8)


SCRIPT = """
import multiprocessing, sys
from pathlib import Path
multiprocessing.set_start_method(sys.argv[2])  # as on macOS and Windows; Python 3.14 has forkserver
Path("runs_of_this_script").open("a").write("x")
import cbam3d
root = sys.argv[1]
cbam3d.prepare("folder", root, workers=2)
from tests.tiny import TINY
run = cbam3d.train({**TINY, "data.root": root, "data.num_workers": 1}, run_dir="run")
print(run.evaluate().scores["video_top1"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_script_needs_no_main_guard(videos, tmp_path, method):
    shutil.copytree(videos, tmp_path / "videos")
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py", str(tmp_path / "videos"), method]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs_of_this_script").read_text() == "x"
    assert 0 <= float(done.stdout) <= 1


def test_a_run_in_another_thread_leaves_signals_alone(videos, tmp_path):
    """As in a notebook's server, where signals belong to the main thread."""
    done = []
    thread = threading.Thread(target=lambda: done.append(train_tiny(videos, tmp_path / "run")))
    thread.start()
    thread.join()
    assert done[0].metrics["num_videos"] == 8


def test_the_library_says_nothing_by_itself(videos, tmp_path, capfd):
    """Warnings go where Python's logging sends them; nothing is written to the output."""
    train_tiny(videos, tmp_path / "run")
    captured = capfd.readouterr()
    assert captured.out == ""
    assert logging.getLogger("cbam3d").handlers == []


def test_progress_is_an_iteration_with_a_text(capsys):
    seen, texts = [], []

    def text():
        texts.append(len(seen))
        return "reading"

    for item in show_progress(iter("abc"), 5, text, done=2):
        seen.append(item)
    assert seen == ["a", "b", "c"]
    assert texts[0] == 0
    assert capsys.readouterr().out == ""


def test_the_values_of_a_run_are_at_hand(tiny_run, tmp_path):
    run = open_run(tiny_run)
    assert run.config.data.num_frames == TINY["data.num_frames"]
    assert len(run.classes) == 8
    assert run.folder == tiny_run
    assert not run.model().training
    assert open_run(tiny_run / "checkpoints/best.ckpt").folder == tiny_run
    shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "run/metrics.json").unlink()
    with pytest.raises(InputError, match="training has not ended"):
        _ = open_run(tmp_path / "run").metrics


def test_where_there_is_no_terminal_progress_is_a_line_a_minute(monkeypatch, caplog):
    caplog.set_level("INFO", "cbam3d")
    now = [0.0]
    monkeypatch.setattr("cbam3d.runs.progress.time.monotonic", lambda: now[0])
    for _ in show_progress(range(100), 120, lambda: "reading", done=20):
        now[0] += 1.5
    lines = [record.message for record in caplog.records]
    assert lines[0] == "reading: 60 of 120 (50%), 0.667/s, 01:30 left"
    assert lines[1] == "reading: 100 of 120 (83%), 0.667/s, 00:30 left"
    assert len(lines) == 2


def test_a_notebook_shows_them_in_a_line_or_as_a_picture(tiny_run):
    run = open_run(tiny_run)
    assert repr(run) == f"Run('{tiny_run}', resnet10, 8 classes, video_top1 {run.metrics['video_top1']:.2%})"
    found = run.evaluate()
    assert repr(found).startswith(f"Result(video_top1 {found.scores['video_top1']:.2%} (")
    assert "chance 12.50%" in repr(found)
    explanation = run.explain(next((tiny_run.parent / "videos").rglob("*.avi")))
    assert len(repr(explanation)) < 300
    assert explanation._repr_png_().startswith(b"\x89PNG")


def test_a_network_of_which_the_checkpoint_has_nothing_is_refused_before_it_is_built(tiny_run, tmp_path):
    saved = load_tensors(tiny_run / "checkpoints/last.ckpt", "checkpoint")
    saved["config"]["model"] |= {"name": "resnet152", "options": {"width": 4096}}  # more than 200 GiB
    saved["model"] = {}
    torch.save(saved, tmp_path / "huge.ckpt")
    with pytest.raises(InputError, match=r"huge\.ckpt does not fit the network: \S+ is missing"):
        load_run(tmp_path / "huge.ckpt")


def test_threads_may_share_a_predictor(tiny_run):
    """Networks on frames keep the number of frames for the length of a pass."""
    model = create_model("resnet10", 8, width=8, as_video="frames", attention="tsm").eval()
    run = open_run(tiny_run)
    predictor = Predictor(model, run.classes, run.config, images=False)
    views = [pictures(3, frames, 32, 32) for frames in (4, 6)]
    expected = [predictor.score([one]) for one in views]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: predictor.score([views[i % 2]]), range(40)))
    assert all(torch.equal(one, expected[i % 2]) for i, one in enumerate(found))
    assert torch.equal(pickle.loads(pickle.dumps(predictor)).score([views[0]]), expected[0])
