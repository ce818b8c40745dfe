"""`cbam3d report`."""

from cbam3d.cli.console import console
from cbam3d.cli.parser import CommandParser


def parser() -> CommandParser:
    """The options of the command."""
    about = (
        "Write one HTML page about a run: configuration, curves, scores with intervals, classes, confusion, and the "
        "most confident mistakes with what the attention did."
    )
    command = CommandParser("report", about)
    command.add_run()
    command.add_argument("--out", help="the page (default: report.html in the folder)")
    command.add_argument("--mistakes", type=int, default=12, help="how many to show (default: 12)")
    return command


def run(arguments: list[str]) -> None:
    """Run the command."""
    given, _ = parser().parse(arguments)
    from cbam3d.runs.run import open_run

    page = open_run(given.run, trust_code=given.trust_code).report(given.out, mistakes=given.mistakes)
    console().print(f"{page}: {page.stat().st_size / 2**20:.1f} MiB, all in one file")
