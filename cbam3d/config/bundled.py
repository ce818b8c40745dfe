"""The configurations and recipes that come with the package: inside it in a wheel, beside it in a clone."""

from pathlib import Path

from cbam3d.errors import InputError, unknown


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


def find_recipe(name: str) -> Path:
    """A path to a folder with a recipe.yaml, or the name of a bundled recipe such as "ucf101".

    Raises:
        InputError: neither.
    """
    for folder in (Path(name), bundled("datasets") / name):
        if (folder / "recipe.yaml").is_file():
            return folder
    if "/" in name:
        raise InputError(f"{name}: no folder with a recipe.yaml")
    known = [path.parent.name for path in bundled("datasets").glob("*/recipe.yaml")]
    raise InputError(unknown("recipe", name, known))
