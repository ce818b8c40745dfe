import json
import shutil
import tarfile

import numpy as np
import pytest
import torch

from cbam3d.data import shards
from cbam3d.data.listing import list_videos
from cbam3d.data.manifest import from_rows, read_manifest, write_manifest
from cbam3d.data.recipe import Recipe
from cbam3d.data.scan import Reading, scan_videos
from cbam3d.data.shards import write_shards
from cbam3d.errors import InputError
from cbam3d.storage import Part, Url
from cbam3d.video import VideoError, read_clip

FOLDER = Recipe("folder", "video", ["{split}/{label}/{name}"])


@pytest.fixture
def videos(tmp_path, make_video):
    """A folder and its table: some kinds of files, and names that are no keys."""
    names = ["train/run/a.mp4", "train/run/b.c.avi", "train/walk/ä ö.mkv", "train/walk/d.MP4", "test/run/e.mp4"]
    for i, name in enumerate(names):
        make_video(f"videos/{name}", 10 + i, "mpeg4" if name.endswith("avi") else "libx264")
    (tmp_path / "videos" / "train" / "run" / "bad.mp4").write_bytes(b"")
    root = tmp_path / "videos"
    return root, scan_videos(list_videos(root, FOLDER), Reading(root)).manifest


def same_clips(root, table, originals):
    for row, path in enumerate(table.path):
        frames = [9, 0, 3]
        assert torch.equal(read_clip(table.source(root, row), frames), read_clip(originals / path, frames, seek=False))


def test_videos_are_read_out_of_shards_as_they_were(videos, tmp_path, monkeypatch):
    root, manifest = videos
    monkeypatch.setattr(shards, "_SHARD", 30_000)
    table = write_shards(root, manifest, ["run", "walk"], tmp_path / "tar")
    assert set(table.path) == set(manifest.path) - {"train/run/bad.mp4"}
    names = sorted(path.name for path in (tmp_path / "tar").iterdir())
    assert names[0] == "test-000000.tar"
    assert len(names) >= 3
    assert set(table.shard) == set(names)
    same_clips(tmp_path / "tar", table, root)
    for row in table.rows():
        assert row["shard"].startswith(row["split"])
    write_manifest(table, tmp_path / "tar" / "manifest.csv")
    again = read_manifest(tmp_path / "tar" / "manifest.csv")
    assert list(again.rows()) == list(table.rows())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # WebDataset leaves it open
def test_shards_are_read_by_others(videos, tmp_path):
    """By Python's tarfile, and by WebDataset, in the order of the archive."""
    import webdataset

    root, manifest = videos
    table = write_shards(root, manifest, ["run", "walk"], tmp_path)
    rows = {row["path"]: row for row in table.rows()}
    with tarfile.open(tmp_path / "train-000000.tar") as tar:
        places = {member.offset_data: member for member in tar.getmembers()}
        assert {(row["offset"], row["num_bytes"]) for row in rows.values() if row["split"] == "train"} <= {
            (start, member.size) for start, member in places.items()
        }
        assert {(member.mtime, member.uid, member.mode) for member in places.values()} == {(0, 0, 0o644)}
    found = list(webdataset.WebDataset(str(tmp_path / "train-000000.tar"), shardshuffle=False))
    assert len(found) == 4
    for sample in found:
        facts = json.loads(sample["json"])
        suffix = facts["path"].rpartition(".")[2].lower()
        assert sample[suffix] == (root / facts["path"]).read_bytes()
        assert int(sample["cls"]) == ["run", "walk"].index(facts["label"])
        row = rows[facts["path"]]
        assert {name: row[name] for name in facts} == facts


def test_the_same_table_gives_the_same_bytes(videos, tmp_path, monkeypatch):
    """Whole shards of an interrupted call are kept, where they are of the same videos; others are not left."""
    root, manifest = videos
    monkeypatch.setattr(shards, "_SHARD", 30_000)
    for folder in ("a", "b"):
        write_shards(root, manifest, ["run", "walk"], tmp_path / folder)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    written, write = [], shards._write

    def stop_after(root, place, *given):
        written.append(place.name)
        if len(written) == 2:
            raise KeyboardInterrupt
        write(root, place, *given)

    other = tmp_path / "c"
    with monkeypatch.context() as patched:
        patched.setattr(shards, "_write", stop_after)
        with pytest.raises(KeyboardInterrupt):
            write_shards(root, manifest, ["run", "walk"], other)
        write_shards(root, manifest, ["run", "walk"], other)
    assert written == [names[1], names[2], names[2], *names[3:], names[0]]
    assert {path.name: path.read_bytes() for path in other.iterdir()} == {
        name: (tmp_path / "a" / name).read_bytes() for name in names
    }
    swapped = [{**row, "label": "walk" if row["label"] == "run" else "run"} for row in manifest.rows()]
    (other / "train-000009.tar").write_bytes(b"of a larger table")
    (other / "mine.tar").write_bytes(b"x")
    write_shards(root, from_rows(swapped), ["run", "walk"], other)
    assert (other / names[0]).read_bytes() != (tmp_path / "a" / names[0]).read_bytes()
    assert {path.name for path in other.iterdir()} == {*names, "mine.tar"}


def test_links_that_lead_out_are_not_packed(videos, tmp_path):
    root, manifest = videos
    secret = tmp_path / "secret"
    secret.write_bytes((root / "train/run/a.mp4").read_bytes())
    (root / "train/run/a.mp4").unlink()
    (root / "train/run/a.mp4").symlink_to(secret)
    with pytest.raises(InputError, match=r"a\.mp4: a link that leads out of the folder"):
        write_shards(root, manifest, ["run", "walk"], tmp_path / "tar")
    assert not (tmp_path / "tar").exists()
    write_shards(root, manifest, ["run", "walk"], tmp_path / "tar", allow_outside=True)


def test_a_playlist_in_a_shard_opens_nothing_else(tmp_path, make_video):
    """FFmpeg follows what a file names; from a disk its own list of protocols limits that."""
    video = make_video("secret.ts", 10, "libx264")
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{video}\n#EXT-X-ENDLIST\n"
    (tmp_path / "a.tar").write_text(text)
    part = Part(tmp_path / "a.tar", 0, len(text), "x.m3u8")
    with pytest.raises(VideoError, match="unreadable"):
        read_clip(part, [0])
    (tmp_path / "b.tar").write_bytes(b"x" * 100 + video.read_bytes())
    assert torch.equal(
        read_clip(Part(tmp_path / "b.tar", 100, video.stat().st_size, "x.ts"), [3]), read_clip(video, [3])
    )


def test_a_video_that_changed_is_no_longer_what_the_table_says(videos, tmp_path):
    root, manifest = videos
    shutil.copy(root / "train/run/a.mp4", root / "train/walk/d.MP4")
    with pytest.raises(InputError, match=r"d\.MP4 changed since its table was written"):
        write_shards(root, manifest, ["run", "walk"], tmp_path / "tar")
    assert not (tmp_path / "tar" / "train-000000.tar").exists()


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("shard", "../a.tar", "leads out of the folder"),
        ("shard", "http://host/a.tar", "leads out of the folder"),
        ("offset", "-5", "has no place in its shard"),
        ("num_bytes", "0", "has no place in its shard"),
    ],
)
def test_tables_that_are_wrong(videos, tmp_path, column, value, reason):
    root, manifest = videos
    table = write_shards(root, manifest, ["run", "walk"], tmp_path / "tar")
    path = tmp_path / "manifest.csv"
    write_manifest(table, path)
    header, first, *rest = path.read_text().splitlines()
    cells = first.split(",")
    cells[header.split(",").index(column)] = value
    path.write_text("\n".join([header, ",".join(cells), *rest]) + "\n")
    with pytest.raises(InputError, match=reason):
        read_manifest(path)


def test_shards_in_storage(videos, tmp_path, s3):
    root, manifest = videos
    there = Url(s3.put(root, "videos"))
    table = write_shards(there, manifest, ["run", "walk"], Url(f"s3://{s3.bucket}/tar"))
    local = write_shards(root, manifest, ["run", "walk"], tmp_path / "tar")
    assert np.array_equal(table.offset, local.offset)
    for name in set(table.shard):
        assert s3.get(f"tar/{name}") == (tmp_path / "tar" / name).read_bytes()
    same_clips(Url(f"s3://{s3.bucket}/tar"), table, root)
