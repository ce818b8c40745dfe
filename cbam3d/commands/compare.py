"""`cbam3d compare`: one recipe trained with each of several mechanisms and seeds -> one table."""

import re
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import yaml
from rich.console import Console

from cbam3d.assemble import create_fabric, plain
from cbam3d.attention import attention_options
from cbam3d.commands.comparison import measure, tell
from cbam3d.commands.devices import environments
from cbam3d.config import Config
from cbam3d.console import speaker
from cbam3d.data.manifest import write_manifest
from cbam3d.engine.checkpoint import changed_keys
from cbam3d.errors import InputError, check_options
from cbam3d.outputs import make_folder
from cbam3d.parsing import CommandParser, parse_config
from cbam3d.sources import open_source, with_manifest_of


@dataclass(frozen=True)
class Variant:
    """A mechanism with options, and the word that asked for both: `cbam(gates=[channel, spatial])`."""

    word: str
    name: str
    options: dict[str, Any]

    @property
    def slug(self) -> str:
        """The word as the name of a folder."""
        return re.sub(r"[^\w.]+", "-", self.word).strip("-")

    def config(self, base: Config) -> Config:
        """The recipe with this mechanism; of the recipe's own options of attention, it takes those that it has."""
        known = set() if self.name == "none" else set(attention_options(self.name))
        kept = {key: value for key, value in base.model.attention_options.items() if key in known}
        model = replace(base.model, attention=self.name, attention_options=kept | self.options)
        return replace(base, model=model)


@dataclass(frozen=True)
class Run:
    """One training: a mechanism, a seed, and where it lives."""

    variant: Variant
    seed: int
    folder: Path
    config: Config

    @property
    def done(self) -> bool:
        return (self.folder / "metrics.json").is_file() and (self.folder / "predictions.csv").is_file()


def compare(arguments: list[str]) -> None:
    """Train one recipe with each mechanism and seed, one after another or one a GPU, and say which differences are
    more than noise. When broken off, the same command goes on where it stopped."""
    base, variants, given = _parse(arguments)
    console, out = speaker(), Path(given.out)
    make_folder(out)
    # what is wrong with the data is said now; scans and downloads happen once, and every run has the same videos
    source = open_source(with_manifest_of(out, base), console)
    if source.manifest is not None:
        write_manifest(source.manifest, out / "manifest.csv")
        base = with_manifest_of(out, base)
    images, num_classes = source.images, len(source.classes)
    del source  # images fill the memory
    seeds = range(base.run.seed, base.run.seed + given.seeds)
    runs = [_run(variant, seed, base, out) for variant in variants for seed in seeds]
    for run in runs:
        _refuse_other(run)
    failures = _train_all([run for run in runs if not run.done], given.jobs, console)
    whole = [variant for variant in variants if all(run.done for run in runs if run.variant == variant)]
    if variants[0] in whole and len(whole) > 1:
        folders = {v.word: [run.folder for run in runs if run.variant == v] for v in whole}
        configs = {v.word: v.config(base) for v in whole}
        rows, heading = measure(create_fabric(base), folders, configs, num_classes, images)
        tell(rows, heading, "top1" if images else "video_top1", out, console)
    if failures:
        raise InputError(f"compare: {len(failures)} of {len(runs)} runs did not end, the first: {failures[0]}")


def parser() -> CommandParser:
    """The options of the command that are no keys of a configuration."""
    command = CommandParser("compare", compare.__doc__, takes_keys=True)
    command.add_argument("config", metavar="CONFIG", help="a configuration; it comes first")
    command.add_argument(
        "--attention",
        required=True,
        metavar="none,se,…",
        help="mechanisms, with options in brackets if need be: 'none,se,cbam(gates=[channel, spatial])'; "
        "the others are compared with the first",
    )
    command.add_argument("--seeds", type=int, default=3, help="how many, from run.seed on (default: 3)")
    command.add_argument("--out", help="folder of the runs and the table (default: runs/compare-CONFIG)")
    command.add_argument("--jobs", type=int, help="runs at a time (default: as many as GPUs, else 1)")
    return command


def _parse(arguments: list[str]) -> tuple[Config, list[Variant], Namespace]:
    if parser().parse_known_args(arguments)[0].config != arguments[0]:
        raise InputError("compare: the configuration comes first: cbam3d compare motion --attention none,cbam")
    base, path, given = parse_config(arguments, parser())
    if base.run.dir is not None:
        raise InputError("compare: --out takes the place of run.dir")
    for name in ("seeds", "jobs"):
        if (value := getattr(given, name)) is not None and value < 1:
            raise InputError(f"compare: --{name} must be at least 1, got {value}")
    given.out = given.out or f"runs/compare-{path.stem}"
    return base, parse_variants(given.attention), given


def parse_variants(text: str) -> list[Variant]:
    """`none,se,cbam(gates=[channel, spatial], reduction=8)` -> variants.

    Raises:
        InputError: an unknown mechanism or option, a value that is no YAML, fewer than two, or one twice.
    """
    variants = []
    for word in _split(text):
        match = re.fullmatch(r"(\w+)(?:\((.*)\))?", word)
        if match is None:
            raise InputError(f"compare: expected a mechanism such as se or cbam(reduction=8), got {word!r}")
        name, inside = match[1], match[2] or ""
        options: dict[str, Any] = {}
        for part in _split(inside):
            key, is_option, value = part.partition("=")
            if not is_option:
                raise InputError(f"compare: {word}: expected option=value, got {part!r}")
            try:
                options[key.strip()] = yaml.safe_load(value)
            except yaml.YAMLError:
                raise InputError(f"compare: {word}: cannot read the value {value!r}") from None
        try:
            check_options(name, options, {} if name == "none" else attention_options(name))
        except ValueError as error:
            raise InputError(f"compare: {error}") from None
        variants.append(Variant(word, name, options))
    slugs = [variant.slug for variant in variants]
    if len(variants) < 2 or len(set(slugs)) < len(slugs):
        raise InputError(f"compare: --attention names at least two mechanisms, each once, got {text!r}")
    return variants


def _split(text: str) -> list[str]:
    """Parts between those commas that are in no brackets."""
    parts, depth, start = [], 0, 0
    for i, sign in enumerate(text):
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]


def _run(variant: Variant, seed: int, base: Config, out: Path) -> Run:
    folder = out / variant.slug / f"seed{seed}"
    config = variant.config(base)
    return Run(variant, seed, folder, replace(config, run=replace(config.run, seed=seed, dir=str(folder))))


def _refuse_other(run: Run) -> None:
    """Raise InputError where the folder holds a run of another recipe."""
    path = run.folder / "config.yaml"
    if path.is_file():
        changed = changed_keys(yaml.safe_load(path.read_text()), plain(run.config))
        for key in ("run.dir", "data.manifest"):  # the folder may have moved; it has one table
            changed.pop(key, None)
        if changed:
            key, (then, now) = next(iter(changed.items()))
            raise InputError(f"{run.folder} was begun with {key} {then}, now it is {now}; take another --out")


def _train_all(runs: list[Run], jobs: int | None, console: Console) -> list[str]:
    """Train each in a process of its own; what went wrong, a line a run. When this process is told to end, so are
    they, and leave their checkpoints."""
    free: SimpleQueue[dict[str, str]] = SimpleQueue()
    places = environments(jobs, runs[0].config.run) if runs else []
    for place in places:
        free.put(place)
    going: set[subprocess.Popen[bytes]] = set()
    ending = threading.Event()

    def train(run: Run) -> str | None:
        place = free.get()
        try:
            return None if ending.is_set() else _train(run, place, console, going)
        finally:
            free.put(place)

    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with ThreadPoolExecutor(max(1, len(places))) as pool:
            try:
                return [failure for failure in pool.map(train, runs) if failure]
            except BaseException:
                ending.set()
                for process in list(going):
                    process.terminate()
                raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _train(run: Run, environment: dict[str, str], console: Console, going: set[subprocess.Popen[bytes]]) -> str | None:
    """Train, or go on; what went wrong, or None. The process is in `going` as long as it lives."""
    make_folder(run.folder)
    recipe = run.folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(plain(run.config), sort_keys=False))
    command = [sys.executable, "-m", "cbam3d", "train", "--config", str(recipe)]
    if (run.folder / "checkpoints" / "last.ckpt").exists():
        command.append("--resume")
    begin, log = time.perf_counter(), run.folder / "log.txt"
    with open(log, "a") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        going.add(process)
        status = process.wait()
        going.remove(process)
    name = f"{run.variant.word}, seed {run.seed}"
    if status:
        last = (log.read_text().strip().splitlines() or [f"status {status}"])[-1]
        console.print(f"{name}: {last}", style="red")
        return f"{name} ({last}; all in {log})"
    console.print(f"{name}: trained in {time.perf_counter() - begin:.0f} s")
    return None
