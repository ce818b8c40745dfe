import subprocess

import pytest

from cbam3d.cli import main

BASH = """
source {script}
complete_line() {{
    COMP_WORDS=($1) COMP_LINE="$1" COMP_POINT=${{#1}} COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)) COMPREPLY=()
    $(complete -p cbam3d | sed 's/.*-F \\([^ ]*\\).*/\\1/')
    echo "${{COMPREPLY[@]}}"
}}
complete_line "cbam3d ev"
complete_line "cbam3d train --data.gro"
complete_line "cbam3d train --run.precision bf"
complete_line "cbam3d export --format o"
"""


def test_bash_completes_commands_keys_and_values(tmp_path, capsys):
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "cbam3d.bash"
    script.write_text(capsys.readouterr().out)
    done = subprocess.run(["bash", "-c", BASH.format(script=script)], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:4] == ["evaluate", "--data.groups", "bf16-mixed", "onnx"], done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script_with_every_command(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(command in script for command in ("evaluate", "compare", "data.root"))


def test_an_unknown_shell_is_refused_in_one_line(capsys):
    assert main(["completion", "cmd"]) == 2
    assert "cbam3d: completion: argument shell: invalid choice: 'cmd'" in capsys.readouterr().err
