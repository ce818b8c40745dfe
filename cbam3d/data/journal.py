"""What a scan has found so far, so that it goes on from there after any end."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

from cbam3d.errors import InputError
from cbam3d.files import make_folder
from cbam3d.storage import Place, Url, files_below, local_copy, remove, written
from cbam3d.video.probe import VideoInfo

_BYTES = ("fingerprint", "packets", "copied_packets", "times")
_MOST_WAITING, _LONGEST_WAIT = 100, 30.0  # notes, and seconds, until a part is written to a URL


class Journal:
    """A folder of JSON Lines files with one line per video read. Every process that writes has a file of its own; at a
    URL, where nothing can be appended to, it writes one after the other.

    Args:
        folder: None disables the journal.
        facts: plain data; lines written with other facts are ignored.
    """

    def __init__(self, folder: Place | None, facts: dict[str, Any]) -> None:
        self.folder, self.facts = folder, facts
        self.name = f"{uuid4().hex}.jsonl"
        self.waiting: list[str] = []
        self.written_at = time.monotonic()

    def read(self, state_of: Callable[[str], tuple[int, int]]) -> dict[str, VideoInfo]:
        """The results by path, of files that could be read and have not changed since.

        Args:
            state_of: size and time of a video.
        """
        known = {}
        for line in self._lines():
            try:
                note = json.loads(line)
                info = note["info"] | {name: bytes.fromhex(note["info"][name]) for name in _BYTES}
                same = note["facts"] == self.facts and note["state"] == list(state_of(note["path"]))
                if same and info["num_frames"]:  # failures, such as of time, may not happen again
                    known[note["path"]] = VideoInfo(**info)
            except InputError:
                raise
            except (ValueError, KeyError, TypeError, OSError):
                continue  # the last line of a scan that was killed
        return known

    def note(self, path: str, state: tuple[int, int], info: VideoInfo) -> None:
        """Add the result for a video, as it was when it was read."""
        if self.folder is None:
            return
        plain = {name: value.hex() if name in _BYTES else value for name, value in asdict(info).items()}
        self.waiting.append(json.dumps({"path": path, "state": state, "facts": self.facts, "info": plain}) + "\n")
        late = time.monotonic() - self.written_at > _LONGEST_WAIT
        if isinstance(self.folder, Path) or late or len(self.waiting) >= _MOST_WAITING:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if isinstance(self.folder, Path) and self.waiting:
            with open(make_folder(self.folder) / self.name, "a", encoding="ascii") as file:
                file.writelines(self.waiting)
        elif self.folder is not None and self.waiting:
            with written(self.folder / f"{uuid4().hex}.jsonl") as path:
                path.write_text("".join(self.waiting), encoding="ascii")
        self.waiting, self.written_at = [], time.monotonic()

    def remove(self) -> None:
        """Remove all that was noted."""
        if self.folder is not None:
            remove(self.folder)

    def _lines(self) -> Iterator[str]:
        for place in self._files():
            with local_copy(place) as path:
                yield from path.read_text(encoding="ascii", errors="replace").split("\n")

    def _files(self) -> Iterable[Place]:
        if isinstance(self.folder, Url):
            return [self.folder / name for name in sorted(files_below(self.folder, missing_ok=True))]
        if isinstance(self.folder, Path) and self.folder.is_dir():
            return sorted(self.folder.rglob("*.jsonl"))
        return []
