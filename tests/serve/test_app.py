"""The page, by a real server on this machine and, where there is one, by a real browser."""

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import av
import numpy as np
import pytest
import uvicorn

from cbam3d import open_run
from cbam3d.errors import InputError
from cbam3d.serve import app as app_module
from cbam3d.serve.app import create_app
from cbam3d.serve.jobs import Jobs
from cbam3d.serve.look import Limits, check
from cbam3d.video.encode import write_video

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OURS = {"x-cbam3d": "1"}
LIMITS = Limits()


@contextmanager
def serving(runs, limits=LIMITS, host="127.0.0.1"):
    """The address of a server, and the folder of its files."""
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app_module, "Jobs", lambda *given: made.append(Jobs(*given)) or made[-1])
        app = create_app(runs, limits, host=host)
    listener = socket.create_server((host, 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://{host}:{listener.getsockname()[1]}", made[0]
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def served(tiny_run):
    with serving([open_run(tiny_run)]) as one:
        yield one


def ask(address, data=None, method=None, **headers):
    """Status, headers and content of an answer."""
    try:
        with urlopen(Request(address, data, headers, method=method), timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except HTTPError as error:
        return error.code, error.headers, error.read()


def until(page, expression):
    """Wait for something to hold in a page, whose policy allows no script of others."""
    for _ in range(100):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise AssertionError(expression)


def said(answer):
    return json.loads(answer[2])


def looked_at(address, content, name="clip.mp4"):
    """The end of a job."""
    answer = ask(f"{address}/api/videos?name={name}", content, **OURS)
    assert answer[0] == 202, answer
    place = f"{address}/api/videos/{said(answer)['id']}"
    for _ in range(600):
        job = said(ask(place))
        if job["state"] in ("done", "failed"):
            return place, job
        time.sleep(0.1)
    raise AssertionError(job)


def test_a_video_is_looked_at_as_prediction_does(served, tiny_run):
    address, jobs = served
    video = next((tiny_run.parent / "videos").glob("*/*.avi"))
    place, job = looked_at(address, video.read_bytes(), "some%2Fwhere/a%20name.avi")
    assert (job["state"], job["name"], job["share"]) == ("done", "a name.avi", 1)
    (found,) = job["result"]["runs"]
    expected = open_run(tiny_run).predictor()(video, 5)
    assert [one["name"] for one in found["classes"]] == [name for name, _ in expected]
    assert [one["probability"] for one in found["classes"]] == pytest.approx([value for _, value in expected], abs=1e-5)
    assert "were right." in found["confidence"]
    assert found["timeline"]["rows"][0]["probabilities"]
    for name in ("video", "look/0"):  # MPEG-4 in AVI is shown as H.264
        status, headers, content = ask(f"{place}/{name}")
        assert (status, headers["content-type"]) == (200, "video/mp4")
        (jobs.known[place.rpartition("/")[2]].folder / "check.mp4").write_bytes(content)
        with av.open(str(jobs.known[place.rpartition("/")[2]].folder / "check.mp4")) as container:
            assert container.streams.video[0].codec_context.name == "h264"
    assert ask(f"{place}/video", range="bytes=0-9")[0] == 206
    assert job["result"]["seconds"] == pytest.approx(24 / 25)


def test_what_browsers_play_is_shown_as_it_is(served, tiny_run):
    address, _ = served
    video = next((tiny_run.parent / "videos").glob("*/*.mp4"))
    place, _ = looked_at(address, video.read_bytes())
    assert ask(f"{place}/video")[2] == video.read_bytes()
    folder = served[1].known[place.rpartition("/")[2]].folder
    assert ask(place, method="DELETE")[0] == 403
    assert ask(place, method="DELETE", **OURS)[0] == 204
    assert not folder.exists()
    assert ask(place)[0] == ask(f"{place}/video")[0] == 404


def test_bad_files_are_named_without_any_path(served, tmp_path, make_video):
    address, jobs = served
    whole = make_video("w.mp4").read_bytes()
    script = b"ffconcat version 1.0\nfile upload\n"  # which would have FFmpeg open what it names
    for content, reason in ((script, "text"), (b"\0nonsense", "that can be read"), (whole[:200], "that can be read")):
        _, job = looked_at(address, content, "bad.mp4")
        assert job["state"] == "failed"
        assert reason in job["error"]
        for secret in (jobs.root.name, "/tmp", str(tmp_path), "Traceback"):
            assert secret not in json.dumps(job)
    assert ask(f"{address}/api/videos?name=x", b"", method="POST", **OURS)[0] == 400


def test_limits_hold(tiny_run, make_video):
    long = make_video("long.mp4", 60).read_bytes()
    limits = Limits(mib=len(long) / 2**20, seconds=2, waiting=1)
    with serving([open_run(tiny_run)], limits) as (address, jobs):
        assert said(ask(f"{address}/api/about"))["limits"]["seconds"] == 2
        status, _, content = ask(f"{address}/api/videos", long + b"\0", **OURS)
        assert (status, "larger than" in str(content)) == (413, True)
        assert not jobs.known
        assert "lasts 2 seconds, the limit is 2" in looked_at(address, long)[1]["error"]
        free, wait = threading.Event(), threading.Event()

        def work(job, report):
            wait.set()
            free.wait(30)
            return {}

        jobs.work = work
        assert ask(f"{address}/api/videos", long, **OURS)[0] == 202
        assert wait.wait(10)
        status, _, content = ask(f"{address}/api/videos", long, **OURS)
        assert (status, "Too many" in str(content)) == (429, True)
        free.set()


def test_files_are_deleted_when_they_are_old_and_when_the_server_ends(tiny_run, make_video):
    content = make_video().read_bytes()
    with serving([open_run(tiny_run)], Limits(keep_minutes=60)) as (address, jobs):
        place, _ = looked_at(address, content)
        folder = jobs.known[place.rpartition("/")[2]].folder
        assert folder.is_dir()
        jobs.limits = replace(jobs.limits, keep_minutes=0)
        jobs.forget_old()
        assert not folder.exists()
        root = jobs.root.name
    assert not folder.parent.exists()
    assert root == str(folder.parent)


def test_a_video_that_is_deleted_while_it_is_looked_at_leaves_nothing(tiny_run, make_video):
    begun, free = threading.Event(), threading.Event()

    def work(job, report):
        begun.set()
        free.wait(30)
        (job.folder / "deep").mkdir(parents=True)  # as what still writes would
        report(0.5, "more")
        raise AssertionError("goes on")

    with serving([open_run(tiny_run)], Limits(waiting=1)) as (address, jobs):
        jobs.work = work
        answer = ask(f"{address}/api/videos", make_video().read_bytes(), **OURS)
        assert begun.wait(10)
        folder = jobs.known[said(answer)["id"]].folder
        assert ask(f"{address}/api/videos/{said(answer)['id']}", method="DELETE", **OURS)[0] == 204
        assert ask(f"{address}/api/videos", b"more", **OURS)[0] == 429  # it has not ended
        free.set()
        for _ in range(100):
            if not jobs.pending:
                break
            time.sleep(0.05)
        assert jobs.pending == 0
        time.sleep(0.1)
        assert not folder.exists()


def wait_for(condition):
    for _ in range(200):
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_what_failed_and_what_is_too_much_leaves_the_disk():
    def work(job, report):
        if job.name == "bad":
            raise InputError("no video")
        return {}

    jobs = Jobs(Limits(waiting=1), work)
    made = []
    for name in ("bad", "a", "b", "c"):
        made.append(jobs.create(name))
        jobs.start(made[-1])
        assert wait_for(lambda: made[-1].state in ("done", "failed") and not jobs.pending)
    assert wait_for(lambda: not made[0].folder.exists())
    assert made[3].folder.exists()
    jobs.create("d")
    assert [job.name for job in jobs.known.values()] == ["b", "c", "d"]  # two for each that may wait
    jobs.close()


def test_a_job_that_runs_ends_with_the_server():
    begun, ended = threading.Event(), threading.Event()

    def work(job, report):
        begun.set()
        try:
            while True:
                report(0.5, "on and on")
                time.sleep(0.01)
        finally:
            ended.set()

    jobs = Jobs(Limits(), work)
    jobs.start(jobs.create("x"))
    assert begun.wait(10)
    jobs.close()
    assert ended.wait(10)


@pytest.mark.parametrize("start", [b"ffconcat version 1.0\nfile upload\n", b"\n#EXTM3U\n", b"<smil>", b"v=0\n"])
def test_playlists_are_refused_whatever_bytes_they_hold(tmp_path, start):
    (tmp_path / "upload").write_bytes(start + b"#\x01\n")
    with pytest.raises(InputError, match="no video that can be read: text"):
        check(tmp_path / "upload", Limits())


def test_a_frame_rate_of_a_header_does_not_shorten_a_video(tmp_path):
    write_video(tmp_path / "upload.mkv", np.zeros((60, 16, 16, 3), np.uint8), 1000, "mpeg4")
    with pytest.raises(InputError, match="lasts 0 seconds, the limit is 0"):
        check(tmp_path / "upload.mkv", Limits(seconds=0.1))
    check(tmp_path / "upload.mkv", Limits(seconds=1))


def test_jobs_that_wait_are_not_taken_for_old(tiny_run):
    jobs = Jobs(Limits(keep_minutes=0), lambda job, report: {})
    job = jobs.create("x")
    job.state = "waiting"
    jobs.forget_old()
    assert jobs.get(job.id) is job
    job.state = "uploading"
    jobs.forget_old()
    assert jobs.get(job.id) is None
    assert jobs.pending == 0
    jobs.close()


def test_others_are_refused(served):
    address, _ = served
    assert ask(f"{address}/api/about", host="evil.example")[0] == 400
    assert ask(f"{address}/api/videos?name=x", b"data")[0] == 403
    for path in ("/../../etc/passwd", "/page/page.html", "/api/videos/../../x", "/api/videos/%2e%2e%2f/video"):
        assert ask(address + path)[0] in (404, 405)
    _, headers, page = ask(address)
    assert "default-src 'self'" in headers["content-security-policy"]
    assert b"<script src=" in page
    assert b"http" not in page


def test_examples_are_of_the_test_set(served, tiny_run):
    address, _ = served
    names = said(ask(f"{address}/api/about"))["examples"]
    assert names
    assert set(names) <= set(open_run(tiny_run).classes)
    answer = ask(f"{address}/api/examples/0", b"", **OURS)
    assert answer[0] == 202
    assert ask(f"{address}/api/examples/99", b"", **OURS)[0] == 404


def test_runs_of_images_are_refused(picture_run):
    with pytest.raises(InputError, match="serve shows videos"):
        create_app([open_run(picture_run)], Limits())


@pytest.mark.slow
def test_the_command_says_where_it_is(tiny_run):
    command = [sys.executable, "-m", "cbam3d", "serve", str(tiny_run), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().split()[0]
        assert ask(address)[0] == 200
        process.terminate()
        process.wait(30)
    done = subprocess.run([*command, "--host", "192.0.2.1"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "cannot listen at 192.0.2.1" in done.stderr


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_browser_shows_it(tiny_run, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    film, bad = tmp_path / "film.avi", tmp_path / "bad.avi"
    rng = np.random.default_rng(0)
    write_video(film, rng.integers(0, 255, (75, 48, 64, 3), np.uint8), 25, "mpeg4")
    bad.write_bytes(b"nonsense")
    runs = [open_run(tiny_run)] * 2
    with serving(runs) as (address, _), sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page, problems = browser.new_page(viewport={"width": 390, "height": 800}), []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.goto(address)
        page.wait_for_selector("#examples button")
        page.set_input_files("#file", str(bad))
        page.wait_for_selector("#error:not([hidden])")
        assert "bad.avi: This is no video" in page.inner_text("#error")
        page.set_input_files("#file", str(film))
        page.wait_for_selector("#result:not([hidden])", timeout=60000)
        assert page.is_hidden("#error")
        assert page.inner_text("#name") == "film.avi"
        assert page.locator(".run").count() == 2
        assert page.locator(".run >> nth=0").locator(".classes tr").count() == 5
        until(page, "[...document.querySelectorAll('#video, .look')].every((one) => one.readyState >= 2)")
        lane = page.locator(".timeline >> nth=1")
        box = lane.bounding_box()
        lane.click(position={"x": box["width"] * 2 / 3, "y": 5})
        until(page, "Math.abs(document.getElementById('video').currentTime - 2) < 0.1")
        until(page, "Math.abs(parseFloat(document.querySelector('.head').style.left) - 66.7) < 4")
        for width in (390, 500, 1600):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.click("#delete")
        page.wait_for_selector("#result", state="hidden")
        browser.close()
    assert problems == []
