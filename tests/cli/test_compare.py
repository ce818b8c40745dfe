"""`cbam3d compare`, as a user asks for it."""

from cbam3d.cli import main
from tests.tiny import TINY, as_arguments


def test_a_comparison_is_shown(tiny_run, compared_here, tmp_path, capsys):
    values = {**TINY, "data.root": str(tiny_run.parent / "videos")}
    values.pop("config")
    command = ["compare", "folder", "--attention", "none,simam", "--seeds", "1", "--out", str(tmp_path)]
    assert main([*command, *as_arguments(values)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("trained in") == 2
    assert "one seed tells" in shown
    assert f"comparison.png are in {tmp_path}" in shown


def test_mistakes_are_one_line(capsys):
    for arguments in (["--attention", "none,se"], ["motion", "--attention", "none,se", "--run.dir", "x"], ["motion"]):
        assert main(["compare", *arguments]) == 2
        assert capsys.readouterr().err.count("\n") == 1
