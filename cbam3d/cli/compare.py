"""`cbam3d compare`."""

from typing import TYPE_CHECKING

from cbam3d.cli.console import console, table_of
from cbam3d.cli.parser import CommandParser

if TYPE_CHECKING:
    from cbam3d.runs.comparison import Comparison


def parser() -> CommandParser:
    """The options of the command."""
    about = (
        "Train one recipe with each mechanism, head or variant, and seed, one after another or one per GPU, and report "
        "which differences are beyond noise. When interrupted, the same command resumes."
    )
    command = CommandParser("compare", about)
    command.add_argument("config", metavar="CONFIG", help="a configuration: YAML file or name of a bundled one")
    command.add_argument(
        "--attention",
        metavar="none,se,…",
        help="mechanisms, with options in brackets if need be: 'none,se,cbam(gates=[channel, spatial])'; "
        "the others are compared with the first",
    )
    command.add_argument("--head", metavar="mean,gltr,…", help="heads, in place of mechanisms: 'mean,gltr(dim=64)'")
    command.add_argument(
        "--variants",
        metavar="FILE",
        help="in place of mechanisms, a YAML file of names with any keys: {plain: {}, mixup: {augment.mixup: 0.4}}",
    )
    command.add_argument("--seeds", type=int, default=3, help="how many, from run.seed on (default: 3)")
    command.add_argument("--out", help="folder of the runs and the table (default: runs/compare-CONFIG)")
    command.add_argument("--jobs", type=int, help="trainings at a time (default: as many as GPUs, else 1)")
    command.add_argument("--engine", default="local", help="local, or ray: on the Ray cluster that there is")
    command.add_keys()
    return command


def run(arguments: list[str]) -> None:
    """Run the command."""
    given, values = parser().parse(arguments)
    from cbam3d.config.reading import name_of
    from cbam3d.runs.comparison import IncompleteComparison, compare

    config = {**values, "config": given.config}
    out = given.out or f"runs/compare-{name_of(config)}"
    try:
        options = {name: getattr(given, name) for name in ("variants", "seeds", "jobs", "engine")}
        _show(compare(config, given.attention, heads=given.head, out=out, **options), out)
    except IncompleteComparison as error:
        if error.compared is not None:
            _show(error.compared, out)
        raise


def _show(compared: "Comparison", out: str) -> None:
    console().print(compared.heading)
    for table in compared.tables():
        console().print(table_of(table))
    console().print(compared.note())
    console().print(f"comparison.md, comparison.csv and comparison.png are in {out}")
