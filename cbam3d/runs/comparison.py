"""One recipe trained with each of several mechanisms, heads, or values of any keys, and seeds -> one table."""

import ctypes
import logging
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from cbam3d.attention.catalog import mechanisms
from cbam3d.attention.heads.catalog import heads as known_heads
from cbam3d.config import Config, ConfigSource, load_config
from cbam3d.config.reading import name_of, write_config
from cbam3d.data.manifest import TABLE_NAME, write_manifest
from cbam3d.engine.checkpoint import changed_keys, checkpoint_path
from cbam3d.engine.stop import exits_on_sigterm
from cbam3d.errors import InputError
from cbam3d.files import make_folder
from cbam3d.models.repository import METRICS
from cbam3d.models.zoo import is_local_model
from cbam3d.runs.cluster import Cluster, cluster_of
from cbam3d.runs.comparison_table import Comparison, measure, write_comparison
from cbam3d.runs.data import as_decided, open_source
from cbam3d.runs.hardware import precision_of, with_precision
from cbam3d.runs.own_input import with_own_input
from cbam3d.runs.processes import environments
from cbam3d.runs.table import with_manifest_of
from cbam3d.runs.variants import OF_ITEMS, Variant, read_choices

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """One training: a variant, a seed, and where it lives."""

    variant: Variant
    seed: int
    folder: Path
    config: Config

    @property
    def name(self) -> str:
        return f"{self.variant.word}, seed {self.seed}"

    @property
    def done(self) -> bool:
        return (self.folder / METRICS).is_file() and (self.folder / "predictions.csv").is_file()


def compare(
    config: ConfigSource,
    attentions: str | Sequence[str] | None = None,
    *,
    heads: str | Sequence[str] | None = None,
    variants: str | Path | Mapping[str, Mapping[str, Any]] | None = None,
    seeds: int = 3,
    out: str | Path | None = None,
    jobs: int | None = None,
    engine: str = "local",
) -> Comparison:
    """Train one recipe with each mechanism (or head, or values of any keys) and seed, each training in a process of
    its own, and report which differences are beyond noise. When interrupted, the same call resumes.

    Args:
        config: the recipe, as of `train`.
        attentions: mechanisms, with options in brackets if need be: ["none", "se", "cbam(gates=[channel, spatial])"],
            or the same as one text with commas. The others are compared with the first.
        heads: in place of mechanisms, heads: ["mean", "gltr(dim=64)"].
        variants: in place of mechanisms, names with keys: {"plain": {}, "mixup": {"augment.mixup": 0.4}}; or the path
            of a YAML file of the same. Keys that decide which items are trained and scored are the recipe's.
        seeds: how many, from `run.seed` on.
        out: folder of the runs and of `comparison.md`, `.csv` and `.png`; None for runs/compare-NAME.
        jobs: trainings at a time; None for as many as GPUs, else 1.
        engine: local trains on this machine; ray on the Ray cluster that there is, or else on this machine.

    Raises:
        InputError: an unknown mechanism, option or key, fewer than two, mechanisms and heads at once, data that is not
            there, a folder with runs of another recipe, or trainings that failed; the others' comparison is written
            all the same.

    Examples:
        >>> import cbam3d
        >>> recipe = {"config": "folder", "data.root": "videos", "train.epochs": 1}
        >>> found = cbam3d.compare(recipe, ["none", "se"], seeds=1, out="runs/compared")
        >>> [row.name for row in found.rows]
        ['none', 'se']
    """
    base = load_config(config)
    base = with_precision(base, precision_of(base))  # the same for every variant
    part, choices = read_choices(attentions, heads, variants, base)
    if base.run.dir is not None:
        raise InputError("compare: --out takes the place of run.dir")
    for name, value in (("seeds", seeds), ("jobs", jobs)):
        if value is not None and value < 1:
            raise InputError(f"compare: {name} must be at least 1, got {value}")
    _refuse_local(choices, base)
    folder = make_folder(f"runs/compare-{name_of(config)}" if out is None else out)
    _refuse_other_data(folder, base)
    base, images, num_classes = _with_shared_data(base, folder)
    numbers = range(base.run.seed, base.run.seed + seeds)
    trainings = [_training(choice, seed, base, folder) for choice in choices for seed in numbers]
    for training in trainings:
        _refuse_other(training)
    todo = [training for training in trainings if not training.done]
    with cluster_of(engine) as cluster:
        failures = _train_all(todo, jobs) if cluster is None else _train_on(cluster, todo, jobs)
    of = {choice.word: [training for training in trainings if training.variant == choice] for choice in choices}
    folders = {word: [one.folder for one in group] for word, group in of.items() if all(one.done for one in group)}
    compared = None
    if choices[0].word in folders and len(folders) > 1:
        configs = {choice.word: _config(choice, base) for choice in choices}
        compared = measure(folders, configs, num_classes, images, part)
        write_comparison(folder, compared)
    if failures or compared is None:
        text = f"{len(failures)} of {len(trainings)} runs did not end, the first: {failures[0]}"
        raise IncompleteComparison(text, compared)
    return compared


class IncompleteComparison(InputError):
    """Trainings that failed; `compared` has the others, where they suffice."""

    def __init__(self, text: str, compared: Comparison | None) -> None:
        super().__init__(f"compare: {text}")
        self.compared = compared


def _with_shared_data(base: Config, folder: Path) -> tuple[Config, bool, int]:
    """The recipe with what all trainings share: the table of the videos, and the features of a frozen network. Errors
    in the data are raised now, and scans and downloads happen once.

    Returns: the recipe, whether its items are images, and the number of classes.
    """
    source = open_source(with_manifest_of(folder, base))
    if source.manifest is not None:
        if not (folder / TABLE_NAME).is_file():
            write_config(base, folder / "recipe.yaml")
        write_manifest(source.manifest, folder / TABLE_NAME)
        base = with_manifest_of(folder, base)
    base = as_decided(base, source)
    if base.train.cached_views and base.train.cache is None:
        base = base.override({"train": {"cache": str(folder / "features")}})
    return base, source.images, len(source.classes)


def _training(variant: Variant, seed: int, base: Config, out: Path) -> Training:
    folder = out / variant.slug / f"seed{seed}"
    config = _config(variant, base).override({"run": {"seed": seed, "dir": str(folder)}})
    return Training(variant, seed, folder, config)


def _config(variant: Variant, base: Config) -> Config:
    """The recipe of a variant, with the precision that it finds here."""
    config = variant.config(base)
    return with_precision(config, precision_of(config))


def _refuse_local(choices: Sequence[Variant], base: Config) -> None:
    """Raise InputError for a network, a mechanism or a head that other processes do not know."""
    for choice in choices:
        model = choice.config(base).model
        parts = (("network", model.name, is_local_model), ("attention", model.attention, mechanisms.is_local))
        for what, name, is_local in (*parts, ("head", model.head, known_heads.is_local)):
            if name is not None and is_local(name):
                raise InputError(
                    f"compare: the {what} {name} is known in this process only, each training has its own: "
                    "name a class as package.module:Class, or make it a plugin"
                )


def _refuse_other_data(folder: Path, base: Config) -> None:
    """Raise InputError where the folder's trainings have other videos than are asked for."""
    path = folder / "recipe.yaml"
    if not path.is_file():
        return
    changed = changed_keys(load_config(path).plain(), base.plain())
    for key in OF_ITEMS:
        if key in changed:
            then, now = changed[key]
            raise InputError(f"compare: {folder} was begun with {key} {then}, now it is {now}; take another --out")


def _refuse_other(training: Training) -> None:
    """Raise InputError where the folder holds a run of another recipe."""
    path = training.folder / "config.yaml"
    if path.is_file():
        changed = changed_keys(load_config(path).plain(), with_own_input(training.config).plain())
        for key in ("run.dir", "data.manifest", "train.cache"):  # the folder may have moved; it has one of each
            changed.pop(key, None)
        for key in ("augment.flip", "train.loss"):  # decided when the run began
            if key in changed and changed[key][1] is None:
                del changed[key]
        if changed:
            key, (then, now) = next(iter(changed.items()))
            raise InputError(f"{training.folder} was begun with {key} {then}, now it is {now}; take another --out")


class _Processes:
    """Processes that end together.

    Args:
        begin: called in each of them.
    """

    def __init__(self, begin: Callable[[], None] | None = None) -> None:
        self.begin, self.ended = begin, False
        self.going: set[subprocess.Popen[Any]] = set()
        self.lock = threading.Lock()

    def run(self, command: list[str], **options: Any) -> int | None:
        """Run a process to its end, and return its status; None, and no process, once they have to end."""
        with self.lock:
            if self.ended:
                return None
            process = subprocess.Popen(command, preexec_fn=self.begin, **options)
            self.going.add(process)
        status = process.wait()
        with self.lock:
            self.going.remove(process)
        return status

    def end(self) -> None:
        """Terminate those that run, and start no other."""
        with self.lock:
            self.ended = True
            for process in self.going:
                process.terminate()


def _train_all(trainings: list[Training], jobs: int | None) -> list[str]:
    """Train each in a process of its own; returns one line per failure. When this process is terminated, so are they,
    with their checkpoints written."""
    free: SimpleQueue[dict[str, str]] = SimpleQueue()
    slots = environments(jobs, trainings[0].config.run) if trainings else []
    for slot in slots:
        free.put(slot)
    processes = _Processes()

    def train(training: Training) -> str | None:
        slot = free.get()
        try:
            return _train(training, slot, processes)
        finally:
            free.put(slot)

    with exits_on_sigterm(), ThreadPoolExecutor(max(1, len(slots))) as pool:
        try:
            return [failure for failure in pool.map(train, trainings) if failure]
        except BaseException:
            processes.end()
            raise


def _train_on(cluster: Cluster, trainings: list[Training], jobs: int | None) -> list[str]:
    """The same on a cluster, each on a GPU, or on the cores of a machine."""
    if not trainings:
        return []
    run = trainings[0].config.run
    on_gpu = cluster.gpus_of_node > 0 and run.accelerator in ("auto", "gpu", "cuda")
    if on_gpu and run.devices > cluster.gpus_of_node:
        raise InputError(f"run.devices {run.devices}: a machine of the cluster has {cluster.gpus_of_node} GPUs at most")
    gpus, cpus = (run.devices, 1) if on_gpu else (0, cluster.cpus_of_node)
    parts = [[training] for training in trainings]
    failures = []
    for part in cluster(_train_there, os.getcwd(), parts, cpus, gpus, jobs):
        for training, done in part:
            if (failure := "its process was killed" if done is None else done[0]) is not None:
                failures.append(f"{training.name}: {failure}" if done is None else failure)
    return failures


def _train_there(folder: str, trainings: list[Training]) -> list[tuple[str | None]]:
    """Train in a process of this machine, which ends with this one."""
    try:
        os.chdir(folder)
    except OSError:
        raise InputError(f"compare: {folder} is not there on {platform.node()}") from None
    return [(_train(training, dict(os.environ), _Processes(_end_with_parent)),) for training in trainings]


def _end_with_parent() -> None:
    """Called in a new process: SIGTERM when the one that started it ends, however that happens. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _train(
    training: Training,
    environment: dict[str, str],
    processes: "_Processes",
) -> str | None:
    """Train, or resume; returns the reason of a failure, or None."""
    make_folder(training.folder)
    recipe = training.folder / "recipe.yaml"
    write_config(training.config, recipe)
    command = [sys.executable, "-m", "cbam3d", "train", "--config", str(recipe)]
    if checkpoint_path(training.folder).exists():
        command.append("--resume")
    begin, log = time.perf_counter(), training.folder / "log.txt"
    with open(log, "a") as file:
        status = processes.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    name = training.name
    if status is None:
        return None
    if status:
        last = (log.read_text(errors="replace").strip().splitlines() or [f"status {status}"])[-1]
        logger.error(f"{name}: {last}")
        return f"{name} ({last}; all in {log})"
    if not training.done:
        return f"{name} stopped before its end (train.max_hours): the same call resumes it"
    logger.info(f"{name}: trained in {time.perf_counter() - begin:.0f} s")
    return None
