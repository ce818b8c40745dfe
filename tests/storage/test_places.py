import pickle
from pathlib import Path

import pytest

from cbam3d.errors import InputError
from cbam3d.storage import Part, Url, is_local, is_url, place_of


def test_paths_are_paths():
    for text in ("a/b.mp4", "/a/b.mp4", ".", "C:/a.mp4", "a:b"):
        assert place_of(text) == Path(text)
        assert is_local(text)
    assert place_of(Path("a")) == Path("a")


@pytest.mark.parametrize(
    ("url", "path"),
    [("file:///a/b%20c.mp4", "/a/b c.mp4"), ("file://localhost/a", "/a"), ("FILE:///a", "/a")],
)
def test_files_of_this_machine(url, path):
    assert place_of(url) == Path(path)


def test_urls_are_taken_apart_and_joined_like_paths():
    url = place_of("s3://bucket/a/")
    assert isinstance(url, Url)
    video = url / "b c/v.MP4"
    assert video == "s3://bucket/a/b c/v.MP4"
    assert (video.name, video.suffix, video.parent.name) == ("v.MP4", ".MP4", "b c")
    assert url.with_name("other") / "x" == "s3://bucket/other/x"
    assert place_of(video) is video
    assert pickle.loads(pickle.dumps(video)) == video
    assert isinstance(pickle.loads(pickle.dumps(video)), Url)
    assert is_url(video)
    assert not is_local(video)
    assert not is_local(Part(Path("a.tar"), 0, 5, "v.mp4"))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://a/b", r"ftp://a/b: unknown kind of URL 'ftp'"),
        ("file://server/a", "a file of another machine"),
        ("https://me:secret@host/a", r"https://…@host: no names and passwords in URLs"),
    ],
)
def test_what_is_refused(url, reason):
    with pytest.raises(InputError, match=reason) as raised:
        place_of(url)
    assert "secret" not in str(raised.value)


def test_the_parent_of_a_bucket():
    assert place_of("s3://bucket/") == "s3://bucket"
    with pytest.raises(InputError, match=r"s3://bucket: name a folder in it"):
        place_of("s3://bucket").with_name("other")
