"""The keys are a promise: scripts and configurations of users name them."""

import importlib.util
import json
from pathlib import Path

import yaml

from cbam3d.config import Config
from cbam3d.config.bundled import bundled
from cbam3d.config.keys import json_schema, keys

KEYS = """
run.dir run.seed run.accelerator run.devices run.strategy run.precision run.compile run.channels_last run.sync_batchnorm
run.wandb
data.recipe data.root data.groups data.annotations data.manifest data.split data.test_fraction
data.allow_outside data.allow_leaks data.decoder data.corrupt_frames data.timeout_seconds data.sampling
data.num_frames data.stride data.fps data.cache data.cache_gib data.short_videos data.balance data.background data.reach
data.clips_per_visit data.short_side data.size data.mean data.std data.num_workers data.on_device data.max_bad_videos
augment.crop_scale augment.crop_padding augment.flip augment.color_jitter augment.rotation augment.rand_augment
augment.erasing augment.mixup augment.cutmix
model.name model.attention model.as_video model.head model.head_options model.weights model.weights_match model.options
model.attention_options
train.epochs train.limit_batches train.max_hours train.early_stopping train.batch_size train.accumulate
train.optimizer train.optimizer_options train.learning_rate train.base_batch_size train.new_rate_factor
train.momentum train.weight_decay train.layer_decay train.head_epochs train.freeze_norms train.freeze
train.cached_views train.cache train.schedule train.warmup_epochs train.milestones train.gamma
train.patience train.loss train.label_smoothing train.class_weights train.logit_adjustment train.clip_grad_norm
train.ema train.max_bad_steps train.checkpoint_minutes
train.log_every
eval.num_clips eval.num_crops eval.flip eval.batch_size eval.every_epochs eval.events eval.frame_order
"""


def test_the_list_of_keys_changes_on_purpose_only():
    assert [key.name for key in keys()] == KEYS.split()


ROOT = Path(__file__).parents[2]


def test_what_is_written_about_the_keys_is_up_to_date():
    docs = ROOT / "docs" / "make_keys.py"
    spec = importlib.util.spec_from_file_location("make_keys", docs)
    make_keys = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_keys)
    assert make_keys.tables() in make_keys.PAGE.read_text(), "run: python docs/make_keys.py"
    assert json.loads(make_keys.SCHEMA.read_text()) == json_schema(), "run: python docs/make_keys.py"


def test_defaults_and_choices_are_as_yaml_writes_them():
    found = {key.name: key for key in keys()}
    assert found["run.dir"].default == "null"
    assert found["run.compile"].default == "false"
    assert found["run.compile"].choices == ("true", "false")
    assert found["augment.flip"].choices == ("true", "false", "null")
    assert found["data.mean"].default == "null"
    assert found["run.precision"].choices == ("auto", "32-true", "bf16-mixed", "16-mixed")
    defaults = Config().plain()
    for key in keys():
        section, name = key.name.split(".")
        assert yaml.safe_load(key.default) == defaults[section][name]


def test_what_a_resumed_run_cannot_change():
    fixed = {key.name for key in keys() if key.fixed}
    assert fixed == {
        *(f"data.{key}" for key in ("recipe", "split", "test_fraction", "groups", "clips_per_visit", "sampling")),
        "data.balance",
        "data.background",
        "data.reach",
        "train.loss",
        *(f"train.{key}" for key in ("batch_size", "schedule", "limit_batches", "ema", "freeze", "new_rate_factor")),
        *(f"train.{key}" for key in ("optimizer", "optimizer_options", "momentum", "weight_decay")),
        *(f"train.{key}" for key in ("layer_decay", "head_epochs", "freeze_norms", "cached_views")),
        *(f"model.{key}" for key in ("name", "options", "attention", "attention_options")),
        *(f"model.{key}" for key in ("as_video", "head", "head_options")),
        "run.seed",
    }


def test_an_editor_finds_the_schema():
    """By the comment that YAML's language server reads; and the schema refuses what the reading refuses."""
    for path in bundled("configs").glob("*.yaml"):
        assert path.read_text().startswith("# yaml-language-server: $schema=schema.json\n"), path
    schema = json_schema()
    assert schema["additionalProperties"] is False
    data = schema["$defs"]["DataConfig"]
    assert data["additionalProperties"] is False
    assert data["properties"]["num_frames"] == {
        "default": 16,
        "description": "Frames per clip.",
        "minimum": 1,
        "title": "Num Frames",
        "type": "integer",
    }


def test_values_that_are_given_are_left_as_they_are():
    options = {"width": 8}
    config = Config().override({"model.options": options, "model.options.stem_pool": True})
    assert config.model.options == {"width": 8, "stem_pool": True}
    assert options == {"width": 8}
