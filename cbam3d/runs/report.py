"""A run as one HTML page that needs no other file and no network."""

import base64
import csv
import io
import json
import math
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from cbam3d import __version__
from cbam3d.config import Config
from cbam3d.data.batch import SampleIndex
from cbam3d.data.manifest import TABLE_NAME
from cbam3d.data.recipe import SPLITS
from cbam3d.errors import InputError
from cbam3d.files import atomic_write, make_folder, printable, writing
from cbam3d.models.ours import attention_of
from cbam3d.models.repository import METRICS
from cbam3d.runs.checkpoint import Checkpoint, read_metrics
from cbam3d.runs.data import open_source
from cbam3d.runs.explainer import Explainer
from cbam3d.runs.explanation import Explanation, layers, overlay
from cbam3d.runs.predictor import Predictor
from cbam3d.runs.table import with_manifest_of

_TEMPLATE = Path(__file__).with_name("report.html.jinja")
_FRAMES = 4  # of an example
_MOST_CONFUSED = 12  # pairs of classes


@dataclass(frozen=True)
class Example:
    """An item, the prediction and its probability; images as data URIs, or empty."""

    path: str
    label: str
    predicted: str
    probability: float
    frames: str = ""
    attention: str = ""
    caption: str = ""


def report(saved: Checkpoint, folder: Path, out: Path | None = None, mistakes: int = 12, **options: Any) -> Path:
    """See `Run.report`; `saved` is the last checkpoint, `options` are those of `Checkpoint.model`."""
    for name in ("predictions.csv", METRICS):
        if folder.is_file() or not (folder / name).is_file():
            raise InputError(f"{folder}: no folder of a run whose training has ended ({name} is missing)")
    if mistakes < 0:
        raise InputError(f"report: --mistakes must be at least 0, got {mistakes}")
    out = folder / "report.html" if out is None else out
    make_folder(out.parent)
    if out.is_dir():
        raise InputError(f"report: --out {out} is a folder")
    wrong, right = _examples(folder)
    wrong, right = wrong[:mistakes], right[: mistakes // 3]
    found, trouble = _with_pictures(wrong + right, saved, options)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text("utf-8"))
    shown = [replace(one, path=printable(one.path)) for one in found]
    examples = {"mistakes": shown[: len(wrong)], "successes": shown[len(wrong) :]}
    page = template.render(**_facts(folder, saved), **examples, trouble=printable(trouble))
    with writing(out), atomic_write(out) as unfinished:
        unfinished.write_text(page, "utf-8")
    return out


def _facts(folder: Path, saved: Checkpoint) -> dict[str, Any]:
    """What the page shows, except for the mistakes."""
    config, metrics = saved.config, read_metrics(folder)
    pictures = {name: _picture(folder / f"{name}.png") for name in ("curves", "steps", "confusion")}
    again = folder / "evaluation.json"
    evaluated = json.loads(again.read_text()) if again.is_file() else None
    if evaluated and evaluated["checkpoint"] == "last" and evaluated["epoch"] != metrics.get("epoch"):
        evaluated = None  # of the network before training went on
    versions = saved.state.get("versions", {})
    return {
        "name": folder.resolve().name,
        "model": config.model.name,
        "attention": attention_of(config.model.name, config.model.attention) or "no attention",
        "data": f"{config.data.recipe} ({config.data.root})",
        "leading": metrics["leading_score"],
        "scores": score_rows(metrics),
        "counts": {key.removeprefix("num_"): n for key, n in metrics.items() if key.startswith("num_")},
        "metrics": metrics,
        "evaluated": evaluated
        and {"facts": evaluated, "scores": score_rows(evaluated), "way": _way(evaluated, config)},
        "pictures": pictures,
        "classes": sorted(_class_rows(folder / "classes.csv"), key=lambda row: float(row["score"] or 2)),
        "confused": _confused(_rows(folder / "confusion.csv")),
        "calibration": _calibration(_rows(folder / "predictions.csv")),
        "splits": _splits(_rows(folder / TABLE_NAME)),
        "skipped": _rows(folder / "skipped.csv"),
        "config": (folder / "config.yaml").read_text("utf-8"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items() if name != "saved"),
        "trained": versions.get("saved", "")[:10],
        "written": f"{datetime.now():%Y-%m-%d} by cbam3d {__version__}",
    }


def score_rows(facts: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, value and interval of every score in metrics.json or evaluation.json."""
    rows = []
    for name, value in facts.items():
        if name == "loss":
            rows.append((name, f"{value:.4f}", ""))
        elif isinstance(value, float) and not name.startswith("best_"):
            low, high = facts["intervals_95"].get(name, (None, None))
            rows.append((name, f"{value:.2%}", "" if low is None else f"{low:.2%} … {high:.2%}"))
    return rows


def _way(evaluated: dict[str, Any], trained: Config) -> str:
    config = Config(**evaluated["config"])
    flip = ", mirrored too" if config.scores_mirrored else ""
    order = "" if config.eval.frame_order == "natural" else f", frames {config.eval.frame_order}"
    views = f"{config.eval.num_clips} clips x {config.eval.num_crops} crops{flip}{order}"
    other = "" if config.data.root == trained.data.root else f" of {config.data.root}"
    checkpoint = f"{evaluated['checkpoint']} checkpoint of epoch {evaluated['epoch']}"
    return f"{views}; {checkpoint}, {evaluated['split']} split{other}"


def _confused(rows: list[dict[str, str]]) -> list[tuple[str, str, int, float]]:
    """Which classes are taken for which, how often, and in what share of the former; the most frequent first."""
    found = []
    for row in rows:
        name, *_ = row.values()
        counts = {other: int(n) for other, n in list(row.items())[1:]}
        found += [(name, other, n, n / sum(counts.values())) for other, n in counts.items() if n and other != name]
    return sorted(found, key=lambda one: (-one[2], -one[3]))[:_MOST_CONFUSED]


def _calibration(rows: list[dict[str, str]]) -> list[tuple[float, float, int]]:
    """Of ten equal ranges of the highest probability: its mean, the share that is right, and the number of items."""
    if not rows or "probability1" not in rows[0]:
        return []
    sure = np.array([float(row["probability1"]) for row in rows])
    right = np.array([row["right"] == "1" for row in rows])
    bins = np.minimum((10 * sure).astype(int), 9)
    own = [bins == k for k in range(10) if (bins == k).any()]
    return [(float(sure[one].mean()), float(right[one].mean()), int(one.sum())) for one in own]


def _splits(rows: list[dict[str, str]]) -> list[tuple[str, int, int, str]]:
    """Of each split: name, number of usable videos or parts, of groups, and how long they last together."""
    found = []
    for split in dict.fromkeys(row["split"] for row in rows):
        own = [row for row in rows if row["split"] == split and int(row["num_frames"])]
        seconds = sum(int(row["num_frames"]) / (float(row["fps"]) or math.inf) for row in own)
        groups = len({row["group"] for row in own})
        minutes, rest = divmod(round(seconds), 60)
        found.append((split, len(own), groups, f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if seconds else ""))
    return sorted(found, key=lambda one: [*SPLITS, "unused", ""].index(one[0]))


def _class_rows(path: Path) -> list[dict[str, str]]:
    """The classes with their score: accuracy, or average precision where items may have several labels."""
    rows = _rows(path)
    for row in rows:
        row["score"] = row["accuracy"] if "accuracy" in row else row["average_precision"]
    return rows


def _rows(path: Path, raw: bool = False) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    return rows if raw else [{key: printable(value) for key, value in row.items()} for row in rows]


def _examples(folder: Path) -> tuple[list[Example], list[Example]]:
    """The mistakes, the most confident first; and what is right, the most confident of each class first."""
    rows = _rows(folder / "predictions.csv", raw=True)
    found = [(row["right"] == "1", _example(row)) for row in rows]
    found.sort(key=lambda one: -one[1].probability)
    right, seen = list[Example](), set[str]()
    for good, one in found:
        if good and one.label not in seen:
            right.append(one)
            seen.add(one.label)
    return [one for good, one in found if not good], right


def _example(row: dict[str, str]) -> Example:
    if "labels" not in row:
        return Example(row["path"], row["label"], row["top1"], float(row["probability1"]))
    own, found = ({name for name in row[key].split("|") if name} for key in ("labels", "predicted"))
    off = [float(row[f"p({name})"]) for name in found - own] + [1 - float(row[f"p({name})"]) for name in own - found]
    sure = max(off) if off else min((float(row[f"p({name})"]) for name in own), default=0.0)
    return Example(row["path"], row["labels"] or "no label", row["predicted"] or "no label", sure)


def _with_pictures(examples: list[Example], saved: Checkpoint, options: dict[str, Any]) -> tuple[list[Example], str]:
    """The examples with their frames, and the attention over them; or without, and the reason."""
    if not examples:
        return [], ""
    config = with_manifest_of(saved.folder, saved.config).override({"eval.num_clips": 1})
    try:
        test = open_source(config).test
    except InputError as error:
        return examples, str(error)
    explainer = Explainer(Predictor.of(saved, **options), grad_cam=False)
    numbers = {test.name(i): i for i in range(len(test))}
    shown, trouble = [], ""
    for example in examples:
        if example.path not in numbers:
            trouble = f"{example.path}: not there any more"
            shown.append(example)
            continue
        packed = test.__getitems__([SampleIndex(0, numbers[example.path])])
        for path, reason in packed.problems:
            trouble = f"{path}: {reason}"
        views = list(packed.views_of_one_shape()) if packed.shapes else []
        shown.append(_with_picture(example, explainer.explain(views[0][0], bare=True)) if views else example)
    return shown, trouble


def _with_picture(example: Example, found: Explanation) -> Example:
    over = layers(found)
    caption = max(over, key=lambda name: np.ptp(over[name]), default="")
    count = len(found.frames)
    chosen = np.unique(np.linspace(0, count - 1, min(count, _FRAMES)).round().astype(int))
    attention = _strip(overlay(found.frames, found.resized(over[caption]))[chosen]) if over else ""
    return replace(example, frames=_strip(found.frames[chosen]), attention=attention, caption=" ".join(caption.split()))


def _strip(frames: np.ndarray) -> str:
    """Frames side by side, at most 112 pixels high, as a data URI."""
    picture = Image.fromarray(np.concatenate(list(frames), axis=1))
    if picture.height > 112:
        picture = picture.resize((round(picture.width * 112 / picture.height), 112), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return _uri(buffer.getvalue(), "jpeg")


def _picture(path: Path) -> str:
    return _uri(path.read_bytes(), "png") if path.is_file() else ""


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
