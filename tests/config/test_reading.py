"""Files, names and mappings -> configurations."""

import pytest
import yaml

from cbam3d.config import Config, DataConfig, TrainConfig, load_config
from cbam3d.config.bundled import bundled
from cbam3d.config.reading import name_of
from cbam3d.errors import InputError


@pytest.mark.parametrize("path", sorted(bundled("configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_bundled_configuration_is_valid_and_survives_being_written(path, tmp_path):
    config = load_config(path)
    assert load_config(path.stem) == config
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(config.plain()))
    assert load_config(tmp_path / "again.yaml") == config


def test_a_mapping_goes_over_what_it_names():
    config = load_config({"config": "folder", "data.root": "videos", "train": {"epochs": 3}, "model.options.width": 8})
    folder = load_config("folder")
    assert (config.data.root, config.train.epochs) == ("videos", 3)
    assert config.model.options == {**folder.model.options, "width": 8}
    assert config.train.batch_size == folder.train.batch_size
    assert load_config({}) == load_config("motion")
    assert load_config({"config": Config(), "run.seed": 3}).run.seed == 3
    assert load_config(config.plain()) == config
    assert load_config(config) == config


def test_options_are_plain_data_and_keep_their_values():
    config = load_config({"train.optimizer_options": {"eps": float("inf"), "betas": (0.9, 0.99)}})
    assert config.plain()["train"]["optimizer_options"] == {"eps": float("inf"), "betas": [0.9, 0.99]}
    with pytest.raises(InputError, match=r"model\.options must be keys with values, got"):
        load_config({"model.options": {"norm": Config}})
    with pytest.raises(InputError) as raised:
        load_config({"train.epochs": "a\nb"})
    assert "\n" not in str(raised.value)


def test_a_path_is_text(tmp_path):
    config = load_config({"data.root": tmp_path, "model": {"weights": tmp_path / "w.pt"}})
    assert (config.data.root, config.model.weights) == (str(tmp_path), str(tmp_path / "w.pt"))


def test_a_run_is_called_after_its_file():
    assert [name_of(one) for one in ("motion", "a/b.yaml", {"config": "folder"}, {}, Config())] == [
        "motion",
        "b",
        "folder",
        "motion",
        "run",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {epoch: 3}", "unknown key 'train.epoch': did you mean 'train.epochs'?"),
        ("trains: {epochs: 3}", "unknown key 'trains.epochs': did you mean 'train.epochs'?"),
        ("seed: 3", "unknown key 'seed': did you mean 'run.seed'?"),
        ("train: {lr: 3}", "unknown key 'train.lr': did you mean 'train.learning_rate'?"),
        ("train: {qqqq: 3}", "unknown key 'train.qqqq': known are train.accumulate, "),
        ("qqqq: 3", "unknown key 'qqqq': no key has a name like it"),
        ("train:", "train must be keys with values, got None"),
        ("train: {epochs: many}", "train.epochs must be an integer >= 1, got many"),
        ("train: {epochs: 0}", "train.epochs must be an integer >= 1, got 0"),
        ("train: {epochs: true}", "train.epochs must be an integer >= 1, got True"),
        ("train: {max_hours: .nan}", "train.max_hours must be a number > 0 or null, got nan"),
        ("train: {learning_rate: .inf}", "train.learning_rate must be a number >= 0, got inf"),
        ("train: {schedule: multi_step}", "train.milestones belongs to train.schedule multi_step"),
        ("train: {schedule: one_cycle, warmup_epochs: 0}", "train.warmup_epochs must be above 0"),
        ("augment: {mixup: 1.0e-300}", "augment.mixup must be 0, or between 0.001 and 1000"),
        ("data: {std: [0.2, 0.2, .nan]}", "data.std must be a list of 3 numbers > 0 or null, got [0.2, 0.2, nan]"),
        ("data: {decoder: torchcodec, corrupt_frames: drop}", "not possible with data.decoder torchcodec"),
        ("data: {decoder: torchcodec, timeout_seconds: 5}", "data.timeout_seconds has no effect"),
        ("data: {sampling: segments, fps: 10}", "data.fps has no effect with data.sampling segments"),
        ("train: {schedule: cosin}", "train.schedule must be one of cosine, one_cycle"),
        ("train: {label_smoothing: 1.5}", "train.label_smoothing must be a number from 0 to 1, got 1.5"),
        ("train: {ema: 1}", "train.ema must be a number > 0 and < 1 or null, got 1"),
        ("data: {test_fraction: 2}", "data.test_fraction must be a number from 0 to 1, got 2"),
        ("data: {size: 200}", "data.size must not exceed data.short_side"),
        ("data: {root: 5}", "data.root must be text, got 5"),
        ("run: {seed: -1}", "run.seed must be an integer from 0 to 4294967295, got -1"),
        ("augment: {crop_scale: [0.9, 0.3]}", "augment.crop_scale must satisfy"),
        ("augment: {crop_scale: [0.3, 0.9], crop_padding: 4}", "augment.crop_padding has no effect"),
        ("augment: {color_jitter: [1, 1, 1, 0.6]}", "augment.color_jitter must be a list of 4 numbers"),
        ("augment: {rand_augment: [2, 31]}", "augment.rand_augment must be a list of 2 numbers"),
        ("- a list", "a configuration holds keys with values, not a list"),
        ("train: {epochs: [", "config.yaml"),
    ],
)
def test_bad_files_are_refused_in_one_line_that_names_them(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_config(path)
    assert message in str(error.value)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_what_is_wrong_with_an_override_does_not_name_the_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("train: {epochs: 3}")
    with pytest.raises(InputError) as error:
        load_config(path, {"train.epochs": 0})
    assert str(error.value) == "train.epochs must be an integer >= 1, got 0"
    path.write_text("train: {schedule: multi_step}")  # complete with what overrides it
    assert load_config(path, {"train.milestones": [3]}).train.milestones == [3]


def test_sections_are_checked_when_they_are_built():
    with pytest.raises(InputError, match=r"data\.size must be an integer >= 1 or a list of 2 integers >= 1, got 0"):
        DataConfig(size=0)
    with pytest.raises(InputError, match=r"unknown key 'data\.rot': did you mean 'data\.root'"):
        Config(data={"rot": 1})
    with pytest.raises(InputError, match=r"train\.epochs must be an integer >= 1, got 0"):
        Config(train=TrainConfig().model_dump() | {"epochs": 0})


def test_numbers_are_those_of_yaml_1_2(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("train: {weight_decay: 1e-3, learning_rate: 1}")
    train = load_config(path).train
    assert (train.weight_decay, train.learning_rate) == (0.001, 1.0)


def test_sections_and_overrides_are_merged_key_by_key():
    given = {"config": "folder", "train": {"epochs": 3}, "data.root": "videos"}
    config = load_config(given, {"train": {"batch_size": 8}, "data": {"size": 64}})
    assert (config.train.epochs, config.train.batch_size, config.data.root, config.data.size) == (3, 8, "videos", 64)
