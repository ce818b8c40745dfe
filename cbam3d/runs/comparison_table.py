"""Trainings of one recipe with different mechanisms, compared: tables and a plot."""

import csv
import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cbam3d.config import Config
from cbam3d.engine.plots import plot_comparison
from cbam3d.engine.scores import MIN_UNITS, compare_trainings
from cbam3d.engine.several import Ranking, compare_map
from cbam3d.engine.tables import read_predictions
from cbam3d.errors import InputError, reason_of
from cbam3d.runs.cost import multiply_adds, paired_steps, training_step
from cbam3d.runs.network import build_model, count_parameters, input_shape, memory_format
from cbam3d.runs.processes import create_fabric
from cbam3d.runs.trainer import freeze_layers, new_parameters

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compared:
    """A mechanism or head: its scores by seed, the difference from the first with a 95 % interval, and its costs."""

    name: str
    scores: list[float]
    difference: float
    low: float
    high: float
    parameters: int
    multiply_adds: float  # of one input; NaN where it cannot be measured, as the next two
    step_seconds: float
    step_ratio: float  # to the first mechanism's
    memory_gib: float  # its maximum while training

    @property
    def mean(self) -> float:
        return float(np.mean(self.scores))

    @property
    def deviation(self) -> float:
        """Standard deviation over seeds; nan for a single one."""
        return float(np.std(self.scores, ddof=1)) if len(self.scores) > 1 else float("nan")

    @property
    def verdict(self) -> str:
        """Against the first mechanism, whose own row has none."""
        if math.isinf(self.high):
            return "too few groups"
        if len(self.scores) == 1:
            return "one seed tells nothing"
        if self.low <= 0 <= self.high:
            return "within noise"
        return "better" if self.difference > 0 else "worse"


@dataclass(frozen=True)
class Comparison:
    """Trainings of one recipe with several mechanisms, compared.

    Args:
        rows: one per mechanism; the others are compared with the first.
        heading: what was compared, in words.
        score: name of the score that is compared.
        part: what differs: attention, head or variant.

    Examples:
        >>> import cbam3d
        >>> recipe = {"config": "folder", "data.root": "videos", "train.epochs": 1}
        >>> found = cbam3d.compare(recipe, ["none", "se"], seeds=1, out="runs/compared")
        >>> scores, costs = found.tables()
        >>> costs[0][:3]
        ['attention', 'parameters', 'multiply-adds']
    """

    rows: list[Compared]
    heading: str
    score: str
    part: str

    def tables(self) -> tuple[list[list[str]], list[list[str]]]:
        """Header and rows of the table of scores, and of the table of costs."""
        return _scores(self), _all_costs(self)

    def __repr__(self) -> str:
        return "\n".join([self.heading, *map(", ".join, self.tables()[0][1:])])

    def _repr_markdown_(self) -> str:
        """What a notebook shows."""
        return "\n\n".join([self.heading, *map(_markdown, self.tables()), self.note()])

    def note(self) -> str:
        """What the tables mean."""
        return _note(self.rows)


def measure(
    folders: dict[str, list[Path]],
    configs: dict[str, Config],
    num_classes: int,
    images: bool,
    part: str,
) -> Comparison:
    """Compare trainings with those of the first mechanism.

    Args:
        folders: of the runs of each mechanism, one per seed.
        configs: of each mechanism.
        num_classes: of the data.
        images: whether inputs are images, rather than clips.
        part: what differs: attention, head or variant.

    Raises:
        InputError: runs that were scored on different items.
    """
    first = next(iter(folders))
    read = {name: [read_predictions(folder / "predictions.csv") for folder in runs] for name, runs in folders.items()}
    names, groups, _, labels = read[first][0]
    units = np.array(groups)
    rows = []
    for name, runs in folders.items():
        if any(one.names != names for one in read[name]):
            raise InputError(f"{runs[0].parent} was scored on other items than {first}: remove what differs")
        a, b = ([one.found for one in read[key]] for key in (first, name))
        if labels is not None:
            scores = [Ranking(probabilities, labels).mean() for probabilities in b]
        else:
            scores = np.stack(b).mean(1).tolist()
        if name == first:
            found = (0.0, 0.0, 0.0)
        elif labels is not None:
            found = compare_map(a, b, labels, units)
        else:
            found = compare_trainings(np.stack(a), np.stack(b), units)
        costs = _costs(configs[first], configs[name], num_classes, images, name)
        memory = max(_memory_gib(folder / "metrics.csv") for folder in runs)
        rows.append(Compared(name, scores, *found, *costs, memory))
    items = f"{len(names):,} {'images' if images else 'videos'}"
    if len(set(groups)) < len(names):
        items += f" of {len(set(groups)):,} groups"
    model, epochs = configs[first].model.name, configs[first].train.epochs
    heading = f"{model}, epochs: {epochs}, seeds: {len(folders[first])}; held out: {items}"
    score = "video_map" if labels is not None else "top1" if images else "video_top1"
    return Comparison(rows, heading, score, part)


def write_comparison(out: Path, compared: Comparison) -> None:
    """Write `comparison.md`, `.csv` and `.png` into a folder."""
    rows = compared.rows
    (out / "comparison.md").write_text(compared._repr_markdown_() + "\n", "utf-8")
    _write_csv(out / "comparison.csv", compared)
    differences = [(row.difference, row.low, row.high) for row in rows]
    names, scores = [row.name for row in rows], [row.scores for row in rows]
    plot_comparison(out / "comparison.png", names, scores, differences, compared.score)


def _costs(first: Config, config: Config, num_classes: int, images: bool, name: str) -> tuple[int, float, float, float]:
    """Parameters, multiply-adds of an input, seconds of a training step, and its ratio to the first mechanism's; NaN
    for what cannot be measured, as scores matter more."""
    network = build_model(config, num_classes, images)
    parameters, operations, nan = count_parameters(network), float("nan"), float("nan")
    try:
        operations = multiply_adds(network, torch.randn(1, *input_shape(config, images)))
        reference, _ = _step(build_model(first, num_classes, images), first, num_classes, images)
        step, device = _step(network, config, num_classes, images)
        return parameters, operations, *paired_steps(reference, step, device)
    except (RuntimeError, ValueError, MemoryError) as error:
        logger.warning(f"{name}: its costs cannot be measured ({reason_of(error)})")
        return parameters, operations, nan, nan


def _step(
    network: nn.Module, config: Config, num_classes: int, images: bool
) -> tuple[Callable[[], None], torch.device]:
    """A training step of the network as a training of the configuration takes it, and its device."""
    fabric, _ = create_fabric(config.override({"run": {"devices": 1, "strategy": "replicate"}}))
    t = config.train
    inputs = torch.randn(t.batch_size // t.accumulate, *input_shape(config, images))
    inputs = inputs.contiguous(memory_format=memory_format(config, images))
    if t.freeze or t.freeze_norms:
        freeze_layers(t, network, new_parameters(network))
    if t.cached_views:  # the head alone learns, from features
        with torch.no_grad():
            features = network.eval().features(inputs[:1])  # type: ignore[operator]
        inputs = features.expand(len(inputs), *features.shape[1:]).contiguous()
        network.takes_features = True  # type: ignore[assignment]
    if config.run.compile:
        network.compile()
    return training_step(fabric, network, inputs, num_classes), fabric.device


def _memory_gib(metrics: Path) -> float:
    with open(metrics, newline="") as file:
        return max(float(row["memory_gib"]) for row in csv.DictReader(file))


def _scores(compared: Comparison) -> list[list[str]]:
    """Header and rows of the table of scores."""
    rows = compared.rows
    first = rows[0].name
    table = [[compared.part, f"{compared.score}, %", f"against {first}, points", "95 % interval", "verdict"]]
    for row in rows:
        spread = "" if np.isnan(row.deviation) else f" ± {100 * row.deviation:.2f}"
        between = "" if math.isinf(row.high) else f"{100 * row.low:+.2f} … {100 * row.high:+.2f}"
        found = [f"{100 * row.difference:+.2f}", between, row.verdict]
        table.append([row.name, f"{100 * row.mean:.2f}{spread}", *(["", "", ""] if row is rows[0] else found)])
    return table


def _all_costs(compared: Comparison) -> list[list[str]]:
    """Header and rows of the table of costs."""
    table = [[compared.part, "parameters", "multiply-adds", "training step", "ratio", "memory"]]
    for row in compared.rows:
        costs = ((row.multiply_adds / 1e9, ".3f", " G"), (1000 * row.step_seconds, ".0f", " ms"))
        costs += ((row.step_ratio, ".2f", ""), (row.memory_gib, ".2f", " GiB"))
        shown = ["" if math.isnan(value) else f"{value:{form}}{unit}" for value, form, unit in costs]
        table.append([row.name, f"{row.parameters:,}", *shown])
    return table


def _note(rows: list[Compared]) -> str:
    others = [row for row in rows[1:] if row.verdict in ("better", "worse")]
    first = rows[0].name
    found = ", ".join(f"{row.name} ({row.verdict})" for row in others)
    if any(math.isinf(row.high) for row in rows):
        text = f"The items belong to fewer than {MIN_UNITS} groups, too few for intervals."
    elif len(rows[0].scores) == 1:
        text = "With one seed each, intervals cover the items alone: another seed may reverse every difference."
    else:
        text = f"Beyond noise against {first}: {found}." if found else f"Every difference from {first} is within noise."
        text += (
            " ± is the standard deviation over seeds. Intervals are by bootstrap over groups of items and over seeds, "
            "each on its own."
        )
        if len(rows[0].scores) < 5:
            text += (
                " With so few seeds they may be too narrow: of 100 simulated comparisons of equals, 6 lay beyond noise "
                "with 3 seeds that differ by 5 points, 13 where they differ by 12."
            )
    return f"{text} Steps are taken in turn with {first}; its own ratio, against itself, shows how exact ratios are."


def _markdown(table: list[list[str]]) -> str:
    header, *rows = [f"| {' | '.join(cells)} |" for cells in table]
    return "\n".join([header, f"|{'|'.join(['---'] + ['---:'] * (len(table[0]) - 1))}|", *rows])


def _write_csv(path: Path, compared: Comparison) -> None:
    columns = [compared.part, "mean", "standard_deviation", "scores", "difference", "low", "high", "verdict"]
    columns += ["parameters", "multiply_adds", "step_seconds", "step_ratio", "memory_gib"]
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in compared.rows:
            found = [row.difference, row.low, row.high, row.verdict]
            costs = [row.parameters, row.multiply_adds, row.step_seconds, row.step_ratio, row.memory_gib]
            writer.writerow([row.name, row.mean, row.deviation, json.dumps(row.scores), *found, *costs])
