"""Runs on the Hugging Face Hub: weights, plain data and a card, without code."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jinja2
from safetensors.torch import save_file

from cbam3d import __version__
from cbam3d.config import Config
from cbam3d.engine.records import write_json
from cbam3d.engine.train import weights_of
from cbam3d.errors import InputError
from cbam3d.files import make_folder, printable, to_yaml, writing
from cbam3d.models.ours import attention_of
from cbam3d.models.repository import CONFIG, METRICS, WEIGHTS, check_name, separate, upload
from cbam3d.runs.checkpoint import PRETRAINED, Checkpoint, read_metrics
from cbam3d.runs.report import score_rows

_TEMPLATE = Path(__file__).with_name("card.md.jinja")


def save_pretrained(saved: Checkpoint, folder: Path, repository: str, license: str = "", citation: str = "") -> None:
    """Write a run's weights, configuration, scores and card to a folder, as a repository of the Hub has them.

    Args:
        saved: the checkpoint.
        folder: made where it is missing.
        repository: its name on the Hub, "owner/name".
        license: of the weights, as the Hub names it ("cc-by-4.0").
        citation: BibTeX.

    Raises:
        InputError: training has not ended, or its scores are not those of this checkpoint.
    """
    metrics, config = read_metrics(saved.folder), _public(saved.config)
    if (scored := metrics.get("epoch", saved.epoch)) != saved.epoch:
        text = f"the scores of its run are those of epoch {scored}, not of {saved.epoch}: name the folder of the run"
        raise InputError(f"{saved.path}: {text}")
    make_folder(folder)
    with writing(folder / WEIGHTS):
        save_file(separate(weights_of(saved.state)), folder / WEIGHTS)
    facts = {"cbam3d": __version__, "format": PRETRAINED, "kind": saved.state["kind"], "classes": saved.classes}
    facts |= {"epoch": saved.epoch, "drawn": saved.drawn}
    write_json(folder / CONFIG, {**facts, "config": config.plain()})
    write_json(folder / METRICS, metrics)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    items = next(metrics[name] for name in ("num_videos", "num_images") if name in metrics)
    card = environment.from_string(_TEMPLATE.read_text("utf-8")).render(
        name=repository.rpartition("/")[2],
        repository=repository,
        images=saved.images,
        license=license,
        citation=citation,
        model=config.model.name,
        attention=attention_of(config.model.name, config.model.attention) or "no attention",
        version=__version__,
        data=config.data.recipe,
        kind=f"A data set of the kind `{config.data.recipe}`",
        classes=saved.classes,
        metrics=metrics,
        leading=metrics["leading_score"],
        scores=score_rows(metrics),
        items=items,
        groups=metrics.get("num_groups", items),
        thresholds=metrics.get("thresholds"),
        config=to_yaml(config.plain()),
    )
    (folder / "README.md").write_text(printable(card), "utf-8")


def push(saved: Checkpoint, repository: str, private: bool = False, **options: Any) -> str:
    """See `Run.push_to_hub`; `options` are those of `save_pretrained`."""
    check_name(repository)
    if (source := saved.config.model.name).startswith("hf/") and Path(source.removeprefix("hf/")).is_dir():
        raise InputError(f"push: the network {source} is a folder of this machine, others could not load the run")
    with TemporaryDirectory() as folder:
        save_pretrained(saved, Path(folder), repository, **options)
        return upload(folder, repository, private)


def _public(config: Config) -> Config:
    """Without the paths of this machine."""
    root = Path(config.data.root).name or "data"
    recipe = Path(config.data.recipe).name
    lost = {"groups": None, "annotations": None, "manifest": None, "cache": None, "root": root, "recipe": recipe}
    return config.override(
        {"run": {"dir": None, "wandb": None}, "data": lost, "train": {"cache": None}, "model": {"weights": None}}
    )
