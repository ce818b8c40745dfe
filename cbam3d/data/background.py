"""What lies between the parts of videos, as videos of a class of their own, or with no label."""

from typing import Any

import numpy as np

from cbam3d.data.manifest import Manifest, from_rows

BACKGROUND = "background"


def with_background(manifest: Manifest, needed_frames: np.ndarray) -> Manifest:
    """The table with a row for each span of a video that is in no part of it, and no shorter than a clip. The span
    belongs to the split of the part before it, or else of the one after it. Videos with an unusable part have none, as
    nobody knows where it is.

    Args:
        manifest: with its splits; the label of the added rows is `BACKGROUND`, or none where there may be several.
        needed_frames: of a clip, for each row.
    """
    rows, added = list(manifest.rows()), list[dict[str, Any]]()
    for own in manifest.rows_of_parts():
        if not manifest.usable[own].all():
            continue
        parts = sorted((rows[row] for row in own), key=lambda part: part["first_frame"])
        label, needed = "" if manifest.several else BACKGROUND, needed_frames[own[0]]
        end = {"first_frame": parts[0]["file_frames"], "start": max(parts[0]["duration_seconds"], parts[-1]["end"])}
        before, stop, since = parts[0], 0, 0.0
        for part in (*parts, end):
            count = part["first_frame"] - stop
            if count >= needed and part["start"] > since:
                times = {"start": since, "end": part["start"], "first_frame": stop, "num_frames": count}
                added.append({**before, **times, "label": label})
            if part is not end and part["first_frame"] + part["num_frames"] > stop:
                before, stop, since = part, part["first_frame"] + part["num_frames"], max(since, part["end"])
    if not added:
        return manifest
    return from_rows(sorted(rows + added, key=lambda row: (row["path"], row["start"])), manifest.several)


def is_background(labels: np.ndarray, classes: list[str]) -> np.ndarray:
    """Which items show nothing, bool (N,).

    Args:
        labels: class numbers, (N,), or whether items have each class, bool (N, K).
        classes: names.
    """
    if labels.ndim == 2:
        return np.asarray(~labels.any(1))
    return labels == classes.index(BACKGROUND) if BACKGROUND in classes else np.zeros(len(labels), bool)
