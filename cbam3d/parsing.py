"""YAML files and the command line -> a `Config`."""

import argparse
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import jsonargparse
import yaml

from cbam3d.config import Config
from cbam3d.errors import InputError, unknown
from cbam3d.resources import find_config


class CommandParser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything here does."""

    def error(self, message: str):
        raise InputError(f"{self.prog.split()[-1]}: {message}")


def config_keys(cls: type = Config, prefix: str = "") -> list[str]:
    """Every key, dotted, in the order of the page."""
    keys = []
    for entry in fields(cls):
        name = prefix + entry.name
        keys += config_keys(entry.type, name + ".") if is_dataclass(entry.type) else [name]  # type: ignore[arg-type]
    return keys


def parse_config(
    arguments: list[str], default: str | Path, command: CommandParser
) -> tuple[Config, Path, argparse.Namespace]:
    """Read `--config FILE` (or `default`), then the keys of the command line over it.

    Args:
        arguments: of the command line.
        default: configuration where none is named.
        command: the options of the command that are no keys, without --help.

    Returns: the configuration, the file it comes from, and the command's own options.

    Raises:
        InputError: an unknown key (the nearest known one is named), a value of the wrong type or out of range.
    """
    command.add_argument("--config", default=str(default), help="YAML file, or the name of a bundled configuration")
    parser = jsonargparse.ArgumentParser(prog=command.prog, usage=f"{command.prog} [options]", exit_on_error=False)
    parser.add_argument("--config", action="config", help=argparse.SUPPRESS)
    parser.add_class_arguments(Config)
    if "-h" in arguments or "--help" in arguments:
        print(command.format_help())
        parser.print_help()
        sys.exit(0)
    options, keys = command.parse_known_args(arguments)
    path = find_config(options.config)
    _check_keys(_keys_of_file(path), str(path))
    _check_keys([key[2:].split("=")[0] for key in keys if key.startswith("--")], "command line")
    try:
        parsed = parser.instantiate(parser.parse_args(["--config", str(path), *keys]))
    except InputError:
        raise
    except (argparse.ArgumentError, TypeError, ValueError) as error:
        raise InputError(" ".join(str(error).split())) from None
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
        raise InputError(" ".join(str(error).split())) from None
    return Config(**{entry.name: parsed[entry.name] for entry in fields(Config)})


def _keys_of_file(path: Path) -> list[str]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected sections with keys, got {type(content).__name__}")
    keys = []
    for section, entries in content.items():
        if str(section) in {entry.name for entry in fields(Config)} and not isinstance(entries, dict):
            raise InputError(f"{path}: section {section!r} must hold keys, got {entries!r}")
        keys += [f"{section}.{key}" for key in entries] if isinstance(entries, dict) else [str(section)]
    return keys


def _check_keys(keys: list[str], where: str) -> None:
    known = config_keys()
    leaves = [key for key in known if key.endswith("options")]
    for key in keys:
        inside = any(key.startswith(leaf + ".") for leaf in leaves)
        if key not in known and not inside:
            raise InputError(f"{where}: {unknown('key', key, known)}")
