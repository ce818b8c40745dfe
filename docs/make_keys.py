"""Write what is known of the keys of a configuration into docs/CONFIGURATION.md and configs/schema.json.

python docs/make_keys.py
"""

import html
import json
from pathlib import Path

from cbam3d.config.keys import json_schema, keys, sections

PAGE = Path(__file__).with_name("CONFIGURATION.md")
SCHEMA = Path(__file__).parents[1] / "configs" / "schema.json"
BEGIN, END = "<!-- keys: written by docs/make_keys.py -->", "<!-- end of keys -->"


def tables() -> str:
    """A table a section in Markdown, between the marks."""
    lines = [BEGIN]
    for section, about in sections().items():
        lines += ["", f"## {section}", "", about, "", "| key | values | default | meaning |", "|---|---|---|---|"]
        for key in keys():
            if key.name.startswith(f"{section}."):
                kind, meaning = (html.escape(text, quote=False).replace("|", "\\|") for text in (key.kind, key.meaning))
                fixed = " *Cannot be changed on resume.*" if key.fixed else ""
                lines.append(f"| `{key.name}` | {kind} | `{key.default}` | {meaning}{fixed} |")
    return "\n".join([*lines, "", END])


if __name__ == "__main__":
    text = PAGE.read_text()
    start, stop = text.index(BEGIN), text.index(END) + len(END)
    PAGE.write_text(text[:start] + tables() + text[stop:])
    SCHEMA.write_text(json.dumps(json_schema(), indent=2) + "\n")
