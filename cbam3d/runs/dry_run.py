"""Would a configuration train, and what would it take?"""

import time
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from torch import nn
from tqdm import tqdm

from cbam3d.config import ConfigSource, load_config
from cbam3d.engine.memory import peak_memory_gib
from cbam3d.engine.records import SkippedFiles
from cbam3d.runs.cost import multiply_adds
from cbam3d.runs.data import as_decided, open_source
from cbam3d.runs.feature_cache import headed
from cbam3d.runs.network import check_names, count_parameters
from cbam3d.runs.own_input import with_own_input
from cbam3d.runs.processes import by_first_process, create_fabric
from cbam3d.runs.trainer import create_trainer


def dry_run(config: ConfigSource) -> dict[str, str]:
    """Build everything, try two batches of training and one of scoring, and keep nothing.

    Args:
        config: as of `train`.

    Returns: what the run will take, in words.

    Raises:
        InputError: what `train` would refuse.
    """
    settings = load_config(config)
    check_names(settings)
    settings = with_own_input(settings)
    fabric, settings = create_fabric(settings)
    source = by_first_process(fabric, lambda: open_source(settings))
    settings = as_decided(settings, source)
    with TemporaryDirectory() as folder:
        place, limit = Path(folder) / "skipped.csv", settings.data.max_bad_videos
        skipped = SkippedFiles(place, limit, fabric.is_global_zero, keeps=False)
        tried = settings.override({"train": {"cached_views": 0}})  # which would compute all features
        trainer, test_loader = create_trainer(tried, source, fabric, Path(folder), skipped)
        if settings.train.cached_views:
            headed(settings, cast(nn.Module, trainer.model.module))
        batches, rate = iter(trainer.loader), trainer.schedule.learning_rate
        batch = next(batches)
        trainer.step(batch)
        trainer.read(everything=True)
        loss, begin = trainer.last_loss, time.perf_counter()  # the first step prepared what all have
        trainer.step(next(batches, batch))
        trainer.read(everything=True)
        seconds = time.perf_counter() - begin
        evaluation = trainer.score(islice(test_loader, 1))
    model = trainer.model
    passes = settings.train.cached_views or settings.train.epochs  # through the whole network
    return {
        "input of a step": " x ".join(map(str, batch.inputs.shape)),
        "parameters": f"{count_parameters(model):,}, of which {count_parameters(model, trained=True):,} are trained",
        "multiply-adds a clip": f"{multiply_adds(model, batch.inputs[:1]) / 1e9:.2f} G",
        "peak memory": f"{peak_memory_gib(fabric.device):.2f} GiB",
        "steps an epoch": f"{len(trainer.loader):,}",
        "steps in all": f"{len(trainer.loader) * settings.train.epochs:,}",
        "time of training, about": tqdm.format_interval(seconds * len(trainer.loader) * passes),
        "learning rate of the first step": f"{rate:.3g}",
        "loss of the first step": f"{loss:.3f}",
        "scored": ", ".join(f"{count} {name.removeprefix('num_')}" for name, count in evaluation.counts.items()),
    }
