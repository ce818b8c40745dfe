"""Write the table of configuration keys into docs/CONFIGURATION.md, from the dataclasses of cbam3d/config.py.

python docs/make_keys.py
"""

import html
from pathlib import Path

from cbam3d.keys import keys, sections

PAGE = Path(__file__).with_name("CONFIGURATION.md")
BEGIN, END = "<!-- keys: written by docs/make_keys.py -->", "<!-- end of keys -->"


def tables() -> str:
    """A table a section in Markdown, between the marks."""
    lines = [BEGIN]
    for section, what in sections().items():
        lines += ["", f"## {section}", "", what, "", "| key | default | meaning |", "|---|---|---|"]
        for key in keys():
            if key.name.startswith(f"{section}."):
                meaning = html.escape(key.meaning, quote=False).replace("|", "\\|")
                lines.append(f"| `{key.name}` | `{key.default}` | {meaning} |")
    return "\n".join([*lines, "", END])


if __name__ == "__main__":
    text = PAGE.read_text()
    start, stop = text.index(BEGIN), text.index(END) + len(END)
    PAGE.write_text(text[:start] + tables() + text[stop:])
