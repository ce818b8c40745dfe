"""The code blocks of a page, and the commands of a block."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ODD_FENCE = re.compile(r"^(?: +```|```[^\w\n]|```\w+[^\w\n]|\s*~~~)", re.MULTILINE)  # which no test would find


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line of the page where it begins."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [Block(m[1], m[2], text[: m.start()].count("\n") + 1) for m in _FENCE.finditer(text)]


def commands(text: str) -> list[list[str]]:
    """The words of each command of a block, without comments; continued lines are one."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]
