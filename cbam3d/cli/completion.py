"""`cbam3d completion`: a script for the shell that completes commands, options and their values."""

import argparse
from importlib import import_module

import shtab

from cbam3d.cli.main import COMMANDS
from cbam3d.cli.parser import CommandParser


def parser() -> CommandParser:
    """The options of the command."""
    about = (
        "Print a script that completes commands, options and their values; put it where your shell looks for such: "
        "cbam3d completion bash > ~/.local/share/bash-completion/completions/cbam3d"
    )
    command = CommandParser("completion", about)
    command.add_argument("shell", choices=shtab.SUPPORTED_SHELLS)
    return command


def run(arguments: list[str]) -> None:
    """Run the command."""
    given, _ = parser().parse(arguments)
    print(shtab.complete(_whole(), shell=given.shell))


def _whole() -> argparse.ArgumentParser:
    """Every command with its options, as one parser."""
    whole = argparse.ArgumentParser("cbam3d")
    commands = whole.add_subparsers()
    for name in COMMANDS:
        one = import_module(f"cbam3d.cli.{name}").parser()
        for action in one._actions:
            if key := getattr(action, "key", None):
                action.choices = key.choices or None
            if action.nargs != 0 and not action.choices:
                action.complete = shtab.FILE
        commands.add_parser(name, parents=[one], add_help=False, help=one.description)
    return whole
