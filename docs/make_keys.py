"""Write the table of configuration keys into the README, from the dataclasses of cbam3d/config.py.

python docs/make_keys.py
"""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from docstring_parser import parse

from cbam3d.config import Config

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- keys: written by docs/make_keys.py -->", "<!-- end of keys -->"


def rows(cls: type = Config, prefix: str = "") -> list[tuple[str, str, str]]:
    """Key, default and meaning of every field, in the order of the page."""
    meanings = {entry.arg_name: entry.description or "" for entry in parse(cls.__doc__ or "").params}
    found = []
    for entry in fields(cls):
        kind = get_type_hints(cls)[entry.name]
        if is_dataclass(kind):
            found += rows(kind, f"{prefix}{entry.name}.")  # type: ignore[arg-type]
        else:
            default = getattr(cls(), entry.name)
            found.append((prefix + entry.name, _shown(default), " ".join(meanings[entry.name].split())))
    return found


def table() -> str:
    """The table in Markdown, between its marks."""
    lines = [f"| `{key}` | {default} | {meaning.replace('|', chr(92) + '|')} |" for key, default, meaning in rows()]
    return "\n".join([BEGIN, "", "| key | default | |", "|---|---|---|", *lines, "", END])


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


if __name__ == "__main__":
    text = README.read_text()
    start, stop = text.index(BEGIN), text.index(END) + len(END)
    README.write_text(text[:start] + table() + text[stop:])
