"""The whole configuration on one page: every key of a YAML file and of the command line is a field here.

A field holds all that is known of its key: type, bounds, choices, default, meaning, and whether a resumed run may
change it (`Fixed`). Help, error messages, the JSON schema and docs/CONFIGURATION.md are made from it.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, Strict, model_validator

from cbam3d.config.section import (
    BetaParameter,
    Count,
    CountOrZero,
    Fixed,
    Integer,
    NonNegative,
    Number,
    PathText,
    Positive,
    Section,
    Share,
    Switch,
    plain,
    unknown_key,
)
from cbam3d.errors import InputError

Options = Annotated[dict[str, Any], AfterValidator(plain)]


class RunConfig(Section):
    """Where and on what a run happens."""

    dir: PathText | None = None
    """Folder of the run; null for runs/ and the configuration's name, numbered where that exists."""
    seed: Fixed[Annotated[int, Strict(), Field(ge=0, le=2**32 - 1)]] = 0
    """Seed that everything random follows from."""
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    """Kind of device."""
    devices: Count = 1
    """Number of processes, one per device."""
    strategy: Literal["replicate", "shard"] = "replicate"
    """What several processes do with the network: each has a replica (DDP), or a part of the weights, the gradients and
    the optimizer's state (FSDP), for networks that do not fit otherwise."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Floating-point precision of the forward and backward pass; auto is bf16-mixed where the hardware computes
    bfloat16 natively, and 32-true elsewhere and on a CPU for a network with grouped convolutions."""
    compile: Switch = False
    """Compile the network with torch.compile."""
    channels_last: Switch | None = False
    """Keep feature maps in channels-last memory format, faster on most GPUs; null: with every precision but 32-true."""
    sync_batchnorm: Switch = False
    """Synchronize BatchNorm over all processes; needs GPUs."""
    wandb: str | None = None
    """Project of Weights & Biases to report to (an extra); null for none."""


class DataConfig(Section):
    """Which files, and which part of them the network sees."""

    recipe: Fixed[str] = "motion"
    """Name of a folder in datasets/, or path of a folder with a recipe.yaml."""
    root: PathText = "data/motion"
    """Folder of the data."""
    groups: Fixed[PathText | None] = None
    """CSV with the columns path and group (and label, split). A split never divides a group, except by the column
    split."""
    annotations: PathText | None = None
    """The data set's own annotation files: their folder, or one of them; null looks for them in the
    root, or else in the folders in it."""
    manifest: PathText | None = None
    """CSV written by `cbam3d prepare`; null for ROOT/manifest.csv where it exists, else the folder is scanned."""
    split: Fixed[Integer] = 1
    """Number of the recipe's split."""
    test_fraction: Fixed[Share] = 0.2
    """Share held out where neither the recipe nor the folders define a split."""
    allow_outside: Switch = False
    """Follow links, and paths of a manifest, that lead out of the root."""
    allow_leaks: Switch = False
    """Accept groups with videos in both training and held-out data; an error otherwise."""
    decoder: Literal["pyav", "torchcodec"] = "pyav"
    """Decoder of videos; torchcodec is an extra, and does not read AVI."""
    corrupt_frames: Literal["keep", "drop"] = "keep"
    """Frames that the decoder marks as corrupt: keep shows them, drop repeats the last intact frame. In copies by
    prepare none is marked."""
    timeout_seconds: Positive = 60.0
    """Maximum time to read a clip, after which its file counts as unusable."""
    sampling: Fixed[Literal["clip", "segments"]] = "clip"
    """clip takes neighbouring frames; segments takes one frame from each of num_frames equal parts (TSN)."""
    num_frames: Count = 16
    """Frames per clip."""
    stride: Count = 2
    """Distance between the frames of a clip, in frames of the video, or at the rate data.fps."""
    fps: Positive | None = None
    """Frame rate that videos are resampled to; null for each video's own rate."""
    cache: PathText | None = None
    """Folder that keeps what is read of remote files, shared by processes; null for cbam3d in XDG_CACHE_HOME or
    ~/.cache."""
    cache_gib: NonNegative = 10.0
    """How much it keeps, GiB; 0 keeps nothing."""
    short_videos: Literal["loop", "pad"] = "loop"
    """A video shorter than a clip is looped, or padded with its last frame."""
    balance: Fixed[Share] = 0.0
    """How far an epoch evens out its classes, at the same number of samples: 0 visits each sample once, 1 each class
    equally often."""
    background: Fixed[Share] = 0.0
    """Share of the training samples that show what lies between the parts of videos, where nothing that is listed
    happens: samples of the class background, or without a label where there may be several. 0 takes none."""
    reach: Fixed[Annotated[float, Strict(), Field(ge=0, le=0.5)]] = 0.0
    """How far clips for training may reach beyond their part of a video, on either side, as a share of a clip: with 0.5
    a clip has the label of its middle, as is needed to find events. 0 stays within the part. For data.sampling clip."""
    clips_per_visit: Fixed[Count] = 1
    """Random clips taken from a video each time it is read, side by side in the batch."""
    short_side: Count = 128
    """Pixels; videos are scaled to it while decoding."""
    size: Count | tuple[Count, Count] = 112
    """Pixels of the network's input: of a square, or height and width."""
    mean: tuple[Number, Number, Number] | None = None
    """Mean of red, green and blue, in units of the full range; null for that of the pretrained weights, where it is
    known (ImageNet's, of a file of an image network that is inflated), else 0.432, 0.395, 0.376 (of Kinetics)."""
    std: tuple[Positive, Positive, Positive] | None = None
    """Standard deviation of red, green and blue, in units of the full range; null as for mean, else 0.228, 0.221,
    0.217."""
    num_workers: CountOrZero = 2
    """Processes that read videos; 0 reads in the main process. Images are held in memory and need none."""
    on_device: Switch = False
    """Images: hold all of them on the device, as uint8."""
    max_bad_videos: CountOrZero = 20
    """Maximum number of unusable files before the run stops; each is reported and counted."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.decoder == "torchcodec" and self.corrupt_frames == "drop":
            raise InputError("data.corrupt_frames drop is not possible with data.decoder torchcodec")
        if self.decoder == "torchcodec" and self.timeout_seconds != 60:
            raise InputError("data.timeout_seconds has no effect with data.decoder torchcodec")
        if self.sampling == "segments" and self.reach:
            raise InputError("data.reach has no effect with data.sampling segments: choose one")
        if self.sampling == "segments" and self.fps is not None:
            raise InputError("data.fps has no effect with data.sampling segments: choose one")
        if min(self.sides) > self.short_side:
            raise InputError(f"data.size must not exceed data.short_side, got {min(self.sides)} > {self.short_side}")
        if (self.mean is None) != (self.std is None):
            raise InputError("data.mean and data.std belong together: give both or none")
        return self

    @property
    def scaling(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and standard deviation; those of Kinetics where none are set."""
        if self.mean is None or self.std is None:
            return (0.432, 0.395, 0.376), (0.228, 0.221, 0.217)
        return self.mean, self.std

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the network's input in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size


class AugmentConfig(Section):
    """Random transforms of the training data; all frames of a clip share their parameters."""

    crop_scale: tuple[Share, Share] | None = None
    """Minimum and maximum share of the picture's area that is cropped and resized; null crops without resizing."""
    crop_padding: CountOrZero = 0
    """Pixels of black padding before a crop without resizing."""
    flip: Switch | None = None
    """Mirror half of the clips; null does so where the recipe declares that a mirror image keeps its label."""
    color_jitter: tuple[Share, Share, Share, Annotated[float, Strict(), Field(ge=0, le=0.5)]] | None = None
    """Strength of brightness, contrast, saturation (0 to 1) and hue (0 to 0.5)."""
    rotation: Annotated[float, Strict(), Field(ge=0, le=180)] = 0.0
    """Maximum rotation to either side, in degrees; the corners become black."""
    rand_augment: tuple[Count, Annotated[int, Strict(), Field(ge=0, le=30)]] | None = None
    """RandAugment: number of operations, and their magnitude (0 to 30)."""
    erasing: Share = 0.0
    """Probability that a rectangle is erased."""
    mixup: BetaParameter = 0.0
    """MixUp: parameter of the Beta distribution, at least 0.001; 0 for none."""
    cutmix: BetaParameter = 0.0
    """CutMix: parameter of the Beta distribution, at least 0.001; 0 for none. With both, each batch has one of them."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("mixup", "cutmix"):
            if 0 < (value := getattr(self, name)) < 0.001:
                raise InputError(f"augment.{name} must be 0, or between 0.001 and 1000, got {value}")
        if self.crop_scale is not None:
            minimum, maximum = self.crop_scale
            if not 0 < minimum <= maximum:
                raise InputError(f"augment.crop_scale must satisfy 0 < minimum <= maximum <= 1, got {self.crop_scale}")
            if self.crop_padding:
                raise InputError("augment.crop_padding has no effect with augment.crop_scale: choose one")
        return self


class ModelConfig(Section):
    """The network."""

    name: Fixed[str] = "resnet18"
    """One of `cbam3d list`; any other network of timm (timm/NAME); one of the Hugging Face Hub for videos
    (hf/OWNER/NAME, extra transformers); or a class of your own as package.module:Class."""
    attention: Fixed[str | None] = "cbam"
    """Attention mechanism in every block, one of `cbam3d list`; none for a plain network, null for the network's
    default (cbam for cbam_cnn, none for the others)."""
    as_video: Fixed[Literal["frames", "differences", "inflate"] | None] = None
    """How an image network takes clips: frames runs it on every frame and averages the logits, differences likewise on
    what changes from frame to frame, inflate makes its layers three-dimensional; null for frames, and for the
    three-dimensional form of a network that has one."""
    head: Fixed[str | None] = None
    """What ends the network: mean, statistics (mean, deviation and change along time), attention (pooling with
    learned queries), csra, gltr, rstan, sta or stgcn; null for its own head."""
    head_options: Fixed[Options] = Field(default_factory=dict)
    """Keyword arguments of the head; and grid, the height and width that features are averaged to before it."""
    weights: PathText | None = None
    """Pretrained weights: a file; the folder of a run; a name of torchvision's weights (KINETICS400_V1); pretrained, or
    a tag, of timm's; pretrained for a network hf/…; or hf:owner/name. null for a fresh network."""
    weights_match: Literal["name", "order"] = "name"
    """How entries of the weights find their place: by name; or by order, for a file whose names differ and whose
    entries are the network's one after the other."""
    options: Fixed[Options] = Field(default_factory=dict)
    """Keyword arguments of the network, such as width."""
    attention_options: Fixed[Options] = Field(default_factory=dict)
    """Keyword arguments of the mechanism, such as reduction, gates, or init (paper or identity; the default is paper in
    a network of this package without pretrained weights, else identity)."""


class TrainConfig(Section):
    """How the network learns."""

    epochs: Count = 50
    """Number of epochs."""
    limit_batches: Fixed[Count | None] = None
    """Maximum number of batches per epoch; null for no limit."""
    max_hours: Positive | None = None
    """Hours after which the run stops with a checkpoint; null for no limit."""
    early_stopping: Count | None = None
    """Evaluations without a better score after which training ends; null for no limit."""
    batch_size: Fixed[Count] = 16
    """Clips (images) per step, over all processes."""
    accumulate: Count = 1
    """Parts in which a batch is computed, one after the other, to save memory."""
    optimizer: Fixed[str] = "sgd"
    """sgd (with Nesterov momentum), adam, adamw, or a class of torch.optim."""
    optimizer_options: Fixed[Options] = Field(default_factory=dict)
    """Further keyword arguments of that class, such as betas."""
    learning_rate: NonNegative = 0.01
    """Maximum learning rate."""
    base_batch_size: Count | None = None
    """Batch size that learning_rate is meant for; it is scaled linearly to batch_size. null does not scale."""
    new_rate_factor: Fixed[NonNegative] = 1.0
    """Learning rate of parameters that pretrained weights do not contain (attention, head), relative to the others."""
    momentum: Fixed[Share] = 0.9
    """Momentum of sgd."""
    weight_decay: Fixed[NonNegative] = 1e-4
    """Weight decay; norms and biases have none."""
    layer_decay: Fixed[Annotated[float, Strict(), Field(gt=0, le=1)]] = 1.0
    """Factor of the learning rate per layer, from the last pretrained layer, which has the full rate, to the first."""
    head_epochs: Fixed[CountOrZero] = 0
    """Epochs at the start in which only parameters are trained that pretrained weights do not contain."""
    freeze_norms: Fixed[Switch] = False
    """Keep the statistics, weights and biases of pretrained norms."""
    freeze: Fixed[list[str]] = Field(default_factory=list)
    """Parameters that are not trained, as patterns of their names: ["stem.*", "layer1.*"]. Parameters that pretrained
    weights do not contain (attention, head) are trained unless a pattern matches nothing else: ["*.attention.*"]."""
    cached_views: Fixed[CountOrZero] = 0
    """Compute the features before model.head once, of so many random views of each training item, and train the head on
    them; what is before the head must be frozen. 0 computes them anew in each step."""
    cache: PathText | None = None
    """Folder of these features, which runs can share; null for the folder of the run."""
    schedule: Fixed[Literal["cosine", "one_cycle", "multi_step", "plateau", "constant"]] = "cosine"
    """Learning-rate schedule; plateau follows the held-out loss."""
    warmup_epochs: NonNegative = 1.0
    """Epochs over which the learning rate rises to its maximum; fractions are allowed."""
    milestones: list[NonNegative] = Field(default_factory=list)
    """Epochs at which multi_step multiplies the learning rate by gamma."""
    gamma: Positive = 0.1
    """Factor of multi_step and plateau."""
    patience: CountOrZero = 3
    """Evaluations without a lower loss after which plateau lowers the learning rate."""
    loss: Fixed[Literal["cross_entropy", "bce"] | None] = None
    """cross_entropy, for one label an item; or bce, binary cross-entropy summed over the classes, for any number of
    labels an item. null is bce where the table has a column labels."""
    label_smoothing: Share = 0.0
    """Share of a label that is spread over all classes; with bce, between yes and no."""
    class_weights: Literal["balanced", "effective"] | list[NonNegative] | None = None
    """Weights of the classes in the loss: balanced is one over a class's number of samples, effective one over their
    effective number, a list has one for each class, in the order of their names; null weighs none. With bce they weigh
    a class where it holds: balanced by the ratio of the samples without it to those with it."""
    logit_adjustment: NonNegative = 0.0
    """Factor of the logarithm of a class's share, which is added to its logit in training: 1 trains for the mean
    accuracy of the classes."""
    clip_grad_norm: Positive | None = None
    """Maximum norm of the whole gradient; null for no limit."""
    ema: Fixed[Annotated[float, Strict(), Field(gt=0, lt=1)] | None] = None
    """Decay per step of a moving average of the weights, which is then what is evaluated; null for none."""
    max_bad_steps: CountOrZero = 0
    """Number of steps with a non-finite loss or gradient to skip before the run stops."""
    checkpoint_minutes: Positive = 15.0
    """Minutes between two checkpoints within an epoch."""
    log_every: Count = 10
    """Steps between two rows of steps.csv."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.schedule == "multi_step") != bool(self.milestones):
            raise InputError("train.milestones belongs to train.schedule multi_step: give both or none")
        if self.schedule == "one_cycle" and not 0 < self.warmup_epochs < self.epochs:
            raise InputError("train.warmup_epochs must be above 0 and below train.epochs for train.schedule one_cycle")
        return self


class EvalConfig(Section):
    """How held-out videos are scored: probabilities are averaged over the views of a video."""

    num_clips: Count = 1
    """Clips per video, spread evenly over its length."""
    num_crops: Literal[1, 3] = 1
    """Crops of data.size per clip: 1 at the centre, or 3 along the longer side. Each counts as a clip of its own."""
    flip: Switch | None = False
    """Score each of these a second time mirrored, as a clip of its own; null: where augment.flip is set."""
    batch_size: Count = 32
    """Clips (images) per forward pass and process."""
    every_epochs: Count = 1
    """Epochs between two evaluations; the last epoch is always evaluated."""
    events: Switch | None = None
    """Have `evaluate` find events in the whole held-out videos, and score them (segment mAP), which takes every event
    to be listed; null where data.background is set."""
    frame_order: Literal["natural", "shuffled", "repeated"] = "natural"
    """natural; or, to see whether a network uses the order of the frames, shuffled, or repeated (the clip's middle
    frame in place of all)."""


class Config(Section):
    """Everything a run needs; `config.yaml` in the run's folder holds it in full.

    Examples:
        >>> from cbam3d import load_config
        >>> config = load_config("probe").override({"train.epochs": 20, "data": {"size": 160}})
        >>> config.train.epochs, config.data.size
        (20, 160)
    """

    run: RunConfig = Field(default_factory=RunConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    eval: EvalConfig = Field(default_factory=EvalConfig)

    @property
    def scores_mirrored(self) -> bool:
        """Whether held-out videos are scored mirrored, too."""
        return bool(self.augment.flip if self.eval.flip is None else self.eval.flip)

    @property
    def classes_apart(self) -> bool:
        """Whether classes are decided apart, so that any number of them may hold."""
        return self.train.loss == "bce"

    @property
    def passes_together(self) -> bool:
        """Whether several processes wait for each other in every forward pass, of which each then takes as many."""
        return self.run.sync_batchnorm or self.run.strategy == "shard"

    def plain(self) -> dict[str, dict[str, Any]]:
        """The configuration as plain data, for YAML and checkpoints."""
        return plain(self.model_dump())

    def override(self, *changes: Mapping[str, Any]) -> "Config":
        """The configuration with other values, the last ones last.

        Args:
            changes: values by dotted key ("train.epochs", "model.options.width"), or sections of keys
                ({"train": {"epochs": 3}}).

        Raises:
            InputError: as the constructor does.
        """
        merged: dict[str, Any] = self.plain()
        for name, value in ((name, value) for values in changes for name, value in values.items()):
            section, _, key = str(name).partition(".")
            entries = {key: value} if key else value
            if not isinstance(entries, Mapping) or not isinstance(merged.setdefault(section, {}), dict):
                merged[section] = entries
                continue
            for key, entry in entries.items():
                *path, last = str(key).split(".")
                inner = merged[section]
                for name in path:
                    if not isinstance(inner.get(name), dict):
                        inner[name] = {}
                    inner = inner[name]
                inner[last] = deepcopy(entry)  # a later change goes into the copy
        names = self.key_names()
        for section, entries in merged.items():
            given = [f"{section}.{key}" for key in entries] if isinstance(entries, dict) else []
            for name in given or [section]:
                if name not in names and name not in Config.model_fields:
                    raise InputError(unknown_key(name, names))
        return Config(**merged)
