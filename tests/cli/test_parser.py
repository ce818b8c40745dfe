"""Options and keys on the command line."""

import pytest

from cbam3d.cli.parser import CommandParser
from cbam3d.cli.train import parser
from cbam3d.config import load_config
from cbam3d.config.keys import keys
from cbam3d.errors import InputError


def parse(*arguments: str):
    given, values = parser().parse(arguments)
    return load_config({**values, "config": given.config or "motion"})


def test_the_command_line_goes_over_the_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("train: {epochs: 7, batch_size: 3}\nmodel: {attention: null, options: {width: 8}}\n")
    config = parse("--config", str(path), "--train.epochs", "9", "--run.dir=somewhere", "--data.size", "64")
    assert (config.train.epochs, config.train.batch_size) == (9, 3)
    assert (config.run.dir, config.data.size) == ("somewhere", 64)
    assert config.model.attention is None
    assert config.model.options == {"width": 8}


def test_text_stands_as_it_is_and_other_values_are_yaml():
    config = parse("--run.dir", "2024", "--data.root", "1e5", "--model.weights", "null", "--train.weight_decay", "1e-3")
    assert (config.run.dir, config.data.root, config.model.weights) == ("2024", "1e5", None)
    assert config.train.weight_decay == 0.001
    assert parse("--augment.flip", "null").augment.flip is None
    assert parse("--model.attention", "~").model.attention is None
    assert parse("--train.epochs", "010").train.epochs == 10
    assert parse("--train.freeze", '["stem.*"]').train.freeze == ["stem.*"]


def test_options_of_the_network_keep_their_types():
    config = parse("--model.options", "{width: 24, stem_pool: false}", "--model.attention", "null")
    assert config.model.options == {"width": 24, "stem_pool": False}
    assert config.model.attention is None


def test_a_single_option_changes_the_others_not():
    config = parse("--model.options.width", "24", "--model.attention_options.gates=[channel]")
    assert config.model.options == {"width": 24, "stem_kernel_size": 5, "stem_pool": True}
    assert config.model.attention_options == {"gates": ["channel"]}


def test_options_apply_in_their_order_and_at_any_depth():
    config = parse("--model.options.stem_pool", "true", "--model.options", "{width: 3}", "--model.options.a.b", "3")
    assert config.model.options == {"width": 3, "a": {"b": 3}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.rot", "x"], "command line: unknown key 'data.rot': did you mean 'data.root'?"),
        (["--model.nam=x"], "did you mean 'model.name'?"),
        (["--batch-size", "4"], "unknown key 'batch-size': did you mean 'train.batch_size'?"),
        (["--gpus", "2"], "unknown key 'gpus': did you mean 'run.devices'?"),
        (["--train.epochs"], "expected one argument"),
        (["--model.options.width"], "expected one argument"),
        (["--train.epochs", "1.5"], "train.epochs must be an integer >= 1, got 1.5"),
        (["--train.epochs", "[1"], "train.epochs: cannot read '[1'"),
        (
            ["--augment.crop_scale", "0.5"],
            "augment.crop_scale must be a list of 2 numbers from 0 to 1 or null, got 0.5",
        ),
        (["--run.compile", "maybe"], "run.compile must be true or false, got maybe"),
        (["--eval.num_crops", "2"], "eval.num_crops must be one of 1, 3, got 2"),
        (["--augment.flip", ""], "augment.flip must be true or false or null, got "),
        (["--model.options", "5"], "model.options must be keys with values, got 5"),
        (["stray"], "unexpected argument 'stray'"),
        (["--confi", "motion"], "did you mean 'config'?"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: no such configuration file"),
        (["--config", "ucf10"], "unknown configuration 'ucf10': did you mean"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(arguments, message):
    with pytest.raises(InputError) as error:
        parse(*arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_command_without_keys_names_its_nearest_option():
    command = CommandParser("test", "A test.")
    command.add_checkpoint()
    with pytest.raises(InputError, match="unknown option 'checkpont': did you mean 'checkpoint'"):
        command.parse(["--checkpont", "best"])


def test_every_key_is_in_the_help(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")  # no word is divided
    with pytest.raises(SystemExit) as stop:
        parse("--help")
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for key in keys():
        assert key.meaning
        assert key.meaning in text[text.rindex(f"--{key.name} ") :]
