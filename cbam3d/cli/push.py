"""`cbam3d push`."""

from pathlib import Path

from cbam3d.cli.console import console
from cbam3d.cli.parser import CommandParser
from cbam3d.errors import InputError


def parser() -> CommandParser:
    """The options of the command."""
    about = (
        "Upload a run to the Hugging Face Hub: weights, classes, scores and a card. `hf:owner/name` is then what other "
        "commands take as a run."
    )
    command = CommandParser("push", about)
    command.add_run()
    command.add_argument("repository", help="owner/name; created where it is missing")
    command.add_argument("--private", action="store_true", help="create it for its owner alone")
    command.add_argument("--license", default="", help="of the weights, as the Hub names it: cc-by-4.0, mit, …")
    command.add_argument("--citation", metavar="FILE", help="BibTeX for the card")
    command.add_argument("--save", metavar="DIR", help="write the files to a folder, and upload nothing")
    return command


def run(arguments: list[str]) -> None:
    """Run the command."""
    given, _ = parser().parse(arguments)
    from cbam3d.runs.run import open_run

    opened = open_run(given.run, trust_code=given.trust_code)
    try:
        citation = Path(given.citation).read_text("utf-8").strip() if given.citation else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{given.citation}: cannot be read ({error})") from None
    about = {"license": given.license, "citation": citation}
    if given.save:
        folder = opened.save_pretrained(given.save, given.repository, **about)
        console().print(f"{folder} has the files of {given.repository}")
        return
    console().print(opened.push_to_hub(given.repository, private=given.private, **about))
