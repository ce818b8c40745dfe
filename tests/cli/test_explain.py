"""`cbam3d explain`, as a user asks for it."""

import shutil

from cbam3d.cli import main


def test_a_bad_file_does_not_keep_the_others_from_being_explained(tiny_run, tmp_path, capsys):
    (video, *_) = sorted((tiny_run.parent / "videos").rglob("*.avi"))
    for name in ("a/x.avi", "b/x.avi", "b/x-2.avi"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(video, tmp_path / name)
    (tmp_path / "a/bad.avi").touch()
    paths = [str(tmp_path / name) for name in ("a", "b")]
    assert main(["explain", str(tiny_run), *paths, "--out", str(tmp_path / "out"), "--blocks", "layer4.*"]) == 2
    shown = capsys.readouterr()
    assert "1 files cannot be read, the first" in shown.err
    assert shown.err.count("\n") == 1
    assert "layer4.0.attention" in shown.out
    assert "layer1.0.attention" not in shown.out
    assert {path.stem for path in (tmp_path / "out").glob("*.png")} == {"x", "x-2", "x-3"}
    (tmp_path / "file").touch()
    assert main(["explain", str(tiny_run), str(video), "--out", str(tmp_path / "file")]) == 2
    assert "cannot be used as a folder" in capsys.readouterr().err


def test_pictures_lie_in_the_folder_of_the_run(tiny_run, tmp_path, capsys):
    shutil.copytree(tiny_run, tmp_path / "run")
    video = str(next((tiny_run.parent / "videos").rglob("*.avi")))
    assert main(["explain", str(tmp_path / "run/checkpoints/last.ckpt"), video, "--blocks", "layer4.*"]) == 0
    assert list((tmp_path / "run/explain").glob("*.png"))


def test_what_is_explained_is_not_overwritten(tiny_run, picture_run, tmp_path, capsys):
    video = next((tiny_run.parent / "videos").rglob("*.avi"))
    shutil.copy(video, tmp_path / "v.mp4")
    picture = shutil.copy(next((picture_run.parent / "pictures").rglob("*.png")), tmp_path / "p.png")
    before = picture.read_bytes()
    for run, path in ((tiny_run, tmp_path / "v.mp4"), (picture_run, picture)):
        assert main(["explain", str(run), str(path), "--out", str(tmp_path)]) == 2
        assert f"{path} would be overwritten" in capsys.readouterr().err
    assert (tmp_path / "v.mp4").read_bytes() == video.read_bytes()
    assert picture.read_bytes() == before
