"""`cbam3d train`."""

from cbam3d.cli.console import console, table_of
from cbam3d.cli.evaluate import show_result
from cbam3d.cli.parser import CommandParser
from cbam3d.config.reading import DEFAULT
from cbam3d.errors import InputError


def parser() -> CommandParser:
    """The options of the command."""
    command = CommandParser("train", "Train a network, score it, and leave the folder of a run.")
    text = f"YAML file, or the name of a bundled configuration (default: {DEFAULT}; on resume, the run's own)"
    command.add_argument("--config", metavar="FILE", help=text)
    command.add_argument("--resume", action="store_true", help="continue the run in its folder, with its configuration")
    command.add_argument("--dry-run", action="store_true", help="build everything, try two batches, and keep nothing")
    command.add_keys()
    return command


def run(arguments: list[str]) -> None:
    """Run the command."""
    given, values = parser().parse(arguments)
    from cbam3d.runs.dry_run import dry_run
    from cbam3d.runs.training import train

    config = values if given.config is None else {**values, "config": given.config}
    if given.dry_run:
        if given.resume:
            raise InputError("--dry-run tries a run that has not begun: not with --resume")
        rows = dry_run(config)
        table = table_of([("dry run", ""), *rows.items()], show_header=False)  # type: ignore[arg-type]
        console().print(table)
        console().print("the dry run went through; nothing is kept")
        return
    done = train(config, resume=given.resume)
    if done.result is not None:
        show_result(done.result, "held out")
    console().print(f"everything is in {done.folder}")
