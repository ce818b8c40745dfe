"""The keys are a promise: scripts and configurations of users name them."""

import importlib.util
from pathlib import Path

import yaml

from cbam3d.config.keys import keys

KEYS = """
run.dir run.seed run.accelerator run.devices run.precision run.compile run.channels_last run.sync_batchnorm
run.wandb
data.recipe data.root data.groups data.annotations data.manifest data.split data.test_fraction
data.allow_outside data.allow_leaks data.decoder data.corrupt_frames data.timeout_seconds data.sampling
data.num_frames data.stride data.fps data.short_videos data.clips_per_visit data.short_side data.size data.mean
data.std data.num_workers data.on_device data.max_bad_videos
augment.crop_scale augment.crop_padding augment.flip augment.color_jitter augment.rotation augment.rand_augment
augment.erasing augment.mixup augment.cutmix
model.name model.attention model.weights model.options model.attention_options
train.epochs train.limit_batches train.max_hours train.early_stopping train.batch_size train.accumulate
train.optimizer train.optimizer_options train.learning_rate train.base_batch_size train.new_rate_factor
train.momentum train.weight_decay train.freeze train.schedule train.warmup_epochs train.milestones train.gamma
train.patience train.label_smoothing train.clip_grad_norm train.ema train.max_bad_steps train.checkpoint_minutes
train.log_every
eval.num_clips eval.num_crops eval.flip eval.batch_size eval.every_epochs eval.frame_order
"""


def test_the_list_of_keys_changes_on_purpose_only():
    assert [key.name for key in keys()] == KEYS.split()


def test_the_page_of_keys_is_up_to_date():
    docs = Path(__file__).parents[1] / "docs" / "make_keys.py"
    spec = importlib.util.spec_from_file_location("make_keys", docs)
    make_keys = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_keys)
    assert make_keys.tables() in make_keys.PAGE.read_text(), "run: python docs/make_keys.py"


def test_defaults_and_choices_are_as_yaml_writes_them():
    found = {key.name: key for key in keys()}
    assert found["run.dir"].default == "null"
    assert found["run.compile"].default == "false"
    assert found["run.compile"].choices == ("true", "false")
    assert found["data.mean"].default.startswith("[0.43")
    assert found["run.precision"].choices == ("32-true", "bf16-mixed", "16-mixed")
    for key in keys():
        yaml.safe_load(key.default)
