"""Events found in the held-out videos of a data set, against the parts that its table has."""

import logging
from pathlib import Path

import numpy as np

from cbam3d.data.background import BACKGROUND
from cbam3d.data.loader import Samples
from cbam3d.data.manifest import Manifest
from cbam3d.data.videos import VideoDataset
from cbam3d.engine.event_scores import Truth, segment_average_precisions
from cbam3d.engine.events import Event
from cbam3d.engine.progress import Progress
from cbam3d.errors import InputError
from cbam3d.runs.predictor import Predictor
from cbam3d.runs.progress import over_files
from cbam3d.video.timing import EXACT

TIOUS = (0.3, 0.4, 0.5, 0.6, 0.7)

logger = logging.getLogger(__name__)


def score_segments(
    predictor: Predictor, items: VideoDataset, progress: Progress
) -> tuple[dict[str, float], list[tuple[str, Event]]]:
    """Find the events of whole videos; returns the mean over classes of their average precision, by name
    (`segment_map_0.5` for a temporal IoU of 0.5, `segment_map` the mean of 0.3 … 0.7), and the events by path.

    Args:
        predictor: finds them, with its own settings.
        items: the parts of a split; videos without parts are left out.
        progress: shows the reading.
    """
    table = items.manifest.select(items.manifest.parts)
    truth, paths = truth_of(table), list(dict.fromkeys(table.path))
    found: list[tuple[str, Event]] = []
    for path in over_files(progress, "finding events in every held-out video")(paths, len(paths)):
        try:
            source = items.source(int(np.flatnonzero(items.manifest.path.equals(path))[0]))
            found += [(path, event) for event in predictor.events(str(source))]
        except InputError as error:  # what it shows counts as not found
            logger.warning(str(error))
    by_class = np.array(list(segment_average_precisions(truth, found, TIOUS).values()))
    scores = {"segment_map": float(by_class.mean())}
    means = by_class.mean(0).tolist()
    return scores | {f"segment_map_{tiou:g}": mean for tiou, mean in zip(TIOUS, means, strict=True)}, found


def why_no_segments(items: Samples) -> str:
    """Why there are no events to find and score; empty where there are."""
    if not isinstance(items, VideoDataset):
        return "the data are images"
    table = items.manifest.select(items.manifest.parts)
    if not truth_of(table):
        return f"{items.root}: no held-out video has parts"
    if not table.shard.equals("").all():
        return f"{items.root}: its videos are in shards, events are found in files"
    source = table.source(items.root, 0)
    if isinstance(source, Path) and source.is_dir():
        return f"{items.root}: its videos are folders of images, events are found in files"
    return ""


def truth_of(table: Manifest) -> Truth:
    """The true events of a table's rows, by label; those of a label that overlap are one."""
    truth: Truth = {}
    order = sorted(range(len(table)), key=lambda row: (table.path[row], table.start[row]))
    labels = table.labels()
    for row in order:
        path, start, end = table.path[row], float(table.start[row]), float(table.end[row])
        for label in labels[row]:
            events = truth.setdefault(label, [])
            if events and events[-1][0] == path and start < events[-1][2] - EXACT:
                events[-1] = path, events[-1][1], max(end, events[-1][2])
            else:
                events.append((path, start, end))
    truth.pop(BACKGROUND, None)
    return truth
