"""The whole configuration on one page. Every key of a YAML file and of the command line is a field here."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from cbam3d.errors import InputError

Options = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """Where and on what a run happens.

    Args:
        dir: folder of the run; null for the configuration's name in runs/, numbered where that exists.
        seed: number from which everything random follows.
        accelerator: auto, cpu, gpu, cuda or mps.
        devices: number of processes, one a device.
        precision: 32-true, bf16-mixed or 16-mixed.
        compile: pass the network through torch.compile.
        channels_last: keep feature maps in that memory format, faster on most GPUs.
        sync_batchnorm: BatchNorm over all processes; needs GPUs.
        wandb: project of Weights & Biases to report to (an extra); null for none.
    """

    dir: str | None = None
    seed: int = 0
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    devices: int = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    compile: bool = False
    channels_last: bool = False
    sync_batchnorm: bool = False
    wandb: str | None = None

    def __post_init__(self) -> None:
        _between("run.seed", self.seed, 0, 2**32 - 1)
        _at_least("run.devices", self.devices, 1)


@dataclass(frozen=True)
class Data:
    """Which files, and which part of them the network sees.

    Args:
        recipe: name of a folder in datasets/, or path of a folder with a recipe.yaml.
        root: folder of the data.
        groups: CSV with columns path and group (and label, split); videos of one group are not torn apart by a split,
            unless the column split says so.
        annotations: the data set's own lists, their folder or one of them; null looks for them in the root.
        manifest: CSV written by `cbam3d prepare`; null for ROOT/manifest.csv where it exists, else the
            folder is scanned.
        split: number of the recipe's split.
        test_fraction: share held out where neither the recipe nor the folders say, 0 … 1.
        allow_outside: follow links that lead out of the root, and take paths of a manifest that do.
        allow_leaks: accept groups with videos in training and held out; an error otherwise.
        decoder: what reads videos: pyav, or torchcodec (an extra, without AVI).
        corrupt_frames: frames that the decoder marks as corrupt: keep shows them, drop shows the last intact one.
        timeout_seconds: how long a clip may take to read before its file counts as unusable.
        sampling: clip takes neighbouring frames; segments one from each of num_frames equal parts (TSN).
        num_frames: frames in a clip.
        stride: distance between them, in frames of the video, or at the rate data.fps.
        fps: frames a second that videos are treated as having; null takes each video's own.
        short_videos: a video shorter than a clip is looped, or padded with its last frame.
        clips_per_visit: random clips taken from a video each time it is read, side by side in the batch.
        short_side: pixels; videos are scaled to it while decoding.
        size: pixels, height and width of the network's input.
        mean: of red, green, blue, in units of the full range.
        std: of red, green, blue, in units of the full range.
        num_workers: processes that read videos; 0 reads in the main process. Images are in memory, and need none.
        on_device: images: hold all of them on the device that computes, as uint8.
        max_bad_videos: how many files may be unusable before the run stops; each is named and counted.
    """

    recipe: str = "motion"
    root: str = "data/motion"
    groups: str | None = None
    annotations: str | None = None
    manifest: str | None = None
    split: int = 1
    test_fraction: float = 0.2
    allow_outside: bool = False
    allow_leaks: bool = False
    decoder: Literal["pyav", "torchcodec"] = "pyav"
    corrupt_frames: Literal["keep", "drop"] = "keep"
    timeout_seconds: float = 60.0
    sampling: Literal["clip", "segments"] = "clip"
    num_frames: int = 16
    stride: int = 2
    fps: float | None = None
    short_videos: Literal["loop", "pad"] = "loop"
    clips_per_visit: int = 1
    short_side: int = 128
    size: int = 112
    mean: tuple[float, float, float] = (0.432, 0.395, 0.376)
    std: tuple[float, float, float] = (0.228, 0.221, 0.217)
    num_workers: int = 2
    on_device: bool = False
    max_bad_videos: int = 20

    def __post_init__(self) -> None:
        for name in ("num_frames", "stride", "clips_per_visit", "short_side", "size"):
            _at_least(f"data.{name}", getattr(self, name), 1)
        for name in ("num_workers", "max_bad_videos"):
            _at_least(f"data.{name}", getattr(self, name), 0)
        _between("data.test_fraction", self.test_fraction, 0.0, 1.0)
        _above("data.timeout_seconds", self.timeout_seconds)
        _above("data.fps", self.fps)
        if self.decoder == "torchcodec" and self.corrupt_frames == "drop":
            raise InputError("data.corrupt_frames drop is not possible with data.decoder torchcodec")
        if self.decoder == "torchcodec" and self.timeout_seconds != 60:
            raise InputError("data.timeout_seconds has no effect with data.decoder torchcodec")
        if self.sampling == "segments" and self.fps is not None:
            raise InputError("data.fps has no effect with data.sampling segments: choose one")
        for value in self.std:
            _above("data.std", value)
        if self.size > self.short_side:
            raise InputError(f"data.size must not exceed data.short_side, got {self.size} > {self.short_side}")


@dataclass(frozen=True)
class Augment:
    """What training changes in a clip; the same for all of its frames.

    Args:
        crop_scale: least and most share of the picture that is cut out and resized; null cuts without resizing.
        crop_padding: pixels of black around the picture before it is cut without resizing.
        flip: mirror half of the clips; null where the recipe says that a mirror image keeps its label.
        color_jitter: strength of brightness, contrast, saturation (0 … 1) and hue (0 … 0.5).
        rotation: degrees to either side that the picture is turned by; the corners become black.
        rand_augment: number of RandAugment's operations, and their magnitude of 0 … 30.
        erasing: probability that a rectangle is blackened.
        mixup: parameter of MixUp's Beta distribution; 0 for none.
        cutmix: the same of CutMix; with both, each batch has one of them.
    """

    crop_scale: tuple[float, float] | None = None
    crop_padding: int = 0
    flip: bool | None = None
    color_jitter: tuple[float, float, float, float] | None = None
    rotation: float = 0.0
    rand_augment: tuple[int, int] | None = None
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        _at_least("augment.crop_padding", self.crop_padding, 0)
        for name in ("mixup", "cutmix"):
            if getattr(self, name) != 0:
                _between(f"augment.{name}", getattr(self, name), 0.001, 1000.0)
        _between("augment.rotation", self.rotation, 0.0, 180.0)
        _between("augment.erasing", self.erasing, 0.0, 1.0)
        if self.rand_augment is not None:
            num_ops, magnitude = self.rand_augment
            _at_least("augment.rand_augment's number of operations", num_ops, 1)
            _between("augment.rand_augment's magnitude", magnitude, 0, 30)
        if self.color_jitter is not None:
            for strength, most in zip(self.color_jitter, (1.0, 1.0, 1.0, 0.5), strict=True):
                _between("augment.color_jitter", strength, 0.0, most)
        if self.crop_scale is not None:
            least, most = self.crop_scale
            if not 0 < least <= most <= 1:
                raise InputError(f"augment.crop_scale must satisfy 0 < least <= most <= 1, got {self.crop_scale}")
            if self.crop_padding:
                raise InputError("augment.crop_padding has no effect with augment.crop_scale: choose one")


@dataclass(frozen=True)
class Model:
    """Which network.

    Args:
        name: see `cbam3d list`.
        attention: mechanism in every block, see `cbam3d list`; none for a plain network, null for what the
            network is known with (cbam for cbam_cnn, else nothing).
        weights: file, folder of a run, name of torchvision's weights (KINETICS400_V1), or hf:owner/name; null for a
            fresh network.
        options: keyword arguments of the network, such as width.
        attention_options: keyword arguments of the mechanism, such as reduction, gates, or init (paper or identity;
            identity where weights are given, else paper).
    """

    name: str = "resnet18"
    attention: str | None = "cbam"
    weights: str | None = None
    options: Options = field(default_factory=dict)
    attention_options: Options = field(default_factory=dict)


@dataclass(frozen=True)
class Train:
    """How it learns.

    Args:
        epochs: passes over the training data.
        limit_batches: batches after which an epoch ends early; null for none.
        max_hours: hours after which the run stops with a checkpoint; null for none.
        early_stopping: scorings without a better score after which training ends; null for none.
        batch_size: clips (images) a step, over all processes.
        accumulate: parts in which a batch is computed, one after the other, to save memory.
        optimizer: sgd (with Nesterov momentum), adam, adamw, or a class of torch.optim.
        optimizer_options: further keyword arguments of that class, such as betas.
        learning_rate: the highest learning rate.
        base_batch_size: the batch size that learning_rate is meant for, which is then scaled to batch_size; null
            takes it as it is.
        new_rate_factor: the learning rate of what pretrained weights did not give (attention, head), relative to
            the rest.
        momentum: momentum of sgd.
        weight_decay: decay of weights; norms and biases have none.
        freeze: parameters that do not learn, as patterns of their names: ["stem.*", "layer1.*"]. What pretrained
            weights did not give (attention, head) learns, unless a pattern fits nothing else: ["*.attention.*"].
        schedule: cosine, one_cycle, multi_step, plateau (of the held-out loss) or constant.
        warmup_epochs: epochs over which the learning rate rises to its highest; fractions are allowed.
        milestones: epochs at which multi_step multiplies the learning rate by gamma.
        gamma: factor by which multi_step and plateau lower the learning rate.
        patience: scorings without a lower loss after which plateau lowers the learning rate.
        label_smoothing: share of a label that is spread over all classes, 0 … 1.
        clip_grad_norm: largest norm of the whole gradient; null for no limit.
        ema: decay a step of a moving average of the weights, above 0 and below 1, which is then what is scored; null
            for none.
        max_bad_steps: steps to skip whose loss or gradient is not finite, before another one stops the run.
        checkpoint_minutes: minutes between two checkpoints within an epoch.
        log_every: steps between two rows of steps.csv.
    """

    epochs: int = 50
    limit_batches: int | None = None
    max_hours: float | None = None
    early_stopping: int | None = None
    batch_size: int = 16
    accumulate: int = 1
    optimizer: str = "sgd"
    optimizer_options: Options = field(default_factory=dict)
    learning_rate: float = 0.01
    base_batch_size: int | None = None
    new_rate_factor: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    freeze: list[str] = field(default_factory=list)
    schedule: Literal["cosine", "one_cycle", "multi_step", "plateau", "constant"] = "cosine"
    warmup_epochs: float = 1.0
    milestones: list[float] = field(default_factory=list)
    gamma: float = 0.1
    patience: int = 3
    label_smoothing: float = 0.0
    clip_grad_norm: float | None = None
    ema: float | None = None
    max_bad_steps: int = 0
    checkpoint_minutes: float = 15.0
    log_every: int = 10

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "log_every"):
            _at_least(f"train.{name}", getattr(self, name), 1)
        for name in ("limit_batches", "early_stopping", "base_batch_size"):
            if getattr(self, name) is not None:
                _at_least(f"train.{name}", getattr(self, name), 1)
        for name in ("learning_rate", "weight_decay", "warmup_epochs", "patience", "max_bad_steps", "new_rate_factor"):
            _at_least(f"train.{name}", getattr(self, name), 0)
        for name in ("max_hours", "clip_grad_norm", "checkpoint_minutes", "gamma"):
            _above(f"train.{name}", getattr(self, name))
        for milestone in self.milestones:
            _at_least("train.milestones", milestone, 0)
        _between("train.momentum", self.momentum, 0.0, 1.0)
        _between("train.label_smoothing", self.label_smoothing, 0.0, 1.0)
        if self.ema is not None and not 0 < self.ema < 1:
            raise InputError(f"train.ema must be above 0 and below 1, got {self.ema}")
        if (self.schedule == "multi_step") != bool(self.milestones):
            raise InputError("train.milestones belongs to train.schedule multi_step: give both or none")
        if self.schedule == "one_cycle" and not 0 < self.warmup_epochs < self.epochs:
            raise InputError("train.warmup_epochs must be above 0 and below train.epochs for train.schedule one_cycle")


@dataclass(frozen=True)
class Eval:
    """How held-out videos are scored: softmax averaged over clips.

    Args:
        num_clips: clips a video, spread evenly over its length.
        num_crops: squares a clip: 1 at the centre, or 3 along the longer side. Each counts as a clip of its own.
        flip: score each of these a second time mirrored, as a clip of its own.
        batch_size: clips (images) a forward pass and process.
        every_epochs: score after so many epochs, and after the last.
        frame_order: natural; or, to see whether a network needs the order of the frames, shuffled, or
            repeated (the clip's middle frame in place of all).
    """

    num_clips: int = 1
    num_crops: Literal[1, 3] = 1
    flip: bool = False
    batch_size: int = 32
    every_epochs: int = 1
    frame_order: Literal["natural", "shuffled", "repeated"] = "natural"

    def __post_init__(self) -> None:
        for name in ("num_clips", "batch_size", "every_epochs"):
            _at_least(f"eval.{name}", getattr(self, name), 1)


@dataclass(frozen=True)
class Config:
    """Everything a run needs; `config.yaml` in the run's folder holds it in full."""

    run: Run = field(default_factory=Run)
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    model: Model = field(default_factory=Model)
    train: Train = field(default_factory=Train)
    eval: Eval = field(default_factory=Eval)


def _at_least(key: str, value: float, least: float) -> None:
    if not least <= value < math.inf:
        raise InputError(f"{key} must be at least {least}, got {value}")


def _above(key: str, value: float | None) -> None:
    """None is no limit, and passes."""
    if value is not None and not 0 < value < math.inf:
        raise InputError(f"{key} must be above 0, got {value}")


def _between(key: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise InputError(f"{key} must be between {least} and {most}, got {value}")
