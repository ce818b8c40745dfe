"""Whether a version may be released: python tests/check_release.py VERSION.

The package and CITATION.cff have that version, and CHANGELOG.md tells of it, with nothing left unreleased.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def problems(version: str, root: Path = ROOT) -> list[str]:
    """What is missing, in words."""
    package = re.search(r'^__version__ = "(.+)"$', (root / "cbam3d" / "__init__.py").read_text(), re.MULTILINE)
    citation = re.search(r"^version: (.+)$", (root / "CITATION.cff").read_text(), re.MULTILINE)
    found = []
    for name, match in (("cbam3d/__init__.py", package), ("CITATION.cff", citation)):
        if match is None or match[1].strip("\"'") != version:
            found.append(f"{name} has the version {match and match[1]}, not {version}")
    sections = dict(
        re.findall(r"^## (\S+)[^\n]*\n(.*?)(?=^## |\Z)", (root / "CHANGELOG.md").read_text(), re.DOTALL | re.MULTILINE)
    )
    if not sections.get(version, sections.get(f"[{version}]", "")).strip():
        found.append(f"CHANGELOG.md tells nothing of {version}")
    if sections.get("Unreleased", "").strip():
        found.append("CHANGELOG.md has changes under Unreleased")
    return found


if __name__ == "__main__":
    missing = problems(sys.argv[1])
    print("\n".join(missing) or f"{sys.argv[1]} may be released")
    sys.exit(bool(missing))
