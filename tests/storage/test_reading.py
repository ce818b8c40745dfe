import itertools
import os
import tarfile
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from cbam3d.errors import InputError
from cbam3d.storage import BlockCache, Part, Url, local_copy, open_file, remote, state_of, written
from cbam3d.storage.cache import BLOCK
from cbam3d.storage.moving import files_below, kept_copy, remove

DATA = np.random.default_rng(0).bytes(40 * BLOCK + 1234)


@contextmanager
def plain_server(folder):
    """A server that knows no ranges."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_): ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(params=["path", "part", "s3", "part of s3", "s3, cached", "http", "http without ranges"])
def source(request, tmp_path, s3):
    """A place with DATA, and a cache."""
    s3.client.put_object(Bucket=s3.bucket, Key="a b.bin", Body=DATA, ACL="public-read")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("before", "a b.bin", "after"):
            (tmp_path / name).write_bytes(DATA if name == "a b.bin" else b"x" * 3000)
            tar.add(tmp_path / name, name)
    with tarfile.open(tmp_path / "a.tar") as tar:
        start = tar.getmember("a b.bin").offset_data
    s3.client.put_object(Bucket=s3.bucket, Key="a.tar", Body=(tmp_path / "a.tar").read_bytes())
    bucket = Url(f"s3://{s3.bucket}")
    s3.forget()
    if request.param == "http without ranges":
        with plain_server(tmp_path) as url:
            yield f"{url}/a%20b.bin", None
        return
    yield {
        "path": (tmp_path / "a b.bin", None),
        "part": (Part(tmp_path / "a.tar", start, len(DATA), "a b.bin"), None),
        "s3": (bucket / "a b.bin", None),
        "part of s3": (Part(bucket / "a.tar", start, len(DATA), "a b.bin"), None),
        "s3, cached": (bucket / "a b.bin", BlockCache(tmp_path / "cache", 1 << 24)),
        "http": (f"{s3.url}/{s3.bucket}/a%20b.bin", None),
    }[request.param]


def test_any_range_of_any_source(source):
    place, cache = source
    for _ in range(2):
        rng = np.random.default_rng(1)
        with open_file(place, 10, cache) as file:
            assert (file.num_bytes, file.name.replace("%20", " ")) == (len(DATA), "a b.bin")
            ranges = [sorted(rng.integers(0, len(DATA), 2).tolist()) for _ in range(3)]
            file.prepare([(start, stop) for start, stop in ranges if stop > start])
            for start, stop in ranges:
                file.seek(start)
                assert file.tell() == start
                assert file.read(stop - start) == DATA[start:stop]
            file.seek(-100, os.SEEK_END)
            assert file.read() == DATA[-100:]
            assert file.read(5) == b""
            file.seek(len(DATA) + 7)
            assert file.read(5) == b""
            file.seek(0)
            sizes = rng.integers(1, 3 * BLOCK, 100).tolist()
            assert b"".join(file.read(size) for size in sizes) == DATA
            assert not file.failure


def test_what_is_cached_is_not_asked_for_again(s3, tmp_path):
    s3.client.put_object(Bucket=s3.bucket, Key="v", Body=DATA)
    place, cache = Url(f"s3://{s3.bucket}/v"), BlockCache(tmp_path, 1 << 24)

    def gets():
        s3.forget()
        with open_file(place, 10, cache) as file:
            file.prepare([(5 * BLOCK, 8 * BLOCK), (20 * BLOCK + 1, 20 * BLOCK + 2)])
            file.seek(6 * BLOCK)
            found = file.read(100)
        return found, s3.counts["GET"], s3.num_bytes

    assert gets() == (DATA[6 * BLOCK : 6 * BLOCK + 100], 2, 4 * BLOCK)
    assert gets() == (DATA[6 * BLOCK : 6 * BLOCK + 100], 0, 0)
    s3.client.put_object(Bucket=s3.bucket, Key="v", Body=DATA[::-1])  # of the same size
    assert gets() == (DATA[::-1][6 * BLOCK : 6 * BLOCK + 100], 2, 4 * BLOCK)


def test_much_is_read_at_once(s3):
    data = np.random.default_rng(1).bytes(1100 * BLOCK)
    s3.client.put_object(Bucket=s3.bucket, Key="v", Body=data)
    with open_file(Url(f"s3://{s3.bucket}/v")) as file:
        assert file.read() == data


def test_reading_in_order_takes_few_requests(s3):
    s3.client.put_object(Bucket=s3.bucket, Key="v", Body=DATA)
    s3.forget()
    with open_file(Url(f"s3://{s3.bucket}/v")) as file:
        assert b"".join(iter(lambda: file.read(20000), b"")) == DATA
    assert s3.counts == {"HEAD": 1, "GET": 6}
    assert s3.num_bytes == len(DATA)


@pytest.mark.parametrize(
    "fault",
    [
        lambda number, _: "503" if number % 3 else None,
        lambda number, _: "reset" if number % 3 == 1 else None,
        lambda number, environ: "cut" if number % 2 and environ["REQUEST_METHOD"] == "GET" else None,
        lambda number, _: 1.5 if number == 2 else None,
    ],
    ids=["503", "reset", "cut", "slow"],
)
def test_faults_that_pass(s3, monkeypatch, fault):
    monkeypatch.setattr(remote, "_SILENCE_SECONDS", 1)
    monkeypatch.setattr(remote, "_FIRST_DELAY", 0.05)
    s3.client.put_object(Bucket=s3.bucket, Key="v", Body=DATA)
    s3.forget()
    s3.fail = fault
    with open_file(Url(f"s3://{s3.bucket}/v"), 20) as file:
        assert b"".join(iter(lambda: file.read(3 * BLOCK), b"")) == DATA
    assert s3.counts.total() > 5


def test_faults_that_stay_end_in_time(s3, monkeypatch):
    monkeypatch.setattr(remote, "_FIRST_DELAY", 0.01)
    monkeypatch.setattr(remote, "_LONGEST_DELAY", 0.05)
    s3.client.put_object(Bucket=s3.bucket, Key="v", Body=DATA)
    s3.fail = lambda number, environ: "503"
    with pytest.raises(ConnectionError, match="no answer in 8 attempts"), open_file(Url(f"s3://{s3.bucket}/v")):
        pass
    s3.fail = lambda number, environ: None
    with open_file(Url(f"s3://{s3.bucket}/v")) as file:
        s3.fail = lambda number, environ: "cut" if environ["REQUEST_METHOD"] == "GET" else None
        assert file.read(10) == b""
        assert "no answer in 8 attempts" in file.failure
        s3.fail = lambda number, environ: None
        assert file.read(10) == b""  # to FFmpeg, the file has ended: it must not go on behind a gap


def test_answers_that_are_final_are_not_asked_for_again(s3, monkeypatch, tmp_path):
    s3.client.put_object(Bucket=s3.bucket, Key="folder/v", Body=DATA)
    for url, reason in (
        (f"s3://{s3.bucket}/none", "no such file"),
        ("s3://no-such-bucket/v", "no such bucket: no-such-bucket"),
        (f"s3://{s3.bucket}/folder", "a folder"),
        (f"{s3.url}/{s3.bucket}/none", "no such file"),
    ):
        s3.forget()
        with pytest.raises(FileNotFoundError, match=reason), open_file(url):
            pass
        assert s3.counts.total() <= 3
        assert state_of(Url(url)) == (0, 0)
        with pytest.raises(InputError, match=reason), local_copy(Url(url)):
            pass
    with pytest.raises(InputError, match="no such bucket: no-such-bucket"):
        files_below(Url("s3://no-such-bucket/a"))
    assert files_below(Url(f"s3://{s3.bucket}/nowhere"), missing_ok=True) == {}
    with pytest.raises(InputError, match="no such folder, or an empty one"):
        files_below(Url(f"s3://{s3.bucket}/nowhere"))
    with (
        pytest.raises(InputError, match=r"s3://no-such-bucket/x: cannot be written"),
        written(Url("s3://no-such-bucket/x")) as path,
    ):
        path.write_text("x")
    s3.fail = lambda number, environ: "403"
    with pytest.raises(InputError, match="forbidden"):
        files_below(Url(f"s3://{s3.bucket}/folder"), missing_ok=True)
    with pytest.raises(PermissionError, match="forbidden"), open_file(f"s3://{s3.bucket}/folder/v"):
        pass
    with pytest.raises(InputError, match="forbidden"):
        state_of(Url(f"s3://{s3.bucket}/folder/v"))
    part = Part(tmp_path / "small", 0, 100, "v")
    part.within.write_bytes(b"x" * 50)
    with pytest.raises(FileNotFoundError, match="ends before it"), open_file(part):
        pass


def test_without_credentials(s3, monkeypatch):
    import fsspec

    s3.client.put_object(Bucket=s3.bucket, Key="v", Body=DATA)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    try:
        with pytest.raises(PermissionError, match="unable to locate credentials"), open_file(f"s3://{s3.bucket}/v"):
            pass
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_whole_files_go_to_and_fro(s3, tmp_path):
    root = Url(f"s3://{s3.bucket}/some")
    with written(root / "a/b.txt") as path:
        path.write_bytes(DATA)
    with pytest.raises(ZeroDivisionError), written(root / "a/c.txt") as path:
        path.write_text(f"half {1 / 0}")
    assert s3.names("some") == ["some/a/b.txt"]
    assert {name: state[0] for name, state in files_below(root).items()} == {"a/b.txt": len(DATA)}
    assert files_below(root)["a/b.txt"] == state_of(root / "a/b.txt")
    with local_copy(root / "a/b.txt") as path:
        assert (path.name, path.read_bytes()) == ("b.txt", DATA)
    assert not path.exists()
    kept = [kept_copy(root / "a/b.txt", tmp_path / "kept") for _ in range(2)]
    assert kept[0] == kept[1]
    assert kept[0].read_bytes() == DATA
    with written(root / "a/b.txt") as path:
        path.write_bytes(b"other")
    assert kept_copy(root / "a/b.txt", tmp_path / "kept").read_bytes() == b"other"
    assert len(list((tmp_path / "kept").iterdir())) == 1
    for _ in range(2):
        remove(root / "a")
    assert s3.names("some") == []


def test_forked_processes_read_on(s3):
    """Workers of a loader are forked while the main process has connections of its own."""
    s3.client.put_object(Bucket=s3.bucket, Key="v", Body=DATA)
    with open_file(Url(f"s3://{s3.bucket}/v")) as file:
        assert file.read(10) == DATA[:10]
    child = os.fork()
    if child == 0:
        try:
            with open_file(Url(f"s3://{s3.bucket}/v")) as file:
                os._exit(0 if file.read(BLOCK) == DATA[:BLOCK] else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_places_of_this_machine(tmp_path):
    with written(tmp_path / "a" / "b") as path:
        path.write_text("x")
    assert (tmp_path / "a" / "b").read_text() == "x"
    assert state_of(tmp_path / "a" / "b")[0] == 1
    assert state_of(tmp_path / "none") == (0, 0)
    for place in itertools.repeat(tmp_path / "a", 2):
        remove(place)
    assert not (tmp_path / "a").exists()
