"""What README and docs show works: Python as it stands there, commands on small data, YAML as configurations."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from argparse import Namespace
from doctest import DocTestParser, DocTestRunner
from importlib import import_module
from inspect import cleandoc
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import yaml
from PIL import Image
from torchvision.models import WeightsEnum

from cbam3d.attention import describe_attention, list_attentions, list_heads
from cbam3d.attention.catalog import mechanisms
from cbam3d.attention.heads.catalog import heads
from cbam3d.cli import main
from cbam3d.cli.main import COMMANDS
from cbam3d.config import load_config
from cbam3d.config.bundled import find_recipe
from cbam3d.config.keys import keys, sections
from cbam3d.config.reading import write_config
from cbam3d.data import motion
from cbam3d.data.recipe import load_recipe
from cbam3d.files import parse_yaml
from cbam3d.models.zoo import networks
from cbam3d.runs import train as train_run
from cbam3d.runs.variants import read_choices, read_variants
from tests.documentation import ODD_FENCE, ROOT, blocks, commands

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DATASETS = sorted((ROOT / "datasets").glob("*/README.md"))
SMALL = shlex.split(
    "--dry-run --run.accelerator cpu --data.num_frames 4 --data.stride 1 --data.short_side 32 --data.size 32 "
    "--data.num_workers 0 --train.batch_size 4 --train.accumulate 1 --eval.batch_size 4"
)
# needs the network, or programs that are not ours
ELSEWHERE = ("ray", "wget", "unar", "mkdir", "source", ".venv/bin/pre-commit")
# a stream and a camera: tests/video/test_stream.py reads a stream; and runs of events, which take half an hour
NOT_HERE = [["predict", "runs/a", "rtsp://host/stream"], ["predict", "runs/a", "0"]]
NOT_HERE += [["evaluate", "runs/events"], ["evaluate", "runs/pairs"]]
NOT_ENDING = ("serve", "push", "hf:someone/actions")  # a server, and the Hub: tests/serve, tests/runs/test_hub.py


def named(pages):
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages]


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_run):
    """A folder with what the pages name: videos, images, runs."""
    root = tmp_path_factory.mktemp("place")
    videos = tiny_run.parent / "videos"
    shutil.copytree(videos, root / "videos")
    for path in list((root / "videos").rglob("*.*")):  # so many that a fifth of them is one
        for i in range(3):
            shutil.copy(path, path.with_stem(f"{path.stem}_{i}"))
    for name in ("videos-128p", "clips", "actions", "gestures"):
        shutil.copytree(root / "videos", root / name)
    motion.render(root / "new-videos", seed=1, num_groups=2)  # that no run was trained on
    for group in (1, 2, 81, 82):
        for label in motion.CLASSES:
            (root / "data" / "motion" / label).mkdir(parents=True, exist_ok=True)
        motion._render_group(root / "data" / "motion", 0, group)
    first = next(videos.glob("*/*.avi"))
    for name in (
        "clip.avi",
        "video.avi",
        "clips/a.avi",
        "more/a.avi",
        "data/motion/rotate_clockwise/rotate_clockwise_g091.avi",
    ):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(first, root / name)
    for name in ("clip.mp4", "talk.mp4"):
        shutil.copy(next(videos.glob("*/*.mp4")), root / name)
    lines = [f"{path.relative_to(root / 'videos').as_posix()},{path.stem}" for path in (root / "videos").rglob("*.*")]
    (root / "groups.csv").write_text("\n".join(["path,group", *lines]) + "\n")
    for folder in ("data/UCF-101", "data/UCF-101-128p"):
        for label in ("Archery", "YoYo"):
            (root / folder / label).mkdir(parents=True)
            for group in (1, 2, 8, 9, 15, 16, 22):
                shutil.copy(first, root / folder / label / f"v_{label}_g{group:02d}_c01.avi")
    for label in ("kick", "throw"):
        (root / "sports" / label).mkdir(parents=True)
        for match in ("05", "06", "07"):
            shutil.copy(next(videos.glob("*/*.mp4")), root / "sports" / label / f"match{match}_001.mp4")
    rows = ["path,label,start,end"]
    for i, path in enumerate(sorted(videos.glob("*/*.mp4"))[:6]):
        (root / "matches").mkdir(exist_ok=True)
        shutil.copy(path, root / "matches" / f"match{i}.mp4")
        rows += [f"match{i}.mp4,serve,0,0.3", f"match{i}.mp4,rally,0.6,"]
    (root / "matches" / "annotations.csv").write_text("\n".join(rows) + "\n")
    classes = load_recipe(find_recipe("cifar10")).classes
    for number, name in enumerate(["pictures", "data/cifar10"]):
        for split, count in (("train", 2 + number), ("test", 1)):
            for label in classes:
                (root / name / split / label).mkdir(parents=True)
                for i in range(count):
                    Image.effect_noise((32, 32), 80).convert("RGB").save(root / name / split / label / f"{i}.png")
    for name in ("a", "b", "s0", "s1", "s2", "s3", "ucf", "ucf1", "ucf2", "ucf3", "mine", "motion", "folder"):
        shutil.copytree(tiny_run, root / "runs" / name)
    values = {key.removeprefix("--"): parse_yaml(value) for key, value in zip(SMALL[1::2], SMALL[2::2], strict=True)}
    few = {"config": "probe", "model.weights": None, "train.epochs": 1, "train.cached_views": 1, **values}
    probe = train_run({**few, "data.root": str(videos), "data.test_fraction": 0.4}, run_dir=root / "runs" / "probe")
    write_config(probe.config.override({"data.root": "videos"}), root / "runs" / "probe" / "config.yaml")
    return root


@pytest.fixture
def there(place, monkeypatch):
    """In that place, with weights that need no download, and pages of this repository."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(motion, "render", lambda root: 0)
    for registry in (mechanisms, heads, networks):  # examples add to them
        monkeypatch.setattr(registry, "added", {})

    def fresh(weights, *args, **options):
        name = type(weights).__name__.removesuffix("_Weights").lower()
        return torchvision.models.get_model(name, weights=None).state_dict()

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fresh)


def of(page, language):
    return [block for block in blocks(page) if block.language == language]


def write_weights(page):
    """A file of 100 MB, for the pages that load it."""
    name = "imagenet_resnet50.pth"
    if name in page.read_text() and not Path(name).exists():
        torch.save(torchvision.models.resnet50().state_dict(), name)


@pytest.mark.parametrize("page", named(PAGES + DATASETS))
def test_every_block_says_what_it_is(page):
    """What is neither run nor read is plain text; nothing is shown by indentation, which no test would find."""
    assert {block.language for block in blocks(page)} <= {"python", "bash", "yaml", "text", "bibtex"}
    assert not ODD_FENCE.search(page.read_text())
    outside = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"\n\n    \S", outside)


@pytest.mark.parametrize("page", named(page for page in PAGES if of(page, "python")))
def test_python_runs_as_it_stands(page, there):
    write_weights(page)
    names = {"__name__": "__main__"}
    for block in of(page, "python"):
        exec(compile("\n" * block.line + block.text, str(page), "exec"), names)


@pytest.mark.parametrize("page", named(page for page in PAGES + DATASETS if of(page, "yaml")))
def test_yaml_is_a_configuration_or_a_recipe(page, tmp_path):
    for block in of(page, "yaml"):
        path = tmp_path / ("config.yaml" if set(yaml.safe_load(block.text)) <= set(sections()) else "recipe.yaml")
        path.write_text(block.text)
        if path.stem == "config":
            load_config(path)
        else:
            load_recipe(path.parent)


def test_recipes_of_benchmarks_are_read():
    assert load_config(ROOT / "benchmarks/avletters_3d.yaml").model.name == "resnet10"
    assert len(read_variants(ROOT / "benchmarks/avletters.yaml", load_config("scratch"))) == 8


def test_the_recipe_of_the_page_reads_its_videos(there, capsys):
    (recipe, *_) = of(ROOT / "docs" / "NEW_DATASET.md", "yaml")
    Path("recipes/sports").mkdir(parents=True)
    Path("recipes/sports/recipe.yaml").write_text(recipe.text)
    for command in commands(of(ROOT / "docs" / "NEW_DATASET.md", "bash")[0].text):
        run(command)
    assert "6 videos, 6 usable" in capsys.readouterr().out
    table = Path("sports/manifest.csv").read_text()
    assert "kick/match07_001.mp4,kick,match07," in table


def run(words: list[str], small: bool = True) -> None:
    """A command of a page, on what is there; what would take hours, or several processes, only as far as it is read."""
    words = [word.removeprefix("/") if word.startswith("/data/") else word for word in words]
    program, *rest = words
    if program == "cbam3d" and rest[0] == "train":
        train(rest[1:], small)
    elif program in ("torchrun", "fabric"):
        read("train", rest[rest.index("train.py") + 1 :])
    elif program == "cbam3d" and rest[0] == "compare":
        given = read("compare", rest[1:])
        variants = ROOT / given.variants if given.variants else None
        read_choices(given.attention, given.head, variants, load_config(given.config))
    elif program == "cbam3d":
        assert rest[0] in COMMANDS
        if ">" in rest:
            rest = rest[: rest.index(">")]
        if small and rest[0] == "features":
            rest += SMALL[1:]
        if small and rest[0] == "prepare":  # it refuses to replace a table
            for place in Path().glob(f"{rest[rest.index('--root') + 1]}*"):
                (place / "manifest.csv").unlink(missing_ok=True)
        elsewhere = "--engine" in rest or any("s3://" in word for word in rest)
        elsewhere |= any(word in NOT_ENDING for word in rest[:2])
        if rest[:3] in NOT_HERE or not small or elsewhere:
            read(rest[0], rest[1:])
        else:
            assert main(rest) == 0, words
    elif program == "make":
        for target in rest:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), words
    elif program == "pip" and rest[0] == "install":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(re.findall(r"\w+", "".join(re.findall(r"\[(.*?)\]", rest[-1])))) <= set(extras)
    elif program == "python":
        script = (ROOT / rest[0]).read_text()
        assert all(word in script for word in rest[1:] if word.startswith("--")), words
    else:
        assert program in ELSEWHERE, f"no test knows {words}"


def read(command: str, arguments: list[str]) -> Namespace:
    """The options of a command, which is not run; its keys make a configuration."""
    given, values = import_module(f"cbam3d.cli.{command}").parser().parse(arguments)
    if command in ("train", "compare"):
        load_config({**values, "config": given.config or "motion"})
    return given


def train(arguments: list[str], small: bool) -> None:
    small = small and not any("s3://" in word for word in arguments)
    if "--resume" in arguments:
        assert main(["train", *arguments]) == 0
    elif small and "--run.devices" not in arguments:
        assert main(["train", *arguments, *SMALL]) == 0, arguments
    else:
        read("train", arguments)


SLOW = ("EVALUATION", "FEW_VIDEOS", "RESULTS", "SCALE")  # whose commands take longest


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=str(page.relative_to(ROOT)), marks=[pytest.mark.slow] if page.stem in SLOW else [])
        for page in PAGES
        if of(page, "bash") and page.stem != "NEW_DATASET"
    ],
)
def test_commands_run(page, there):
    write_weights(page)
    for block in of(page, "bash"):
        if block.text.startswith("#!"):
            subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
            _, found, arguments = block.text.replace("\\\n", " ").partition("train.py ")
            assert found
            read("train", [word for word in arguments.split() if not word.startswith("$")])
        else:
            for words in commands(block.text):
                run(words)


@pytest.mark.parametrize("page", named(page for page in DATASETS if of(page, "bash")))
def test_commands_of_data_sets_are_understood(page):
    for block in of(page, "bash"):
        for words in commands(block.text):
            run(words, small=False)


def test_keys_and_commands_that_the_text_names_exist():
    names = {key.name for key in keys()}
    for page in PAGES + DATASETS:
        text = page.read_text()
        for name in re.findall(rf"`(?:--)?((?:{'|'.join(sections())})\.[a-z_]+)\b(?!\()", text):
            assert name in names or name.endswith((".py", ".csv", ".json")), f"{page.name}: {name}"
        for command in re.findall(r"`cbam3d ([a-z]+)", text):
            assert command in COMMANDS, f"{page.name}: cbam3d {command}"


def test_the_table_of_mechanisms_has_each_with_its_paper():
    text = (ROOT / "docs" / "MECHANISMS.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text.partition("## Heads")[0], re.MULTILINE))
    assert sorted(rows) == list_attentions()
    for name, row in rows.items():
        facts = describe_attention(name, 64, (8, 28, 28))
        *_, ranks, starts, paper = row.split(" | ")
        assert paper == f"[{facts.title}]({facts.paper})"
        assert ranks == ("2D, 3D" if facts.ranks == (2, 3) else "3D")
        assert starts == ("yes" if facts.starts_as_identity else "no")
    heads = re.findall(r"^\| `(\w+)` \|", text.partition("## Heads")[2], re.MULTILINE)
    assert sorted(heads) == list_heads()


def test_files_that_the_text_names_exist():
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for name in re.findall(r"`((?:cbam3d|docs|tests|datasets|benchmarks|configs)/[\w./]+)`", text):
            assert (ROOT / name).exists(), f"{page.name}: {name}"
        for target in re.findall(r"\]\((?!http)([^)#]+)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def entry(name: str) -> Any:
    """What an entry of the reference is about."""
    place, _, last = name.rpartition(".")
    try:
        return getattr(import_module(place), last)
    except AttributeError:
        return import_module(name)


TRAINS = ("cbam3d.runs.train", "cbam3d.runs.compare", "cbam3d.runs.comparison_table.Comparison")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in TRAINS else [])
        for name in re.findall(r"^::: (\S+)$", (ROOT / "docs" / "REFERENCE.md").read_text(), re.MULTILINE)
    ],
)
def test_examples_of_the_reference_run_as_they_stand(name, there):
    text = cleandoc(entry(name).__doc__)
    assert "\nExamples:\n" in text
    example = DocTestParser().get_doctest(text, {"torch": torch}, name, name, 0)
    assert example.examples
    assert DocTestRunner(verbose=False).run(example).failed == 0


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "site" / "REFERENCE" / "index.html").read_text()
    assert "cbam3d.attention.insert_attention" in reference
    assert "bit for bit" in (tmp_path / "site" / "TRAINING" / "index.html").read_text()
