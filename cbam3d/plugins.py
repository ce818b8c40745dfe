"""What is known by name: of this package, of this process, and of other packages, by entry points.

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

from collections.abc import Callable, Collection, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from cbam3d.errors import check_new_name, unknown

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


class Registry:
    """Classes (or functions that build) by name.

    Args:
        kind: of the plugins.
        noun: what one is, in messages.
        built_in: this package's own.
        check: raises ValueError for what is not of the kind.
        reserved: further names that none can have.
    """

    def __init__(
        self,
        kind: Kind,
        noun: str,
        built_in: Mapping[str, Any],
        check: Callable[[Any], None] = lambda _: None,
        reserved: Collection[str] = (),
    ) -> None:
        self.kind: Kind = kind
        self.noun, self.built_in, self.check, self.reserved = noun, built_in, check, reserved
        self.added: dict[str, Any] = {}

    def names(self) -> list[str]:
        """All of them."""
        return sorted({*self.built_in, *self.added, *plugins(self.kind)})

    def add(self, name: str, value: Any) -> None:
        """Register one.

        Raises:
            ValueError: a name that is taken or malformed, or a value that is not of the kind.
        """
        self._keep(name, value, taken=self.names())

    def find(self, name: str) -> Any:
        """What a name stands for.

        Raises:
            ValueError: an unknown name, or a plugin that cannot be imported or is not of the kind.
        """
        if name in self.built_in:
            return self.built_in[name]
        if name not in self.added and name in plugins(self.kind):
            self._keep(name, load_plugin(self.kind, name))
        if name not in self.added:
            raise ValueError(unknown(self.noun, name, self.names()))
        return self.added[name]

    def _keep(self, name: str, value: Any, taken: Collection[str] = ()) -> None:
        check_new_name(self.noun, name, (*taken, *self.reserved))
        self.check(value)
        self.added[name] = value

    def is_local(self, name: str) -> bool:
        """Whether only this process knows a name."""
        return name in self.added and name not in plugins(self.kind)
