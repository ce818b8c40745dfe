"""What each command does, from its arguments to its last line."""

from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path

from lightning_fabric import Fabric
from rich.console import Console
from rich.table import Table

import cbam3d
from cbam3d.assemble import (
    build_model,
    create_fabric,
    create_loaders,
    plain,
)
from cbam3d.config import Config
from cbam3d.engine import evaluate as scoring
from cbam3d.engine.report import SkippedFiles, write_json
from cbam3d.engine.train import weights_of
from cbam3d.errors import InputError
from cbam3d.files import load_tensors
from cbam3d.parsing import CommandParser, parse_config
from cbam3d.resources import bundled
from cbam3d.sources import open_source


def evaluate(arguments: list[str]) -> None:
    """Score a run's checkpoint again, with the run's configuration or parts of it changed."""
    command = CommandParser("cbam3d evaluate", description=evaluate.__doc__, add_help=False)
    command.add_argument("run", help="folder of the run, such as runs/motion; comes first")
    command.add_argument("--checkpoint", choices=("last", "best"), default="last")
    asked_for_help = {"-h", "--help"} & set(arguments)
    if not asked_for_help and (not arguments or arguments[0].startswith("-")):
        raise InputError("the folder of a run comes first: cbam3d evaluate runs/motion")
    folder = Path(arguments[0])
    if not asked_for_help and not (folder / "config.yaml").is_file():
        raise InputError(f"{folder}: no run in this folder (config.yaml is missing)")
    config, _, options = parse_config(arguments, folder / "config.yaml", command)
    name = options.checkpoint

    fabric = create_fabric(config)
    console = speaker(fabric)
    state = load_tensors(folder / "checkpoints" / f"{name}.ckpt", "checkpoint")
    if not isinstance(state, dict) or not {"config", "classes", "model", "state"} <= state.keys():
        raise InputError(f"{folder}/checkpoints/{name}.ckpt: not a checkpoint of cbam3d train")
    for key in ("split", "groups", "test_fraction"):
        if getattr(config.data, key) != state["config"]["data"][key]:
            raise InputError(f"data.{key} is not what the run was trained with: other videos would be held out")
    same_data = Path(config.data.root).resolve() == Path(state["config"]["data"]["root"]).resolve()
    own_table = same_data and config.data.manifest == state["config"]["data"]["manifest"]
    source = open_source(with_manifest_of(folder, config) if own_table else config, console)
    if state["classes"] != source.classes:
        raise InputError(
            f"{config.data.root} has the classes {', '.join(source.classes[:5])}, "
            f"the checkpoint was trained on {', '.join(state['classes'][:5])}"
        )
    unfilled = replace(config, model=replace(config.model, weights=None))  # the checkpoint fills it
    model = build_model(unfilled, len(source.classes), source.images)
    try:
        model.load_state_dict(weights_of(state))
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise InputError(f"{folder}/checkpoints/{name}.ckpt does not fit the network: {reason}") from None
    *_, loader = create_loaders(config, source, fabric)
    result = scoring.evaluate(
        fabric, model.to(fabric.device), loader, len(source.classes), config.eval.batch_size, source.images
    )
    if fabric.is_global_zero:
        listed = folder / "evaluation_skipped.csv"
        listed.unlink(missing_ok=True)
        skipped = SkippedFiles(listed, config.data.max_bad_videos)
        print_skipped(console, skipped.add(source.problems + result.problems))
        console.print(score_table(result))
        report = {**result.scores, **result.counts, "num_skipped": len(skipped.reasons)}
        report |= {"checkpoint": name, "epoch": state["state"]["epoch"]}
        write_json(folder / "evaluation.json", report | {"config": plain(config)})


def list_names(arguments: list[str]) -> None:
    """Print what can be named in a configuration; `list attention` also what each mechanism is and costs."""
    command = ArgumentParser("cbam3d list", description=list_names.__doc__)
    command.add_argument("what", nargs="?", choices=("attention",), help="the catalogue of mechanisms as a table")
    command.add_argument("--channels", type=int, default=64, help="of the features that the costs are for")
    command.add_argument(
        "--size",
        type=features_size,
        metavar="SIZE",
        default=(8, 28, 28),
        help="theirs: 8,28,28 for clips, 28,28 for images",
    )
    given = command.parse_args(arguments)
    console = speaker()
    if given.what == "attention":
        console.print(_catalogue(given.channels, given.size))
        return
    for title, names in (
        ("networks", cbam3d.list_models()),
        ("attention", cbam3d.list_attentions()),
        ("configurations", sorted(path.stem for path in bundled("configs").glob("*.yaml"))),
        ("recipes", sorted(path.parent.name for path in bundled("datasets").glob("*/recipe.yaml"))),
    ):
        console.print(f"{title}: {', '.join(names)}")


def features_size(text: str) -> tuple[int, ...]:
    size = tuple(int(side) for side in text.split(","))
    if len(size) not in (2, 3) or min(size) < 1:
        raise ValueError
    return size


def _catalogue(channels: int, size: tuple[int, ...]) -> Table:
    shape = " x ".join(map(str, (channels, *size)))
    table = Table(
        title=f"attention, with its costs for features of {shape}",
        caption="multiply-adds: of convolutions and matrix products; identity: whether the paper's start is the "
        'identity, which init="identity" makes of every one',
        title_justify="left",
        caption_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("name")
    table.add_column("paper", overflow="fold", min_width=26)
    table.add_column("ranks")
    for name in ("parameters", "multiply-adds"):
        table.add_column(name, justify="right")
    table.add_column("identity")
    for name in cbam3d.list_attentions():
        try:
            facts = cbam3d.describe_attention(name, channels, size)
        except ValueError as error:
            raise InputError(f"{name} with features of {shape}: {error}") from None
        if facts is not None:
            ranks = " ".join(f"{rank}D" for rank in facts.ranks)
            numbers = (f"{facts.num_parameters:,}", f"{facts.multiply_adds:,}")
            paper = facts.paper.removeprefix("https://")
            table.add_row(name, paper, ranks, *numbers, "yes" if facts.starts_as_identity else "no")
    return table


def speaker(fabric: Fabric | None = None) -> Console:
    """Where messages go; of several processes, one speaks. Paths are no markup."""
    return Console(
        quiet=fabric is not None and not fabric.is_global_zero, soft_wrap=True, markup=False, highlight=False
    )


def print_skipped(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(f"skipped {line}", style="yellow")


def with_manifest_of(folder: Path, config: Config) -> Config:
    """The configuration with the table of videos that the run in `folder` has kept: the same files, the same split."""
    path = folder / "manifest.csv"
    if not path.is_file():
        return config
    return replace(config, data=replace(config.data, manifest=str(path), groups=None))  # the table has the groups


def score_table(evaluation: scoring.Evaluation) -> Table:
    counts = ", ".join(f"{count:,} {name.removeprefix('num_')}" for name, count in evaluation.counts.items())
    table = Table(title=f"held out: {counts}", title_justify="left")
    table.add_column("score")
    table.add_column("value", justify="right")
    for name, value in evaluation.scores.items():
        table.add_row(name, f"{value:.2%}" if "top" in name else f"{value:.4f}")
    return table
