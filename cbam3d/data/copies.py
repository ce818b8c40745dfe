"""Copies of a folder's videos that decode many times faster: small pictures, a keyframe every few frames, no sound."""

import os
from dataclasses import dataclass
from pathlib import Path

from cbam3d.data.listing import leads_out
from cbam3d.data.manifest import Manifest, from_rows
from cbam3d.data.probe import Copy, file_state
from cbam3d.errors import InputError


@dataclass(frozen=True)
class Copies:
    """Where copies lie and what they are like; see probe.Copy. The folders are those of the originals."""

    root: Path
    short_side: int
    gop: int

    def of(self, path: str) -> Copy:
        """The copy of a video: its name is the original's, with .avi behind it where it has another suffix."""
        name = path if path.lower().endswith(".avi") else f"{path}.avi"
        if leads_out(self.root / name, os.path.realpath(self.root)):
            raise InputError(f"{path}: its copy would lie outside of {self.root}")
        return Copy(self.root / name, self.short_side, self.gop)

    def manifest(self, originals: Manifest) -> Manifest:
        """The table of the copies of the usable videos."""
        rows = []
        for row in originals.select(originals.usable).rows():
            copy = self.of(row["path"])
            height, width = copy.size(row["height"], row["width"])
            place = copy.path.relative_to(self.root).as_posix()
            state = dict(zip(("num_bytes", "changed_ns"), file_state(copy.path), strict=True))
            rows.append({**row, **state, "path": place, "height": height, "width": width, "problem": ""})
        return from_rows(sorted(rows, key=lambda row: row["path"]))
