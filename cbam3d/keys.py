"""Every key of a configuration with its type, default and meaning, as config.py has them."""

from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from docstring_parser import parse

from cbam3d.config import Config


@dataclass(frozen=True)
class Key:
    """A key.

    Args:
        name: dotted, "data.root".
        default: as YAML writes it.
        choices: the values that it may have, where they can be listed.
        meaning: in a few words.
    """

    name: str
    default: str
    choices: tuple[str, ...]
    meaning: str


def sections() -> dict[str, str]:
    """What each section is about, in the order of the page."""
    kinds = get_type_hints(Config)
    return {entry.name: parse(kinds[entry.name].__doc__).short_description or "" for entry in fields(Config)}


def keys(cls: type = Config, prefix: str = "") -> list[Key]:
    """Every key, in the order of the page."""
    meanings = {entry.arg_name: entry.description or "" for entry in parse(cls.__doc__ or "").params}
    found = []
    for entry in fields(cls):
        kind = get_type_hints(cls)[entry.name]
        name = prefix + entry.name
        if is_dataclass(kind):
            found += keys(kind, name + ".")  # type: ignore[arg-type]
        else:
            default = _as_yaml(getattr(cls(), entry.name))
            found.append(Key(name, default, _choices(kind), " ".join(meanings[entry.name].split())))
    return found


def _choices(kind: Any) -> tuple[str, ...]:
    if kind is bool:
        return ("true", "false")
    return get_args(kind) if get_origin(kind) is Literal else ()


def _as_yaml(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{', '.join(map(str, value))}]" if isinstance(value, (list, tuple)) else str(value)
