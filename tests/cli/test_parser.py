import pytest
import yaml

from cbam3d.assemble import plain
from cbam3d.errors import InputError
from cbam3d.config.keys import keys
from cbam3d.parsing import CommandParser, parse_config
from cbam3d.config.bundled import bundled


def parse(*arguments, default="motion"):
    command = CommandParser("test", "A test.", takes_keys=True)
    command.add_config(default)
    return parse_config(list(arguments), command)[0]


@pytest.fixture
def write(tmp_path):
    def write_yaml(text):
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return str(path)

    return write_yaml


def test_the_command_line_goes_over_the_file(write):
    path = write("train: {epochs: 7, batch_size: 3}\nmodel: {attention: null, options: {width: 8}}\n")
    config = parse("--config", path, "--train.epochs", "9", "--run.dir=somewhere", "--data.size", "64")
    assert (config.train.epochs, config.train.batch_size) == (9, 3)
    assert (config.run.dir, config.data.size) == ("somewhere", 64)
    assert config.model.attention is None
    assert config.model.options == {"width": 8}


def test_options_of_the_network_keep_their_types():
    config = parse("--model.options", "{width: 24, stem_pool: false}", "--model.attention", "null")
    assert config.model.options == {"width": 24, "stem_pool": False}
    assert config.model.attention is None


def test_a_single_option_changes_the_others_not():
    config = parse("--model.options.width", "24")
    assert config.model.options == {"width": 24, "stem_kernel_size": 5, "stem_pool": True}


@pytest.mark.parametrize("path", sorted(bundled("configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_bundled_configuration_is_valid_and_survives_being_written(path, tmp_path):
    config = parse("--config", str(path))
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(plain(config)))
    assert parse("--config", str(tmp_path / "again.yaml")) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {epoch: 3}", "unknown key 'train.epoch': did you mean 'train.epochs'?"),
        ("trains: {epochs: 3}", "unknown key 'trains.epochs': did you mean 'train.epochs'?"),
        ("seed: 3", "unknown key 'seed'"),
        ("train: {epochs: many}", "train.epochs"),
        ("train: {epochs: 0}", "train.epochs must be at least 1, got 0"),
        ("train: {max_hours: .nan}", "train.max_hours must be above 0, got nan"),
        ("train: {learning_rate: .inf}", "train.learning_rate must be at least 0, got inf"),
        ("train: {schedule: multi_step}", "train.milestones belongs to train.schedule multi_step"),
        ("train: {schedule: one_cycle, warmup_epochs: 0}", "train.warmup_epochs must be above 0"),
        ("augment: {mixup: 1.0e-300}", "augment.mixup must be between 0.001 and 1000"),
        ("data: {std: [0.2, 0.2, .nan]}", "data.std must be above 0, got nan"),
        ("data: {decoder: torchcodec, corrupt_frames: drop}", "not possible with data.decoder torchcodec"),
        ("data: {sampling: segments, fps: 10}", "data.fps has no effect with data.sampling segments"),
        ("train: {schedule: cosin}", "train.schedule"),
        ("train: {label_smoothing: 1.5}", "train.label_smoothing must be between 0.0 and 1.0, got 1.5"),
        ("data: {test_fraction: 2}", "data.test_fraction must be between"),
        ("data: {size: 200}", "data.size must not exceed data.short_side"),
        ("augment: {crop_scale: [0.9, 0.3]}", "augment.crop_scale must satisfy"),
        ("augment: {crop_scale: [0.3, 0.9], crop_padding: 4}", "augment.crop_padding has no effect"),
        ("- a list", "a configuration holds keys with values, not a list"),
        ("train: {epochs: [", "config.yaml"),
    ],
)
def test_bad_files_are_refused_in_one_line(write, text, message):
    with pytest.raises(InputError) as error:
        parse("--config", write(text))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.rot", "x"], "command line: unknown key 'data.rot': did you mean 'data.root'?"),
        (["--model.nam=x"], "did you mean 'model.name'?"),
        (["--train.epochs"], "expected one argument"),
        (["--train.epochs", "1.5"], "train.epochs: expected a whole number, got 1.5"),
        (["--augment.crop_scale", "0.5"], "augment.crop_scale: expected a list of 2 numbers or null, got 0.5"),
        (["--run.compile", "maybe"], "run.compile: expected true or false, got maybe"),
        (["--eval.num_crops", "2"], "eval.num_crops: expected one of 1, 3, got 2"),
        (["--model.options", "5"], "model.options: expected keys with values, got 5"),
        (["stray"], "stray"),
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


def test_every_key_is_documented(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")  # no word is divided
    with pytest.raises(SystemExit) as stop:
        parse("--help")
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for key in keys():
        assert key.meaning
        assert key.meaning in text[text.rindex(f"--{key.name} ") :]


def test_the_keys_that_scripts_rely_on():
    names = {key.name for key in keys()}
    assert {"run.dir", "run.seed", "data.root", "data.groups", "data.decoder"} <= names
    assert {"model.name", "model.attention", "train.epochs", "train.batch_size"} <= names
