"""What is shown on the console."""

from lightning_fabric import Fabric
from rich.console import Console
from rich.table import Table

from cbam3d.engine import evaluate as scoring


def speaker(fabric: Fabric | None = None) -> Console:
    """Where messages go; of several processes, one speaks. Paths are no markup."""
    return Console(
        quiet=fabric is not None and not fabric.is_global_zero, soft_wrap=True, markup=False, highlight=False
    )


def print_skipped(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(f"skipped {line}", style="yellow")


def score_table(evaluation: scoring.Evaluation) -> Table:
    counts = ", ".join(f"{count:,} {name.removeprefix('num_')}" for name, count in evaluation.counts.items())
    table = Table(title=f"held out: {counts}", title_justify="left")
    table.add_column("score")
    table.add_column("value", justify="right")
    for name, value in evaluation.scores.items():
        table.add_row(name, f"{value:.2%}" if "top" in name else f"{value:.4f}")
    return table
