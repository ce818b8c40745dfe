"""What is shown on the console."""

from lightning_fabric import Fabric
from rich.console import Console


def speaker(fabric: Fabric | None = None) -> Console:
    """Where messages go; of several processes, one speaks. Paths are no markup."""
    return Console(
        quiet=fabric is not None and not fabric.is_global_zero, soft_wrap=True, markup=False, highlight=False
    )


def print_skipped(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(f"skipped {line}", style="yellow")
