"""The page about a run: what it says, and that a browser shows it without any other file."""

import csv
import html
import json
import re
import shutil
import subprocess

import pytest

from cbam3d import open_run
from cbam3d.errors import InputError
from cbam3d.runs.report import _TEMPLATE

pytestmark = pytest.mark.draws

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def page(tiny_run, tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("report") / "page.html"
    return open_run(tiny_run).report(out, mistakes=3).read_text()


def words(page: str) -> str:
    """The text of a page, on one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_it_says_what_the_files_say(tiny_run, page):
    text, metrics = words(page), json.loads((tiny_run / "metrics.json").read_text())
    low, high = metrics["intervals_95"]["video_top1"]
    assert f"video_top1 {metrics['video_top1']:.2%} {low:.2%} … {high:.2%}" in text
    assert f"{metrics['num_videos']} videos" in text
    with open(tiny_run / "classes.csv", newline="") as file:
        for row in csv.DictReader(file):
            assert f"{row['class']} {row['items']} {100 * float(row['accuracy']):.1f} %" in text
    assert "width: 8" in page  # the configuration
    with open(tiny_run / "predictions.csv", newline="") as file:
        wrong = [row for row in csv.DictReader(file) if row["right"] == "0"]
    surest = sorted(wrong, key=lambda row: -float(row["probability1"]))[:3]
    for row in surest:
        assert (
            f"{row['label']} taken for {row['top1']} ({100 * float(row['probability1']):.1f} %) {row['path']}" in text
        )
    assert page.count('alt="frames"') == page.count('alt="attention over the frames"') == len(surest)


def test_it_needs_nothing_else(page):
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) >= 3
    assert all(source.startswith("data:image/") for source in sources)
    assert "<script" not in page
    assert "@import" not in page


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_browser_shows_it(page, tmp_path):
    """Every picture is decoded, and nothing is wider than a telephone's window."""
    probe = (
        "<script>addEventListener('load', () => { const all = [...document.images];"
        "document.title = JSON.stringify([all.length, all.filter(i => i.naturalWidth > 0).length,"
        "document.documentElement.scrollWidth, innerWidth]); });</script></body>"
    )
    (tmp_path / "page.html").write_text(page.replace("</body>", probe))
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--window-size=600,900"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000", "--dump-dom"]
    done = subprocess.run([*command, f"file://{tmp_path / 'page.html'}"], capture_output=True, text=True, timeout=100)
    title = re.search(r"<title>(\[.*?\])</title>", done.stdout)
    assert title, done.stderr
    pictures, decoded, width, window = json.loads(title[1])
    assert pictures == decoded >= 3
    assert width <= window


def test_names_are_no_markup(tiny_run, tmp_path):
    """A file or class may be called anything."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    for name in ("predictions.csv", "classes.csv"):
        (run / name).write_text((run / name).read_text().replace("move_left", "<script>x</script>"))
    open_run(run).report(mistakes=0)
    page = (run / "report.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;x" in page


def test_without_the_data_there_are_no_pictures_of_it(tiny_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (run / "manifest.csv").unlink()
    (tiny_run.parent / "videos").rename(tiny_run.parent / "away")
    try:
        open_run(run).report()
    finally:
        (tiny_run.parent / "away").rename(tiny_run.parent / "videos")
    text = words((run / "report.html").read_text())
    assert "the data cannot be read here" in text
    assert "taken for" in text


def test_pictures_are_reported_too(picture_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(picture_run, run)
    open_run(run).evaluate({"eval.flip": False})
    open_run(run).report()
    text = words((run / "report.html").read_text())
    assert "top1, 95 % interval" in text
    assert "Scored again" in text
    picture = next((picture_run.parent / "pictures/test").rglob("*.png"))
    files = open_run(run).explain(picture).save(tmp_path / "explained")
    assert {path.suffix for path in files if path.is_file()} == {".png", ".npz"}


def test_a_mistake_that_is_gone_is_shown_without_its_picture(tiny_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    with open(run / "predictions.csv", newline="") as file:
        wrong = [row for row in csv.DictReader(file) if row["right"] == "0"]
    video = tiny_run.parent / "videos" / max(wrong, key=lambda row: float(row["probability1"]))["path"]
    video.rename(tmp_path / "away")
    try:
        open_run(run).report(mistakes=2)
    finally:
        (tmp_path / "away").rename(video)
    page = (run / "report.html").read_text()
    assert page.count('alt="frames"') == 1
    assert "no such file" in words(page)


def test_classes_without_items_come_last(tiny_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    lines = (run / "classes.csv").read_text().splitlines()
    (run / "classes.csv").write_text("\n".join([lines[0], "nothing,0,,,0", *lines[1:]]))
    open_run(run).report(mistakes=0)
    text = words((run / "report.html").read_text())
    assert text.index("nothing 0") > text.index("zoom_out")


def test_what_is_no_ended_run_is_one_line(tiny_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (run / "predictions.csv").unlink()
    with pytest.raises(InputError, match=r"training has ended \(predictions\.csv is missing\)"):
        open_run(run).report()
    with pytest.raises(InputError, match="no folder of a run whose training has ended"):
        open_run(tiny_run / "checkpoints/last.ckpt").report()
    with pytest.raises(InputError, match="--mistakes must be at least 0, got -1"):
        open_run(tiny_run).report(mistakes=-1)
    with pytest.raises(InputError, match="is a folder"):
        open_run(tiny_run).report(tmp_path, mistakes=0)


def test_the_page_lies_in_the_package():
    assert _TEMPLATE.is_file()
