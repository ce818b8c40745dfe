"""`cbam3d export`."""

from cbam3d.cli.console import console
from cbam3d.cli.parser import CommandParser


def parser() -> CommandParser:
    """The options of the command."""
    about = "Write a run's network as a program of torch.export or as ONNX, for batches of any size."
    command = CommandParser("export", about)
    command.add_run()
    command.add_argument("--format", choices=("torch", "onnx"), default="torch")
    command.add_checkpoint()
    command.add_argument("--out", help="file to write; default: RUN/export/model, with .pt2 or .onnx")
    return command


def run(arguments: list[str]) -> None:
    """Run the command."""
    given, _ = parser().parse(arguments)
    from cbam3d.runs.run import open_run

    opened = open_run(given.run, trust_code=given.trust_code)
    path, difference = opened.export(given.format, checkpoint=given.checkpoint, out=given.out)
    facts = path.with_suffix(".json")
    console().print(f"{path}: logits within {difference:.1e} of the original's; what it expects is in {facts}")
