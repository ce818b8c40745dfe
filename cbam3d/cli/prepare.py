"""`cbam3d prepare`."""

from cbam3d.cli.console import console, table_of
from cbam3d.cli.parser import CommandParser
from cbam3d.errors import counted

_MAX_CLASSES_SHOWN = 40


def parser() -> CommandParser:
    """The options of the command."""
    about = (
        "Read every video once, and write what is known of it to ROOT/manifest.csv: training then opens no video ahead."
        " When interrupted, the same command resumes."
    )
    command = CommandParser("prepare", about)
    command.add_argument("recipe", help="name of a recipe (cbam3d list), or path of a folder with a recipe.yaml")
    command.add_argument("--root", required=True, help="folder of the data, or its URL")
    command.add_argument("--groups", help="CSV with columns path and group (and label, split)")
    command.add_argument("--annotations", help="the data set's own annotation files: their folder, or one of them")
    command.add_argument("--split", type=int, default=1, help="number of the split that is checked for leaks")
    command.add_argument("--allow-leaks", action="store_true", help="accept groups in training and held out")
    command.add_argument("--allow-outside", action="store_true", help="follow links that lead out of the folder")
    command.add_argument("--workers", type=int, help="processes that decode (default: one per core)")
    command.add_argument("--timeout-seconds", type=float, default=600.0, help="how long a file may take")
    command.add_argument("--short-side", type=int, help="write copies, the shorter side this many pixels long")
    command.add_argument("--gop", type=int, default=12, help="frames from keyframe to keyframe of a copy")
    command.add_argument("--copies", help="folder of the copies (default: ROOT-<short side>p)")
    command.add_argument("--shards", help="folder of tar archives to write as well, of the copies where there are some")
    command.add_argument("--engine", default="local", help="local, or ray: on the Ray cluster that there is")
    return command


def run(arguments: list[str]) -> None:
    """Run the command."""
    given, _ = parser().parse(arguments)
    from cbam3d.runs.preparation import prepare

    done = prepare(**vars(given))
    classes = done.classes()
    if len(classes) > _MAX_CLASSES_SHOWN:
        usable = [count for _, _, count in classes]
        console().print(f"{len(classes)} classes of {min(usable)} to {max(usable)} usable videos each")
    else:
        rows = [(name or "(none)", str(found), str(usable)) for name, found, usable in classes]
        console().print(table_of([("class", "videos", "usable"), *rows]))
    console().print(f"{counted(len(done.manifest), 'video')}, {done.manifest.usable.sum()} usable: {done.path}")
    if done.copies is not None:
        console().print(f"train on the copies with --data.root {done.copies}")
    if done.shards is not None:
        console().print(f"train on the shards with --data.root {done.shards}")
