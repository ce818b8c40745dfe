"""Events of whole videos against the parts of a table."""

from types import SimpleNamespace

import pytest

from cbam3d.data.manifest import read_manifest
from cbam3d.engine.events import Event
from cbam3d.engine.progress import no_progress
from cbam3d.runs.event_evaluation import score_segments, truth_of

ROWS = [("a.mp4", "run", 0, 4), ("a.mp4", "jump", 5, 7), ("b.mp4", "run", 2, 6), ("b.mp4", "background", 6, 9)]


class Told:
    """A predictor that says what the table has, with ends cut to a share of the true length."""

    def __init__(self, truth, share):
        self.truth, self.share = truth, share

    def events(self, source):
        for label, events in self.truth.items():
            for path, start, end in events:
                if source.endswith(path):
                    yield Event(label, start, start + self.share * (end - start), 0.9)


@pytest.mark.parametrize(("share", "expected"), [(1.0, 1.0), (0.55, 0.6), (0.2, 0.0)])
def test_events_are_scored_by_how_much_they_overlap(tmp_path, share, expected):
    """With 55 % of each event, three of the five thresholds 0.3 … 0.7 are reached."""
    lines = [f"{path},{label},g,test,225,25,64,64,9,,{start},{end},0,225" for path, label, start, end in ROWS]
    header = (
        "path,label,group,split,num_frames,fps,width,height,duration_seconds,problem,start,end,first_frame,file_frames"
    )
    (tmp_path / "manifest.csv").write_text("\n".join([header, *lines]) + "\n")
    table = read_manifest(tmp_path / "manifest.csv")
    truth = truth_of(table)
    assert truth == {"run": [("a.mp4", 0, 4), ("b.mp4", 2, 6)], "jump": [("a.mp4", 5, 7)]}
    items = SimpleNamespace(manifest=table, source=lambda row: tmp_path / table.path[row])
    scores, found = score_segments(Told(truth, share), items, no_progress)
    assert scores["segment_map"] == pytest.approx(expected)
    assert scores["segment_map_0.5"] == float(share > 0.5)
    assert len(found) == 3
