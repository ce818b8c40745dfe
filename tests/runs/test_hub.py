"""Runs on the Hub: pushed to a stand-in of it and loaded from there, and as a folder without any network."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from cbam3d import load_run, open_run
from cbam3d.errors import InputError
from tests.runs.hub_server import serve


@pytest.fixture
def video(tiny_run):
    return next((tiny_run.parent / "videos").glob("*/*.mp4"))


def test_a_folder_predicts_as_the_run(tiny_run, video, tmp_path):
    folder = open_run(tiny_run).save_pretrained(tmp_path / "out", "me/net", license="mit", citation="@misc{a}")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "metrics.json",
        "model.safetensors",
    ]
    assert load_run(folder)(video) == load_run(tiny_run)(video)
    again = open_run(folder)
    assert again.metrics == open_run(tiny_run).metrics
    assert again.folder == folder
    for path in folder.glob("*.*"):
        assert str(tiny_run.parent).encode() not in path.read_bytes()


def test_the_card_says_what_the_run_is(tiny_run, tmp_path):
    run = open_run(tiny_run)
    text = (run.save_pretrained(tmp_path, "me/net", license="cc-by-4.0", citation="@misc{a}") / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    facts = yaml.safe_load(front)
    assert (facts["license"], facts["pipeline_tag"], facts["library_name"]) == (
        "cc-by-4.0",
        "video-classification",
        "cbam3d",
    )
    (metric,) = facts["model-index"][0]["results"][0]["metrics"]
    assert metric["value"] == pytest.approx(run.metrics["video_top1"], abs=1e-4)
    low, high = run.metrics["intervals_95"]["video_top1"]
    assert f"| video_top1 | {run.metrics['video_top1']:.2%} | {low:.2%} … {high:.2%} |" in body
    assert all(f"\n- {name}\n" in body for name in run.classes)
    assert 'load_run("hf:me/net")' in body
    assert yaml.safe_load(body.split("```yaml\n")[1].split("```")[0])["model"]["options"] == {"width": 8}
    assert "@misc{a}" in body


@pytest.mark.slow
def test_pushed_to_a_hub_and_used_from_there(tiny_run, video, tmp_path):
    with serve() as server:
        place = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}

        def command(*words, token="right"):
            environment = {**os.environ, **place, "HF_TOKEN": token, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
            environment.pop("HF_HUB_OFFLINE", None)
            words = [sys.executable, "-m", "cbam3d", *map(str, words)]
            return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)

        refused = command("push", tiny_run, "someone/net", token="wrong")
        assert refused.returncode == 2
        assert refused.stderr.startswith("cbam3d: someone/net: cannot be pushed (")
        assert refused.stderr.count("\n") == 1
        done = command("push", tiny_run, "someone/net", "--license", "mit")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == f"{server.address}/someone/net"
        assert set(server.files["someone/net"]) >= {"README.md", "config.json", "metrics.json", "model.safetensors"}
        found = command("predict", "hf:someone/net", video, "--json")
        assert found.returncode == 0, found.stderr
        expected = [[name, pytest.approx(value, abs=1e-6)] for name, value in load_run(tiny_run)(video)]
        assert json.loads(found.stdout)["classes"] == expected
        lost = command("predict", "hf:someone/other", video)
        assert lost.returncode == 2
        assert "someone/other: neither a folder nor a repository" in lost.stderr


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": "network"}, "describes none"),
        ({"classes": 5}, "describes no run"),
        ({"config": {"model": {"name": "resnet10", "wdith": 3}}}, "its configuration"),
        ({"epoch": None}, "describes no run"),
    ],
)
def test_what_is_no_run_is_refused(tiny_run, tmp_path, change, reason):
    folder = open_run(tiny_run).save_pretrained(tmp_path / "out")
    facts = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(facts | change))
    with pytest.raises(InputError, match=reason):
        load_run(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"no readable config\.json"):
        load_run(folder)


def test_a_name_without_owner_is_refused(tiny_run):
    for name in ("net", "a/b/c", "/net"):
        with pytest.raises(InputError, match="owner/name"):
            open_run(tiny_run).push_to_hub(name)
