"""YAML files and the command line -> a `Config`."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse

from cbam3d.config import Config
from cbam3d.errors import InputError, unknown
from cbam3d.files import load_mapping
from cbam3d.keys import keys, sections
from cbam3d.resources import find_config


class CommandParser(argparse.ArgumentParser):
    """The options of a command; says what is wrong in one line, as everything here does.

    Args:
        command: of `cbam3d`, a word.
        about: what it does, for its help.
        takes_keys: whether keys of a configuration follow; they are in its help, and left to `parse_config`.
    """

    def __init__(self, command: str, about: str | None, takes_keys: bool = False) -> None:
        super().__init__(f"cbam3d {command}", description=about, allow_abbrev=False)
        self.takes_keys = takes_keys

    def add_config(self, default: str | Path) -> None:
        """The option --config."""
        text = "YAML file, or the name of a bundled configuration"
        self.add_argument("--config", default=str(default), metavar="FILE", help=text)

    def add_checkpoint(self) -> None:
        """The option --checkpoint."""
        text = "which one of a run's folder (default: last)"
        self.add_argument("--checkpoint", choices=("last", "best"), default="last", help=text)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog.split()[-1]}: {message}")

    def format_help(self) -> str:
        return self.with_keys().format_help() if self.takes_keys else super().format_help()

    def with_keys(self) -> argparse.ArgumentParser:
        """The same with every key as an option, for help and completion."""
        if not self.takes_keys:
            return self
        usage = self.format_usage().removeprefix("usage: ").rstrip().replace("%", "%%")
        usage += "\n" + " " * len(f"usage: {self.prog} ") + "[--section.key VALUE ...]"
        whole = argparse.ArgumentParser(self.prog, usage, self.description, parents=[self], add_help=False)
        groups = {section: whole.add_argument_group(section, what) for section, what in sections().items()}
        for key in keys():
            text = f"{key.meaning} (default: {key.default})"
            options = {"choices": key.choices} if key.choices else {"metavar": key.name.split(".")[1].upper()}
            group = groups[key.name.split(".")[0]]
            group.add_argument(f"--{key.name}", help=text.replace("%", "%%"), **options)  # type: ignore[arg-type]
        return whole


def parse_config(arguments: list[str], command: CommandParser) -> tuple[Config, Path, argparse.Namespace]:
    """Read the command's `config`, then the keys of the command line over it.

    Args:
        arguments: of the command line.
        command: the options of the command that are no keys.

    Returns: the configuration, the file it comes from, and the command's own options.

    Raises:
        InputError: an unknown key (the nearest known one is named), a value of the wrong type or out of range.
    """
    parser = jsonargparse.ArgumentParser(prog=command.prog, exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Config)
    options, given = command.parse_known_args(arguments)
    path = find_config(options.config)
    _check_keys(_keys_of_file(path), str(path))
    own = [option[2:] for option in command._option_string_actions if option.startswith("--")]
    _check_keys([key[2:].split("=")[0] for key in given if key.startswith("--")], "command line", own)
    try:
        parsed = parser.instantiate(parser.parse_args(["--config", str(path), *given]))
    except InputError:
        raise
    except (argparse.ArgumentError, TypeError, ValueError) as error:
        raise InputError(_in_our_words(error)) from None
    return Config(**{entry.name: parsed[entry.name] for entry in fields(Config)}), path, options


def config_of(saved: dict[str, Any]) -> Config:
    """The configuration in a checkpoint, as `Config`; keys that it does not have take their defaults.

    Raises:
        InputError: keys or values that this version does not know.
    """
    _check_keys([f"{section}.{key}" for section, entries in saved.items() for key in entries], "its configuration")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Config)
    try:
        parsed = parser.instantiate(parser.parse_object(saved))
    except (argparse.ArgumentError, TypeError, ValueError) as error:
        raise InputError(_in_our_words(error)) from None
    return Config(**{entry.name: parsed[entry.name] for entry in fields(Config)})


def _in_our_words(error: Exception) -> str:
    """What the parser says of a value: its key, what it should be, and what it is."""
    text = " ".join(str(error).split())
    found = re.search(r'Parser key "([\w.]+)":.*(?:Got|Given) value: (.*)$', text)
    kinds = {key.name: key.kind for key in keys()}
    if found is None or found[1] not in kinds:
        return text
    return f"{found[1]}: expected {kinds[found[1]]}, got {found[2]}"


def _keys_of_file(path: Path) -> list[str]:
    found = []
    for section, entries in load_mapping(path, "configuration").items():
        if str(section) in {entry.name for entry in fields(Config)} and not isinstance(entries, dict):
            raise InputError(f"{path}: section {section!r} must hold keys, got {entries!r}")
        found += [f"{section}.{key}" for key in entries] if isinstance(entries, dict) else [str(section)]
    return found


def _check_keys(given: list[str], where: str, options: Sequence[str] = ()) -> None:
    known = [*(key.name for key in keys()), *options]
    leaves = [name for name in known if name.endswith("options")]
    for name in given:
        inside = any(name.startswith(leaf + ".") for leaf in leaves)
        if name not in known and not inside:
            raise InputError(f"{where}: {unknown('key', name, known)}")
