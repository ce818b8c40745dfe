"""Copies of a folder's videos that decode many times faster: small pictures, a keyframe every few frames, no sound."""

from dataclasses import dataclass
from pathlib import Path

from cbam3d.data.manifest import Manifest, from_rows
from cbam3d.data.probe import Copy


@dataclass(frozen=True)
class Copies:
    """Where copies lie and what they are like; see probe.Copy. The folders are those of the originals."""

    root: Path
    short_side: int
    gop: int

    def of(self, paths: list[str]) -> list[Copy]:
        """The copy of each video."""
        taken: set[str] = set()
        copies = []
        for path in paths:
            place = str(Path(path).with_suffix(".avi"))
            if place in taken:  # a.mp4 beside a.mov
                place = f"{path}.avi"
            taken.add(place)
            copies.append(Copy(self.root / place, self.short_side, self.gop))
        return copies

    def manifest(self, originals: Manifest) -> Manifest:
        """The table of the copies of the usable videos."""
        copies = self.of(list(originals.path))
        rows = []
        for copy, row, is_usable in zip(copies, originals.rows(), originals.usable, strict=True):
            if is_usable:
                height, width = copy.size(row["height"], row["width"])
                place = copy.path.relative_to(self.root).as_posix()
                rows.append({**row, "path": place, "height": height, "width": width, "problem": ""})
        return from_rows(sorted(rows, key=lambda row: row["path"]))
