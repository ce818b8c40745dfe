"""What other packages add: mechanisms, heads, networks and data sets, by entry points.

    [project.entry-points."cbam3d.attention"]
    mine = "package.module:Block"           # as of register_attention
    [project.entry-points."cbam3d.heads"]
    my_head = "package.module:Head"         # as of register_head
    [project.entry-points."cbam3d.models"]
    my_net = "package.module:Network"       # as of register_model
    [project.entry-points."cbam3d.datasets"]
    my_data = "package.my_data"             # a module in a folder with a recipe.yaml

A name that this package has itself keeps its meaning. Nothing is imported before it is asked for by its name.
"""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

Kind = Literal["attention", "heads", "models", "datasets"]


@cache
def plugins(kind: Kind) -> dict[str, EntryPoint]:
    """What is installed of a kind, by name."""
    return {one.name: one for one in sorted(entry_points(group=f"cbam3d.{kind}"), key=lambda one: one.name)}


def load_plugin(kind: Kind, name: str) -> Any:
    """Import what a name stands for.

    Raises:
        ValueError: it cannot be imported.
    """
    one = plugins(kind)[name]
    try:
        return one.load()
    except Exception as error:  # code of others
        package = one.dist.name if one.dist else "another package"
        raise ValueError(f"{name} of {package} cannot be imported ({one.value}: {error})") from None
