"""What is shown while training goes on."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def progress_bar(console: Console) -> Progress:
    """The bar of an epoch; nothing where the output is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    timing = (TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, *timing, console=console, transient=True, disable=not console.is_terminal)


def epoch_line(row: dict[str, float], epochs: int) -> str:
    """The line of a finished epoch."""
    parts = [f"epoch {row['epoch']:>3.0f}/{epochs}", f"train loss {row['train_loss']:.3f}"]
    parts += [f"{name} {value:.1%}" for name, value in row.items() if "top" in name]
    parts += [f"{row['clips_per_second']:.0f} clips/s", f"waiting {row['waiting_share']:.0%}"]
    return "  ".join(parts)
