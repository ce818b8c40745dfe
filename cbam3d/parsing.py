"""YAML files and the command line -> a `Config`."""

import argparse
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import jsonargparse
import yaml

from cbam3d.config import Config
from cbam3d.errors import InputError, unknown
from cbam3d.resources import find_config


def config_keys(cls: type = Config, prefix: str = "") -> list[str]:
    """Every key, dotted, in the order of the page."""
    keys = []
    for entry in fields(cls):
        name = prefix + entry.name
        keys += config_keys(entry.type, name + ".") if is_dataclass(entry.type) else [name]  # type: ignore[arg-type]
    return keys


def parse_config(
    arguments: list[str], prog: str, default: str | Path, flags: dict[str, str] | None = None
) -> tuple[Config, Path, dict[str, Any]]:
    """Read `--config FILE` (or `default`), then the keys of the command line over it.

    Args:
        arguments: of the command line.
        prog: name of the command, for --help.
        default: configuration where none is named.
        flags: further options: name -> help; those whose help begins with "*" are switches.

    Returns: the configuration, the file it comes from, and the further options.

    Raises:
        InputError: an unknown key (the nearest known one is named), a value of the wrong type or out of range.
    """
    parser = _parser(prog, flags or {})
    arguments, named = _take_config(arguments)
    path = find_config(str(named or default))
    _check_keys(_keys_of_file(path), str(path))
    _check_keys(_keys_of_arguments(arguments, flags or {}), "command line")
    try:
        namespace = parser.parse_args(["--config", str(path), *arguments])
        parsed = parser.instantiate_classes(namespace)
    except InputError:
        raise
    except (argparse.ArgumentError, TypeError, ValueError) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from None
    config = Config(**{entry.name: parsed[entry.name] for entry in fields(Config)})
    return config, path, {name: parsed[name] for name in flags or {}}


def _parser(prog: str, flags: dict[str, str]) -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(prog=prog, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file, or the name of a bundled configuration")
    parser.add_class_arguments(Config)
    for name, text in flags.items():
        if text.startswith("*"):
            parser.add_argument(f"--{name}", action="store_true", help=text[1:])
        else:
            parser.add_argument(f"--{name}", type=str, help=text)
    return parser


def _take_config(arguments: list[str]) -> tuple[list[str], str | None]:
    """The arguments without --config, and its value."""
    rest, named = [], None
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--config":
            named = next(remaining, None)
            if named is None:
                raise InputError("--config needs a file")
        elif argument.startswith("--config="):
            named = argument.removeprefix("--config=")
        else:
            rest.append(argument)
    return rest, named


def _keys_of_file(path: Path) -> list[str]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected sections with keys, got {type(content).__name__}")
    keys = []
    for section, entries in content.items():
        keys += [f"{section}.{key}" for key in entries] if isinstance(entries, dict) else [str(section)]
    return keys


def _keys_of_arguments(arguments: list[str], flags: dict[str, str]) -> list[str]:
    names = [argument[2:].split("=")[0] for argument in arguments if argument.startswith("--")]
    return [name for name in names if name not in {*flags, "help", "print_config"}]


def _check_keys(keys: list[str], where: str) -> None:
    known = config_keys()
    leaves = [key for key in known if key.endswith("options")]
    for key in keys:
        inside = any(key.startswith(leaf + ".") for leaf in leaves)
        if key not in known and not inside:
            raise InputError(f"{where}: {unknown('key', key, known)}")
