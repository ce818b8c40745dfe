"""Videos in object storage and in shards are prepared, trained on and scored as those of a folder."""

import shutil
from pathlib import Path

import pytest
import torch

from cbam3d import open_run, prepare
from cbam3d.config import Config, DataConfig
from cbam3d.data.batch import SampleIndex
from cbam3d.data.manifest import read_manifest
from cbam3d.errors import InputError
from cbam3d.runs.data import open_source
from cbam3d.runs.inputs import find_files
from cbam3d.runs.windows import predict_windows
from cbam3d.storage import Part, Url, remote, state_of
from cbam3d.video import VideoError, decode, read_clip
from cbam3d.video.container import VIDEO_SUFFIXES
from cbam3d.video.index import PacketIndex
from tests.tiny import train_tiny

VALUES = {"data.short_side": 24, "data.size": 24, "data.num_workers": 2, "data.test_fraction": 0.4}


@pytest.fixture
def videos(tmp_path, make_video):
    for label in ("run", "walk"):
        for i in range(4):
            suffix, codec = (".avi", "mpeg4") if i % 2 else (".mp4", "libx264")
            make_video(f"videos/{label}/{i}{suffix}", 10 + 5 * i + (label == "walk"), codec)
    (tmp_path / "videos" / "walk" / "empty.mp4").write_bytes(b"")
    return tmp_path / "videos"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def rows(root, *without):
    return [{**row, **dict.fromkeys(without, 0)} for row in read_manifest(root / "manifest.csv").rows()]


def test_preparing_storage_writes_what_preparing_a_folder_writes(videos, tmp_path, s3):
    root = Url(s3.put(videos, "some/videos"))
    there = prepare("folder", root, short_side=24, shards=f"s3://{s3.bucket}/tar")
    here = prepare("folder", videos, short_side=24, shards=str(tmp_path / "tar"))
    assert there.path == "s3://films/some/videos/manifest.csv"
    assert there.copies == "s3://films/some/videos-24p"
    assert rows(root, "changed_ns") == rows(videos, "changed_ns")
    assert rows(there.copies, "changed_ns") == rows(here.copies, "changed_ns")
    assert rows(there.shards, "changed_ns") == rows(here.shards, "changed_ns")
    for path in (path for path in here.copies.rglob("*.avi")):
        assert s3.get(f"some/videos-24p/{path.relative_to(here.copies)}") == path.read_bytes()
    for path in here.shards.glob("*.tar"):
        assert s3.get(f"tar/{path.name}") == path.read_bytes()
    assert read_manifest(root / "manifest.csv").changed_ns[0] == state_of(root / "run/0.mp4")[1]
    assert not [name for name in s3.names() if "unfinished" in name]
    with pytest.raises(InputError, match=r"s3://films/some/videos/manifest\.csv exists: remove it"):
        prepare("folder", root)
    with pytest.raises(InputError, match=r"s3://films/tar/manifest\.csv exists: remove it to write the shards again"):
        prepare("folder", root, shards=f"s3://{s3.bucket}/tar")
    assert prepare("folder", root, shards=f"s3://{s3.bucket}/tar2").shards == "s3://films/tar2"  # of the originals
    assert rows(Url("s3://films/tar2"))[0]["num_bytes"] == (videos / "run" / "0.mp4").stat().st_size


@pytest.mark.slow
def test_training_from_storage_and_shards_is_training_from_a_folder(videos, tmp_path, s3):
    """The same weights, bit for bit, with any number of workers, and after a stop."""
    prepare("folder", videos, shards=str(tmp_path / "tar"))
    url, shards = Url(s3.put(videos, "videos")), s3.put(tmp_path / "tar", "tar")
    run = train_tiny(videos, tmp_path / "local", {**VALUES, "train.epochs": 2})

    def weights(root, name, **values):
        other = train_tiny(root, tmp_path / name, {**VALUES, "train.epochs": 2, **values})
        assert other.metrics["video_top1"] == run.metrics["video_top1"]
        return other.model().state_dict()

    expected = run.model().state_dict()
    for name, root, workers in (("tar0", tmp_path / "tar", 0), ("url2", url, 2), ("s3tar2", shards, 2)):
        found = weights(root, name, **{"data.num_workers": workers})
        assert all(torch.equal(value, expected[key]) for key, value in found.items())
    assert run.evaluate({"data.root": shards}).facts()["video_top1"] == run.metrics["video_top1"]
    assert open_run(tmp_path / "s3tar2").evaluate().facts()["video_top1"] == run.metrics["video_top1"]
    s3.forget()
    weights(url, "again")
    assert s3.counts["GET"] <= 4  # the tables: what was read is still there


def test_shards_that_were_interrupted_go_on(videos, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    options = {"short_side": 24, "shards": str(tmp_path / "tar")}
    with monkeypatch.context() as patched:
        patched.setattr("cbam3d.data.shards._write", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare("folder", videos, **options)
    monkeypatch.setattr("cbam3d.runs.preparation.scan_videos", None)  # nothing is read again
    done = prepare("folder", videos, **options)
    assert sorted(path.name for path in done.shards.iterdir())[:2] == ["manifest.csv", "manifest.packets"]
    assert read_manifest(done.shards / "manifest.csv").path[0] == "run/0.mp4.avi"
    with pytest.raises(InputError, match="holds shards: copies and shards are made from the videos"):
        prepare("folder", done.shards, short_side=12)
    with pytest.raises(InputError, match=r"tar/manifest\.csv exists: remove it to write the shards again"):
        prepare("folder", videos, **options)


def test_without_a_table_storage_is_not_searched(videos, s3):
    url = s3.put(videos, "videos")
    with pytest.raises(
        InputError, match=r"manifest\.csv: no such table: cbam3d prepare folder --root s3://films/videos"
    ):
        open_source(Config(data=DataConfig(recipe="folder", root=url)))
    with pytest.raises(InputError, match="data sets of images are read from disks"):
        open_source(Config(data=DataConfig(recipe="image_folder", root=url)))
    with pytest.raises(InputError, match=r"folders of images are read from disks"):
        prepare("frames", url)
    with pytest.raises(InputError, match="no such folder, or an empty one"):
        prepare("folder", "s3://films/nowhere")
    with pytest.raises(InputError, match="no such bucket: no-such-bucket"):
        prepare("folder", "s3://no-such-bucket/a")


def test_a_row_may_be_a_url(videos, tmp_path, s3):
    prepare("folder", videos)
    url = s3.put(videos, "videos")
    table = tmp_path / "table.csv"
    text = (videos / "manifest.csv").read_text().replace("run/1.avi,", f"{url}/run/1.avi,")
    table.write_text(text.replace("walk/2.mp4,", f"{(videos / 'walk' / '2.mp4').as_uri()},"))
    facts = {"recipe": "folder", "root": str(videos), "manifest": str(table), "num_frames": 4, "test_fraction": 0.5}
    with pytest.raises(InputError, match=r"leads out of the folder \(data\.allow_outside accepts it\)"):
        open_source(Config(data=DataConfig(**facts)))
    source = open_source(Config(data=DataConfig(**facts, allow_outside=True)))
    problems = [data.read(SampleIndex(0, i)).problem for data in (source.train, source.test) for i in range(len(data))]
    assert problems == [None] * 8


@pytest.mark.slow  # the delays are real
def test_a_preparation_that_lost_its_storage_goes_on(videos, s3, monkeypatch):
    monkeypatch.setattr(remote, "_FIRST_DELAY", 0.001)
    monkeypatch.setattr("cbam3d.data.journal._MOST_WAITING", 1)
    root, read = s3.put(videos, "videos"), []
    s3.fail = lambda number, environ: "503" if environ["PATH_INFO"].endswith("walk/0.mp4") else None
    with pytest.raises(InputError, match=r"walk/0\.mp4: no answer in 8 attempts"):
        prepare("folder", root, workers=1)
    assert "videos/manifest.csv" not in s3.names()
    assert len([name for name in s3.names("videos/.manifest.unfinished") if name.endswith(".jsonl")]) == 4

    def watch(number, environ):
        if environ["REQUEST_METHOD"] == "GET":
            read.append(environ["PATH_INFO"])

    s3.fail = watch
    assert prepare("folder", root).manifest.usable.sum() == 8
    assert not [path for path in read if "/run/" in path]
    assert [path for path in read if "/walk/" in path]


def test_what_the_server_refuses_for_good_is_a_row_with_a_problem(videos, s3):
    root = s3.put(videos, "videos")
    s3.fail = lambda number, environ: "403" if environ["PATH_INFO"].endswith("walk/0.mp4") else None
    done = prepare("folder", root)
    problems = dict(zip(done.manifest.path, done.manifest.problem, strict=True))
    assert problems["walk/0.mp4"] == "forbidden"
    assert done.manifest.usable.sum() == 7


def test_folders_are_not_mixed_up(videos, tmp_path):
    with pytest.raises(InputError, match="--shards needs a folder of its own"):
        prepare("folder", videos, shards=str(videos))
    prepare("folder", videos, short_side=24, copies=str(tmp_path / "copies"))
    (videos / "manifest.csv").unlink()
    with pytest.raises(InputError, match=r"copies/manifest\.csv exists: remove it to write the copies again"):
        prepare("folder", videos, short_side=24, copies=str(tmp_path / "copies"), shards=str(tmp_path / "tar"))
    prepare("folder", videos)
    table = videos / "manifest.csv"
    table.write_text("".join(line for line in table.read_text().splitlines(True) if "walk/1" not in line))
    with pytest.raises(InputError, match=r"walk/1\.avi is in the table of .*copies, but not in that of its originals"):
        prepare("folder", videos, short_side=24, copies=str(tmp_path / "copies"), shards=str(tmp_path / "tar"))
    table.write_text(table.read_text().replace("run/1.avi,", "s3://films/a.avi,"))
    with pytest.raises(InputError, match=r"s3://films/a\.avi is a URL, and not in the folder that is prepared"):
        prepare("folder", videos, shards=str(tmp_path / "tar"), allow_outside=True)


def test_files_that_vanish_or_change_are_named(videos, tmp_path, s3):
    prepare("folder", videos, shards=str(tmp_path / "tar"))
    url = s3.put(videos, "videos")
    s3.client.delete_object(Bucket=s3.bucket, Key="videos/run/0.mp4")
    s3.client.put_object(
        Bucket=s3.bucket, Key="videos/run/1.avi", Body=(videos / "walk" / "3.avi").read_bytes()
    )  # longer
    source = open_source(Config(data=DataConfig(recipe="folder", root=url, num_frames=4, test_fraction=0.5)))
    samples = [data.read(SampleIndex(0, i)) for data in (source.train, source.test) for i in range(len(data))]
    assert [sample.problem for sample in samples if sample.problem] == [("run/0.mp4", "no such file")]
    (tmp_path / "tar" / "train-000000.tar").write_bytes(b"x" * 1000)
    source = open_source(Config(data=DataConfig(recipe="folder", root=str(tmp_path / "tar"), num_frames=4)))
    problem = source.train.read(SampleIndex(0, 0)).problem
    assert problem is not None
    assert "ends before it" in problem[1]
    with pytest.raises(VideoError, match="torchcodec reads whole files of this machine"):
        read_clip(f"{url}/run/1.avi", [0], decoder="torchcodec")


def test_predicting_what_is_in_storage(tiny_run, s3):
    videos = tiny_run.parent / "videos"
    url, run = s3.put(videos / "move_left", "some"), open_run(tiny_run).predictor()
    names = sorted(path.name for path in (videos / "move_left").iterdir())
    assert find_files([url], images=False) == [f"{url}/{name}" for name in names]
    assert find_files([f"{url}/{names[0]}", (videos / "move_left" / names[1]).as_uri()], images=False) == [
        f"{url}/{names[0]}",
        videos / "move_left" / names[1],
    ]
    assert run(f"{url}/{names[0]}") == run(videos / "move_left" / names[0])
    there = list(predict_windows(run, f"{url}/{names[0]}", 2, 0.5, None))
    here = list(predict_windows(run, videos / "move_left" / names[0], 2, 0.5, None))
    assert [(one.start_seconds, one.classes) for one in there] == [(one.start_seconds, one.classes) for one in here]
    assert {one.path for one in there} == {f"{url}/{names[0]}"}
    s3.client.put_object(Bucket=s3.bucket, Key="some/empty.mp4", Body=b"")
    with pytest.raises(InputError, match=r"^s3://films/some/empty\.mp4: empty file$"):
        run(f"{url}/empty.mp4")
    with pytest.raises(InputError, match=r"s3://films/some/none\.mp4: no such file"):
        run(f"{url}/none.mp4")


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["odd", "ucf101", "fight", "avletters"])
def test_real_files_through_index_url_and_shard(shared_data, tmp_path, s3, folder):
    """Every frame that is asked for is that of the file, decoded from its start."""
    root = tmp_path / "videos"
    files = sorted(path for path in (shared_data / folder).rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    for i, path in enumerate(files):
        target = root / f"class{i % 2}" / f"{i:04d}{path.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    prepare("folder", root, shards=str(tmp_path / "tar"))
    url, remote_shards = Url(s3.put(root, "videos")), Url(s3.put(tmp_path / "tar", "tar"))
    table = read_manifest(tmp_path / "tar" / "manifest.csv")
    index, remote_index = PacketIndex(root / "manifest.packets"), PacketIndex(root / "manifest.packets", url)
    shard_index = PacketIndex(tmp_path / "tar" / "manifest.packets")
    assert len(table) >= len(files) - 2
    for row, path in enumerate(table.path):
        count = int(table.num_frames[row])
        frames = sorted({0, count // 3, count // 2, count - 1})
        seek = not table.problem[row]
        expected = read_clip(root / path, frames, seek=False)
        within = table.source(tmp_path / "tar", row)
        assert isinstance(within, Part)
        for source, kept in (
            (root / path, index),
            (url / path, remote_index),
            (within, shard_index),
            (Part(remote_shards / Path(within.within).name, *within[1:]), shard_index),
        ):
            decode._tables.tables.clear()
            assert torch.equal(read_clip(source, frames, seek=seek, index=kept), expected), source
