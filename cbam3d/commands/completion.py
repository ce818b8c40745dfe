"""A script for the shell that completes commands, options and their values."""

import argparse
from importlib import import_module

import shtab

from cbam3d.cli import COMMANDS
from cbam3d.parsing import CommandParser


def completion(arguments: list[str]) -> None:
    """Print a script that completes commands, options and their values; put it where your shell looks for such:
    cbam3d completion bash > ~/.local/share/bash-completion/completions/cbam3d"""
    given = parser().parse_args(arguments)
    print(shtab.complete(_whole(), shell=given.shell))


def parser() -> CommandParser:
    """The options of the command."""
    command = CommandParser("completion", completion.__doc__)
    command.add_argument("shell", choices=shtab.SUPPORTED_SHELLS)
    return command


def _whole() -> argparse.ArgumentParser:
    """Every command with its options, as one parser."""
    whole = argparse.ArgumentParser("cbam3d")
    commands = whole.add_subparsers()
    for name, where in COMMANDS.items():
        module = import_module(f"cbam3d.commands.{where.partition('.')[0]}")
        one = module.parser().with_keys()
        for action in one._actions:
            if action.nargs != 0 and not action.choices:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        about = " ".join((one.description or "").split())
        commands.add_parser(name, parents=[one], add_help=False, help=about)
    return whole
