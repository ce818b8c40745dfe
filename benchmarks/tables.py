"""What benchmarks print: tables for docs/BENCHMARKS.md."""

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table whose first column is text and whose others are numbers; a row at a time, as they come."""
    print(f"| {' | '.join(header)} |\n|{'|'.join(['---'] + ['---:'] * (len(header) - 1))}|")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)
    print()
