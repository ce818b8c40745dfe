"""The options of a command, and the keys of a configuration among them: one parser for reading, help and completion."""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from cbam3d.config.keys import Key, keys, sections
from cbam3d.config.section import unknown_key
from cbam3d.errors import InputError, unknown
from cbam3d.files import parse_yaml


class CommandParser(argparse.ArgumentParser):
    """The options of a command; what is wrong is reported in one line.

    Args:
        command: of `cbam3d`, a word.
        about: what it does, for its help.
    """

    def __init__(self, command: str, about: str) -> None:
        super().__init__(f"cbam3d {command}", description=about, allow_abbrev=False)
        self.command, self.takes_keys = command, False

    def add_run(self) -> None:
        """What every command takes that opens a run."""
        self.add_argument("run", help="folder of a run, or a checkpoint")
        self.add_how()

    def add_how(self) -> None:
        """Options of how a run is opened."""
        text = "import the class that the run names as its network; only for runs that you trust"
        self.add_argument("--trust-code", action="store_true", help=text)

    def add_checkpoint(self) -> None:
        """The option --checkpoint."""
        text = "which one of a run's folder (default: last)"
        self.add_argument("--checkpoint", choices=("last", "best"), default="last", help=text)

    def add_device(self) -> None:
        """The option --device."""
        self.add_argument("--device", default="cpu", help="where the network computes: cpu, cuda, mps")

    def add_keys(self) -> None:
        """Every key of a configuration as an option --section.key."""
        self.takes_keys = True
        self.usage = self.format_usage().removeprefix("usage: ").rstrip().replace("%", "%%")
        self.usage += "\n" + " " * len(f"usage: {self.prog} ") + "[--section.key VALUE ...]"
        groups = {section: self.add_argument_group(section, about) for section, about in sections().items()}
        for key in keys():
            section, _, name = key.name.partition(".")
            text = f"{key.meaning} (default: {key.default})".replace("%", "%%")
            metavar = f"{{{','.join(key.choices)}}}" if key.choices else name.upper()
            action = groups[section].add_argument(
                f"--{key.name}", dest=key.name, default=argparse.SUPPRESS, metavar=metavar, help=text
            )
            action.key = key  # type: ignore[attr-defined]

    def parse(self, arguments: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
        """The command's own options, and the keys that are given, with their values.

        Raises:
            InputError: an unknown option or key (the nearest known one is named), or a missing value.
        """
        arguments, inner = self._take_options_within(list(arguments))
        given, rest = self.parse_known_args(arguments)
        if rest:
            known = [option[2:] for option in self._option_string_actions if option.startswith("--")]
            name = next((word for word in rest if word.startswith("--")), "").removeprefix("--").partition("=")[0]
            raise InputError(
                f"command line: {unknown_key(name, known) if self.takes_keys else unknown('option', name, known)}"
                if name
                else f"{self.command}: unexpected argument {rest[0]!r}"
            )
        values = {key.name: _value(key, getattr(given, key.name)) for key in keys() if key.name in vars(given)}
        return given, values | inner

    def _take_options_within(self, arguments: list[str]) -> tuple[list[str], dict[str, Any]]:
        """Take out values of single options within a key: --model.options.width 32."""
        within = tuple(f"--{key.name}." for key in keys() if key.kind == "keys with values") if self.takes_keys else ()
        rest: list[str] = []
        found: dict[str, Any] = {}
        words = iter(arguments)
        for word in words:
            if not within or not word.startswith(within):
                rest.append(word)
                whole = word[2:].partition("=")[0]  # the whole key goes over its options before
                found = {name: value for name, value in found.items() if not name.startswith(f"{whole}.")}
                continue
            name, given, text = word[2:].partition("=")
            value = text if given else next(words, None)
            if value is None:
                self.error(f"argument --{name}: expected one argument")
            found[name] = _parse(name, value)
        return rest, found

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.command}: {message}")


def _value(key: Key, text: str) -> Any:
    """The value of a key as it is given; text stands as it is, unless it is a list where one may be."""
    if key.text and not ("a list" in key.kind and text.lstrip().startswith("[")):
        return None if text.strip() in ("null", "~") and "null" in key.kind.split() else text
    return _parse(key.name, text)


def _parse(name: str, text: str) -> Any:
    try:
        return parse_yaml(text) if text.strip() else text
    except ValueError as error:
        raise InputError(f"{name}: cannot read {text!r} ({error})") from None
