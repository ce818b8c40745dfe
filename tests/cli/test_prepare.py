"""`cbam3d prepare`, as a user asks for it."""

from cbam3d.cli import main


def test_classes_and_files_are_shown(tmp_path, make_video, capsys):
    for name in ("run/0.mp4", "run/1.mp4", "walk/0.mp4", "walk/1.mp4"):
        make_video(f"videos/{name}", 10 + len(name))
    (tmp_path / "videos/run/empty.mp4").touch()
    assert main(["prepare", "folder", "--root", str(tmp_path / "videos"), "--short-side", "24"]) == 0
    out = capsys.readouterr().out
    rows = {line.split("│")[1].strip(): line.split("│")[2:4] for line in out.splitlines() if line.startswith("│")}
    assert {name: [int(count) for count in counts] for name, counts in rows.items()} == {"run": [3, 2], "walk": [2, 2]}
    assert "5 videos, 4 usable" in out
    assert f"--data.root {tmp_path / 'videos-24p'}" in out
    assert main(["prepare", "folder", "--root", str(tmp_path / "videos")]) == 2
    assert (
        capsys.readouterr().err
        == f"cbam3d: {tmp_path / 'videos' / 'manifest.csv'} exists: remove it to read every video again\n"
    )
