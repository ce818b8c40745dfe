"""What is known of each file while a folder is being read, so that a broken off reading goes on from there."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cbam3d.data.probe import VideoInfo


class Journal:
    """A file of JSON lines, one a video that was read.

    Args:
        path: the file; None keeps nothing.
        root: folder of the videos.
        facts: plain data; what was noted with other facts does not count.
    """

    def __init__(self, path: Path | None, root: Path, facts: dict[str, Any]) -> None:
        self.path, self.root, self.facts = path, root, facts

    def read(self) -> dict[str, VideoInfo]:
        """Path -> what is known, of the files that have not changed since."""
        if self.path is None or not self.path.exists():
            return {}
        known = {}
        for line in self.path.read_text(encoding="ascii", errors="replace").split("\n"):
            try:
                note = json.loads(line)
                info = note["info"] | {"fingerprint": bytes.fromhex(note["info"]["fingerprint"])}
                if note["state"] == self._state(note["path"]) and note["facts"] == self.facts:
                    known[note["path"]] = VideoInfo(**info)
            except (ValueError, KeyError, TypeError, OSError):
                continue  # the last line of a reading that was killed
        return known

    def note(self, path: str, info: VideoInfo) -> None:
        """Keep what is known of a file."""
        if self.path is None:
            return
        plain = asdict(info) | {"fingerprint": info.fingerprint.hex()}
        note = {"path": path, "state": self._state(path), "facts": self.facts, "info": plain}
        with open(self.path, "a", encoding="ascii") as file:
            file.write(json.dumps(note) + "\n")

    def _state(self, path: str) -> list[int]:
        try:
            state = os.stat(self.root / path)
        except OSError:  # a link to nowhere, or a file that has gone
            return []
        return [state.st_size, state.st_mtime_ns]
