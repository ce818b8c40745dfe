"""`cbam3d list`: what a configuration can name: networks, attention, configurations, recipes."""

from argparse import ArgumentTypeError
from itertools import groupby

from rich.table import Table

from cbam3d.cli.console import console
from cbam3d.cli.parser import CommandParser
from cbam3d.config.bundled import bundled, list_recipes
from cbam3d.errors import InputError


def parser() -> CommandParser:
    """The options of the command."""
    about = "Print what a configuration can name; `list attention` also each mechanism's paper, dimensions and costs."
    kinds = ("models", "attention", "heads", "configurations", "datasets")
    command = CommandParser("list", about)
    command.add_argument("what", nargs="?", choices=kinds, help="one of these alone, a line each (default: all)")
    command.add_argument("--channels", type=int, help="channels of the features that the costs are for (default: 64)")
    command.add_argument(
        "--size",
        type=features_size,
        metavar="SIZE",
        help="size of the features that the costs are for: 8,28,28 for clips (default), 28,28 for images",
    )
    return command


def run(arguments: list[str]) -> None:
    """Run the command."""
    given, _ = parser().parse(arguments)
    if given.what == "attention":
        channels = 64 if given.channels is None else given.channels
        if channels < 1:
            raise InputError(f"list: --channels must be at least 1, got {channels}")
        console().print(_catalogue(channels, given.size or (8, 28, 28)))
        return
    if given.channels is not None or given.size is not None:
        raise InputError("list: --channels and --size go with attention: cbam3d list attention")
    if given.what:
        console().print("\n".join(_names(given.what)))
        return
    table = Table.grid(padding=(0, 2))
    for library, names in groupby(_names("models"), lambda name: name.rpartition("/")[0]):
        short = (name.removeprefix(f"{library}/") for name in names)
        table.add_row(f"models {library}/…" if library else "models", ", ".join(short))
    for kind in ("attention", "heads", "configurations", "datasets"):
        table.add_row(kind, ", ".join(_names(kind)))
    console().print(table)


def _names(kind: str) -> list[str]:
    """What there is of a kind."""
    if kind == "configurations":
        return sorted(path.stem for path in bundled("configs").glob("*.yaml"))
    if kind == "datasets":
        return list_recipes()
    from cbam3d.attention import list_attentions, list_heads
    from cbam3d.models import list_models

    return {"models": list_models, "attention": list_attentions, "heads": list_heads}[kind]()


def features_size(text: str) -> tuple[int, ...]:
    """8,28,28 -> (8, 28, 28)."""
    sides = text.split(",")
    if len(sides) not in (2, 3) or not all(side.isdigit() and int(side) for side in sides):
        raise ArgumentTypeError(f"expected a size such as 8,28,28 for clips or 28,28 for images, got {text}")
    return tuple(int(side) for side in sides)


def _catalogue(channels: int, size: tuple[int, ...]) -> Table:
    from cbam3d.attention import describe_attention

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
    table.add_column("dimensions")
    for name in ("parameters", "multiply-adds"):
        table.add_column(name, justify="right")
    table.add_column("identity")
    for name in _names("attention"):
        try:
            facts = describe_attention(name, channels, size)
        except ValueError as error:  # sc needs two channels
            table.add_row(name, str(error))
            continue
        if facts is not None:
            ranks = " ".join(f"{rank}D" for rank in facts.ranks)
            numbers = (f"{facts.num_parameters:,}", f"{facts.multiply_adds:,}")
            paper = facts.paper.removeprefix("https://")
            table.add_row(name, paper, ranks, *numbers, "yes" if facts.starts_as_identity else "no")
    return table
