"""YAML files, names of bundled configurations and mappings -> a `Config`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cbam3d.config.bundled import find_config
from cbam3d.config.schema import Config
from cbam3d.errors import InputError
from cbam3d.files import atomic_write, load_mapping, to_yaml

DEFAULT = "motion"
ConfigSource = Config | str | Path | Mapping[str, Any]


def load_config(source: ConfigSource, overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration that is meant.

    Args:
        source: a `Config`; the path of a YAML file; the name of a bundled configuration ("motion"); or a mapping of
            values by dotted key or by section, whose entry "config" names the file or configuration that they
            override (the demo, "motion", if there is none): {"config": "folder", "data.root": "videos"}.
        overrides: further values, in the same form.

    Raises:
        InputError: no such configuration, an unknown key (the nearest one is named), or a value of another type or out
            of bounds.

    Examples:
        >>> from cbam3d import load_config
        >>> config = load_config("motion", {"train.epochs": 3})
        >>> config.train.epochs, config.model.attention
        (3, 'cbam')
    """
    return _load(source, overrides or {})


def _load(source: ConfigSource, *changes: Mapping[str, Any]) -> Config:
    if isinstance(source, Mapping):
        values = {str(name): value for name, value in source.items() if name != "config"}
        return _load(source.get("config", DEFAULT), values, *changes)
    if isinstance(source, Config):
        return source.override(*changes)
    path = find_config(str(source))
    content = load_mapping(path, "configuration")
    values = {str(section): entries for section, entries in content.items()}
    try:
        return Config().override(values, *changes)
    except InputError as error:
        raise InputError(f"{path}: {error}" if _problem(values) == str(error) else str(error)) from None


def write_config(config: Config, path: Path) -> None:
    """Write a YAML file, whole or not at all."""
    with atomic_write(path) as unfinished:
        unfinished.write_text(to_yaml(config.plain()), "utf-8")


def _problem(values: Mapping[str, Any]) -> str:
    """What is wrong with a file, whatever overrides it; else empty."""
    try:
        Config().override(values)
    except InputError as error:
        return str(error)
    return ""


def name_of(source: ConfigSource) -> str:
    """What a run of this configuration is called: the name of its file, or "run"."""
    if isinstance(source, Mapping):
        return name_of(source.get("config", DEFAULT))
    return "run" if isinstance(source, Config) else Path(source).stem
