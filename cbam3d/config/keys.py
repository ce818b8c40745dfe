"""Every key with its type, bounds, default and meaning, in words and as a JSON schema; all made from schema.py."""

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from cbam3d.config.schema import Config
from cbam3d.config.section import Section, in_words, schema_of


@dataclass(frozen=True)
class Key:
    """A key.

    Args:
        name: dotted, "data.root".
        kind: what its values are, in words.
        default: as YAML writes it.
        choices: its values, where they can be listed.
        meaning: in one sentence or two.
        fixed: whether a resumed run cannot change it.
        text: whether a value is text as it stands, rather than YAML.
    """

    name: str
    kind: str
    default: str
    choices: tuple[str, ...]
    meaning: str
    fixed: bool
    text: bool


def sections() -> dict[str, str]:
    """What each section is about, in the order of the page."""
    return {name: (cls.__doc__ or "").strip() for name, cls in _classes().items()}


@cache
def keys() -> tuple[Key, ...]:
    """Every key, in the order of the page."""
    found = []
    for section, cls in _classes().items():
        for name, entry in cls.model_fields.items():
            schema = schema_of(cls, name)
            kind, choices = in_words(cls, name), _choices(schema)
            meaning = " ".join((entry.description or "").split())
            default = json.dumps(getattr(cls(), name)).strip('"')
            is_text = any(one.get("type") == "string" for one in schema.get("anyOf", [schema]))
            found.append(Key(f"{section}.{name}", kind, default, choices, meaning, "fixed" in entry.metadata, is_text))
    return tuple(found)


def json_schema() -> dict[str, Any]:
    """The JSON schema of a configuration file, by which editors complete and check YAML."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def _classes() -> dict[str, type[Section]]:
    return {name: entry.annotation for name, entry in Config.model_fields.items()}  # type: ignore[misc]


def _choices(schema: dict[str, Any]) -> tuple[str, ...]:
    found: list[str] = []
    for one in schema.get("anyOf", [schema]):
        found += ["true", "false"] if one.get("type") == "boolean" else map(str, one.get("enum", ()))
    return (*found, "null") if found and "anyOf" in schema else tuple(found)
