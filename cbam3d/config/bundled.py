"""The configurations and recipes that come with the package: inside it in a wheel, beside it in a clone."""

from pathlib import Path

from cbam3d.errors import InputError, unknown
from cbam3d.plugins import load_plugin, plugins


def bundled(kind: str) -> Path:
    """The folder `configs` or `datasets`."""
    package = Path(__file__).parents[1]
    inside = package / kind
    return inside if inside.is_dir() else package.parent / kind


def find_config(name: str) -> Path:
    """A path to a YAML file, or the name of a bundled configuration such as "motion".

    Raises:
        InputError: neither.
    """
    if Path(name).is_file():
        return Path(name)
    known = {path.stem: path for path in bundled("configs").glob("*.yaml")}
    if name in known:
        return known[name]
    if Path(name).suffix or "/" in name:
        raise InputError(f"{name}: no such configuration file")
    raise InputError(unknown("configuration", name, known))


def list_recipes() -> list[str]:
    """Names that `find_recipe` knows."""
    return sorted({path.parent.name for path in bundled("datasets").glob("*/recipe.yaml")} | {*plugins("datasets")})


def find_recipe(name: str) -> Path:
    """A path to a folder with a recipe.yaml, or the name of a bundled recipe such as "ucf101", or of a plugin's.

    Raises:
        InputError: neither.
    """
    for folder in (Path(name), bundled("datasets") / name):
        if (folder / "recipe.yaml").is_file():
            return folder
    if name in plugins("datasets"):
        try:
            folder = Path(load_plugin("datasets", name).__file__).parent
        except (ValueError, AttributeError, TypeError) as error:
            raise InputError(f"recipe {error}") from None
        if (folder / "recipe.yaml").is_file():
            return folder
        raise InputError(f"{folder}: no recipe.yaml there")
    if "/" in name:
        raise InputError(f"{name}: no folder with a recipe.yaml")
    raise InputError(unknown("recipe", name, list_recipes()))
