"""Parts of videos: the same frames as of files that were cut beforehand, and tables with mistakes in them."""

from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from cbam3d.config.bundled import bundled
from cbam3d.data.batch import SampleIndex
from cbam3d.data.listing import list_videos
from cbam3d.data.manifest import read_manifest, write_manifest
from cbam3d.data.recipe import load_recipe
from cbam3d.data.sampling import Sampling
from cbam3d.data.scan import Reading, scan_videos
from cbam3d.data.split import assign_splits, class_names, leaking_groups
from cbam3d.data.videos import VideoDataset
from cbam3d.errors import InputError
from cbam3d.runs.event_evaluation import truth_of
from cbam3d.video.encode import write_video

FOLDER = load_recipe(bundled("datasets") / "folder")


def film(path: Path, num_frames: int, codec: str, fps: int = 25, **options: str) -> None:
    rng = np.random.default_rng(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = rng.integers(0, 255, (num_frames, 48, 64, 3), np.uint8)
    write_video(path, frames, fps, codec, "yuvj420p" if codec == "mjpeg" else "yuv420p", **options)


def cut(source: Path, target: Path, first: int, stop: int) -> None:
    """Copy packets, those of frames first … stop - 1, which begin at a keyframe, to another file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with av.open(source) as read, av.open(target, "w") as write:
        stream = read.streams.video[0]
        copy = write.add_stream_from_template(stream)
        packets = [packet for packet in read.demux(stream) if packet.size]
        shown = sorted(packet.pts for packet in packets)
        for packet in packets:
            if shown[first] <= packet.pts < (shown[stop] if stop < len(shown) else shown[-1] + 1):
                packet.pts, packet.dts = packet.pts - shown[first], packet.dts - shown[first]
                packet.stream = copy
                write.mux(packet)


def scan(root: Path, table: str):
    (root / "annotations.csv").write_text(table)
    listing = list_videos(root, FOLDER)
    return scan_videos(listing, Reading(root), workers=1).manifest


def clips_of(root: Path, manifest, clips) -> list[torch.Tensor]:
    data = VideoDataset(root, manifest, class_names(manifest, FOLDER), clips, 48, 0)
    return [view for i in range(len(data)) for view in data.read(SampleIndex(0, i)).views]


def every_frame(num_frames, fps, rng):
    return [list(range(num_frames))]


@pytest.mark.parametrize(
    ("name", "codec", "edges"),
    [
        ("a.avi", "mjpeg", [0, 7, 20, 21, 60]),
        ("a.mp4", "libx264", [0, 12, 36, 60]),
    ],
)
def test_a_part_has_the_frames_of_a_file_cut_beforehand(tmp_path, name, codec, edges):
    film(tmp_path / "whole" / name, 60, codec, **({"g": "12", "sc_threshold": "0"} if codec == "libx264" else {}))
    table = "path,label,start,end\n"
    spans = list(pairwise(edges))
    for number, (first, stop) in enumerate(spans):
        table += f"{name},{number},{first / 25},{stop / 25}\n"
        cut(tmp_path / "whole" / name, tmp_path / "cut" / str(number) / name, first, stop)
    manifest = scan(tmp_path / "whole", table)
    assert manifest.num_frames.tolist() == [stop - first for first, stop in spans]
    assert manifest.first_frame.tolist() == [first for first, _ in spans]
    whole = clips_of(tmp_path / "whole", manifest, every_frame)
    cuts = scan_videos(list_videos(tmp_path / "cut", FOLDER), Reading(tmp_path / "cut"), workers=1).manifest
    for part, other in zip(whole, clips_of(tmp_path / "cut", cuts, every_frame), strict=True):
        torch.testing.assert_close(part, other, rtol=0, atol=0)
    assert leaking_groups(assign_splits(manifest, FOLDER, 1, 0.5)) == []  # the parts of a file stay together
    write_manifest(manifest, tmp_path / "m.csv")
    again = read_manifest(tmp_path / "m.csv")
    assert again.names() == manifest.names() == [f"{name}#t={a / 25:g},{b / 25:g}" for a, b in spans]
    assert (again.first_frame == manifest.first_frame).all()


def test_uneven_frames_are_taken_by_their_times(tmp_path):
    path = tmp_path / "a.mkv"
    times = [0, 100, 200, 1200, 2200, 2300, 2400, 4000]  # ms
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=25, width=32, height=32, pix_fmt="bgr0")
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for i, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 30 * i, np.uint8), "rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    manifest = scan(tmp_path, "path,label,start,end\na.mkv,x,0.1,1.2\na.mkv,y,1.2,2.4\na.mkv,z,2.4,\n")
    seen = [clip[0, :, 0, 0].tolist() for clip in clips_of(tmp_path, manifest, every_frame)]
    assert seen == [[30, 60], [90, 120, 150], [180, 210]]


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("path,label,start,end\na.avi,x,2,1\n", "row 2: a.avi ends at 1 s, before its start at 2 s"),
        ("path,label,start,end\na.avi,x,0,1\na.avi,x,1,1\n", "row 3: a.avi ends at 1 s"),
        ("path,label,start,end\na.avi,x,0,0\n", "row 2: a.avi ends at 0 s, before its start at 0 s"),
        ("path,label,start,end\na.avi,x,zero,1\n", "row 2: the start is no time in seconds: 'zero'"),
        ("path,label,start,end\na.avi,x,0,-1\n", "row 2: the end is no time in seconds: '-1'"),
        ("path,label,start,end\na.avi,x,0,inf\n", "row 2: the end is no time"),
        (
            "path,label,start,end\na.avi,x,0,5\na.avi,x,0.5,0.7\na.avi,y,0.9,2\n",
            "row 4: a: 'y' overlaps 'x' of .*row 2: name",
        ),
        ("path,label,start,end\na.avi,x,0,1\na.avi,y,,\n", "row 3: a is listed as a whole, and in parts in .*row 2"),
        (
            "path,label,start,end\na.avi,x,0,1\na.avi,y,0,1\n",
            "row 3: a.avi is listed twice, with the label 'x' and 'y'",
        ),
        (
            "path,label,split\na.avi,x,train\nb.avi,z,val\n",
            "row 3: no training video has the label 'z', which is in val",
        ),
        ("path,labels,split\na.avi,x|y,train\nb.avi,x|z,test\n", "row 3: no training video has the label 'z'"),
        ('path,labels\na.avi,"[1, 2]"\n', "row 2: no label: 1"),
        ('path,labels\na.avi,"[x"\n', "row 2: no list of labels"),
    ],
)
def test_mistakes_in_a_table_are_named_with_their_row(tmp_path, table, reason):
    for name in ("a.avi", "b.avi"):
        (tmp_path / name).touch()
    (tmp_path / "annotations.csv").write_text(table)
    with pytest.raises(InputError, match=rf"annotations\.csv, {reason}") as error:
        list_videos(tmp_path, FOLDER)
    assert "\n" not in str(error.value)


def test_a_part_beyond_the_end_is_reported_and_the_others_are_used(tmp_path):
    film(tmp_path / "a.avi", 50, "mjpeg")
    manifest = scan(tmp_path, "path,label,start,end\na.avi,x,0,1\na.avi,y,1,2.5\na.avi,x,3,4\na.avi,x,4,\n")
    assert manifest.num_frames.tolist() == [25, 25, 0, 0]
    assert list(manifest.problem) == [
        "",
        "",
        "the part from 3 s to 4 s lies beyond the end of the video at 2.00 s",
        "the part from 4 s to the end lies beyond the end of the video at 2.00 s",
    ]
    write_manifest(manifest, tmp_path / "m.csv")
    assert len(set(read_manifest(tmp_path / "m.csv").names())) == 4


def test_a_row_for_each_label_of_a_part(tmp_path):
    film(tmp_path / "a.avi", 50, "mjpeg")
    manifest = scan(tmp_path, "path,labels,start,end\na.avi,run,0,1\na.avi,talk,0,1\na.avi,talk,0.9,2\n")
    assert list(manifest.label) == ["run|talk", "talk"]
    (tmp_path / "annotations.csv").write_text("path,labels,split\na.avi,run,train\na.avi,talk,test\n")
    with pytest.raises(InputError, match=r"row 3: a\.avi is listed twice"):
        list_videos(tmp_path, FOLDER)


def test_a_part_with_a_problem_is_not_used_where_another_is(tmp_path):
    film(tmp_path / "a.avi", 50, "mjpeg")
    manifest = scan(tmp_path, "path,label,start,end\na.avi,x,0,1\na.avi,,1,\n")
    assert manifest.num_frames.tolist() == [25, 0]
    assert manifest.problem[1].startswith("not in the annotations") or "path does not fit" in manifest.problem[1]
    write_manifest(manifest, tmp_path / "m.csv")
    assert class_names(read_manifest(tmp_path / "m.csv"), FOLDER) == ["x"]


def test_parts_with_several_labels_have_those_that_hold_during_most_of_them(tmp_path):
    film(tmp_path / "a.avi", 100, "mjpeg")
    manifest = scan(
        tmp_path,
        'path,labels,start,end\na.avi,run,0,4\na.avi,talk,1,2\na.avi,"[""jump"", ""run""]",3,3.5\na.avi,,0,0.5\n',
    )
    assert manifest.several
    assert [(row["start"], row["label"]) for row in manifest.rows()] == [
        (0, ""),
        (0, "run"),
        (1, "talk"),
        (3, "jump|run"),
    ]
    assert truth_of(manifest) == {
        "run": [("a.avi", 0, 4)],
        "talk": [("a.avi", 1, 2)],
        "jump": [("a.avi", 3, 3.5)],
    }
    data = VideoDataset(tmp_path, manifest, ["jump", "run", "talk"], every_frame, 48, 0)
    assert data.labels.tolist() == [[0, 1, 0], [0, 1, 0], [0, 1, 1], [1, 1, 0]]


def test_kinetics_needs_no_cut_videos(tmp_path):
    film(tmp_path / "aB-3_d.mp4", 100, "libx264")
    (tmp_path / "train.csv").write_text(
        "label,youtube_id,time_start,time_end,split\njuggling,aB-3_d,1,3,train\nriding,aB-3_d,3,13,train\n"
    )
    recipe = load_recipe(bundled("datasets") / "kinetics_uncut")
    manifest = scan_videos(list_videos(tmp_path, recipe), Reading(tmp_path), workers=1).manifest
    assert [(row["label"], row["first_frame"], row["num_frames"], row["split"]) for row in manifest.rows()] == [
        ("juggling", 25, 50, "train"),
        ("riding", 0, 0, "train"),
    ]
    assert manifest.problem[1] == "the part from 3 s to 13 s lies beyond the end of the video at 4.00 s"


def test_training_clips_may_reach_beyond_their_part_but_not_beyond_the_file(tmp_path):
    film(tmp_path / "a.avi", 100, "mjpeg")
    manifest = scan(tmp_path, "path,label,start,end\na.avi,x,0.08,0.4\na.avi,y,1.6,2\na.avi,z,3.8,4\n")
    sampling = Sampling(num_frames=8, stride=1)

    def frames(reach):
        clips = partial(sampling.random, num_clips=1)
        data = VideoDataset(tmp_path, manifest, ["x", "y", "z"], clips, 48, 0, reach=reach)
        drawn = [{f for e in range(200) for f in data.frames_of(SampleIndex(e, i))[0]} for i in range(3)]
        return [(min(one), max(one)) for one in drawn]

    assert frames(None) == [(2, 9), (40, 49), (95, 99)]
    assert frames(lambda fps: round(0.5 * 8 * fps / 25)) == [(0, 13), (36, 53), (91, 99)]
    whole = manifest.select(np.array([0]))
    whole = replace(whole, start=np.zeros(1), end=np.zeros(1))
    data = VideoDataset(tmp_path, whole, ["x"], every_frame, 48, 0, reach=lambda fps: 4)
    assert data.frames_of(SampleIndex(0, 0)) == [list(range(2, 10))]
