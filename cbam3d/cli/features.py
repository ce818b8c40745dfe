"""`cbam3d features`."""

from cbam3d.cli.console import console
from cbam3d.cli.parser import CommandParser
from cbam3d.errors import InputError


def parser() -> CommandParser:
    """The options of the command."""
    about = (
        "Compute the features of every video or image of a data set by a network, and write them as a table: a row for "
        "each file and view."
    )
    command = CommandParser("features", about)
    text = "folder of a run, or a checkpoint; without one, the network of the configuration with its weights"
    command.add_argument("run", nargs="?", help=text)
    command.add_how()
    command.add_argument("--config", metavar="FILE", help="configuration, in place of the run's own")
    command.add_argument("--out", required=True, help="the table: a file .parquet or .safetensors")
    command.add_argument("--layer", help="module whose output is meant (default: the last features before the head)")
    command.add_argument("--per", choices=("clip", "frame"), default="clip", help="a vector a clip, or a frame")
    text = "random views of every file, with the transforms of training (default: 0, those of evaluation)"
    command.add_argument("--views", type=int, default=0, help=text)
    command.add_checkpoint()
    command.add_keys()
    return command


def run(arguments: list[str]) -> None:
    """Run the command."""
    given, values = parser().parse(arguments)
    from cbam3d.runs.feature_table import features

    if given.run is None and given.config is None:
        raise InputError("features: name a run, or a configuration with --config")
    if given.run is None and given.checkpoint != "last":
        raise InputError("features: --checkpoint is of a run, and none is named")
    data = {**values, "config": given.config} if given.config else values
    options = {"layer": given.layer, "per": given.per, "views": given.views}
    how = {"checkpoint": given.checkpoint, "trust_code": given.trust_code}
    path = features(given.run, data, output=given.out, **options, **how)
    console().print(f"features are in {path}")
