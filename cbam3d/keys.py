"""Every key of a configuration with its type, default and meaning, as config.py has them."""

from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from docstring_parser import parse

from cbam3d.config import Config


@dataclass(frozen=True)
class Key:
    """A key.

    Args:
        name: dotted, "data.root".
        kind: what its values are, in words.
        default: as YAML writes it.
        choices: the values that it may have, where they can be listed.
        meaning: in a few words.
    """

    name: str
    kind: str
    default: str
    choices: tuple[str, ...]
    meaning: str


def sections() -> dict[str, str]:
    """What each section is about, in the order of the page."""
    kinds = get_type_hints(Config)
    return {entry.name: parse(kinds[entry.name].__doc__).short_description or "" for entry in fields(Config)}


@cache
def keys(cls: type = Config, prefix: str = "") -> tuple[Key, ...]:
    """Every key, in the order of the page."""
    meanings = {entry.arg_name: entry.description or "" for entry in parse(cls.__doc__ or "").params}
    kinds, defaults = get_type_hints(cls), cls()
    found: list[Key] = []
    for entry in fields(cls):
        kind, name = kinds[entry.name], prefix + entry.name
        if is_dataclass(kind):
            found += keys(kind, name + ".")  # type: ignore[arg-type]
        else:
            default = _as_yaml(getattr(defaults, entry.name))
            found.append(Key(name, _in_words(kind), default, _choices(kind), " ".join(meanings[entry.name].split())))
    return tuple(found)


def _in_words(kind: Any) -> str:
    plain = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    if kind in plain:
        return plain[kind]
    of, parts = get_origin(kind), get_args(kind)
    if of is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if of is tuple:
        return f"a list of {len(parts)} numbers"
    if of in (list, dict):
        return "a list" if of is list else "keys with values"
    return " or ".join(map(_in_words, parts))


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
