"""Device, precision and processes of a run."""

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn

from cbam3d.config import Config, RunConfig
from cbam3d.data.malloc import keep_freed_memory
from cbam3d.data.workers import num_cores
from cbam3d.engine.sharding import Sharded
from cbam3d.errors import InputError, Stopped, counted
from cbam3d.runs.hardware import precision_of, with_precision

T = TypeVar("T")
_PATIENCE = timedelta(hours=3)


def create_fabric(config: Config, network: nn.Module | None = None) -> tuple[Fabric, Config]:
    """Device, precision and processes, launched; torchrun and `fabric run` decide the number of processes.

    Args:
        config: of the run.
        network: in place of the one that the configuration names.

    Returns: the configuration, too, with what the hardware decides.

    Raises:
        InputError: a device that does not exist, or that refuses.
    """
    by_fabric_run = "LT_CLI_USED" in os.environ
    run, precision = config.run, config.run.precision if by_fabric_run else precision_of(config, network)
    options: dict[str, Any] = {"accelerator": run.accelerator, "precision": precision, "devices": run.devices}
    if by_fabric_run:  # it has options of its own, and refuses others than the defaults here
        options = {key: options[key] for key in ("accelerator", "precision") if options[key] not in ("auto", "32-true")}
    elif "LOCAL_WORLD_SIZE" in os.environ:  # torchrun
        options["devices"] = int(os.environ["LOCAL_WORLD_SIZE"])
        options["num_nodes"] = int(os.environ["WORLD_SIZE"]) // options["devices"]
    if run.strategy == "shard" and by_fabric_run:
        raise InputError("run.strategy shard: `fabric run` has strategies of its own; use run.devices, or torchrun")
    count = 1 if by_fabric_run else options["devices"] * options.get("num_nodes", 1)
    if count > 1:  # the others wait while the first reads the videos
        options["strategy"] = Sharded(count, _PATIENCE) if run.strategy == "shard" else DDPStrategy(timeout=_PATIENCE)
    main = sys.modules["__main__"]
    if run.devices > 1 and "LOCAL_RANK" not in os.environ and not hasattr(main, "__file__"):
        raise InputError(f"run.devices {run.devices}: several processes need a script, the command line, or torchrun")
    try:
        fabric = Fabric(**options)
        if not by_fabric_run:  # which has started the processes already
            fabric.launch()
    except Exception as error:  # Fabric names a missing device by exceptions of several kinds
        raise InputError(_no_such_device(run) or f"run.accelerator {run.accelerator}: {error}") from None
    if fabric.device.type == "cpu":
        keep_freed_memory()
    if fabric.device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # batches of a run have one shape
        if run.precision == "auto":
            torch.set_float32_matmul_precision("high")  # TF32, for what bfloat16 leaves out
    return fabric, with_precision(config, fabric.strategy.precision.precision)  # `fabric run` decides on its own


def _no_such_device(run: RunConfig) -> str:
    """What is asked for, what there is, and what to ask for instead; empty where that is not what is wrong."""
    asked, count = f"run.accelerator {run.accelerator}, run.devices {run.devices}", torch.cuda.device_count()
    if run.accelerator in ("gpu", "cuda") and run.devices > count:
        text = f"PyTorch {torch.__version__} sees {counted(count, 'CUDA device')} here"
        return f"{asked}: {text}; --run.devices {count}" if count else f"{asked}: {text}; --run.accelerator cpu"
    if run.accelerator == "mps" and not torch.backends.mps.is_available():
        return f"{asked}: there is no Apple GPU here; --run.accelerator cpu"
    return ""


def by_first_process(fabric: Fabric, make: Callable[[], T]) -> T:
    """What the first process makes, broadcast to all: each on its own might find other files.

    Raises:
        InputError: in the first process; the others stop silently.
    """
    if fabric.world_size == 1:
        return make()
    made, error = None, None
    if fabric.is_global_zero:
        try:
            made = make()
        except InputError as caught:
            error = caught
    made, failed = fabric.broadcast((made, error is not None))
    if failed:
        raise error or Stopped("", 2)
    return cast(T, made)


def environments(jobs: int | None, run: RunConfig) -> list[dict[str, str]]:
    """The environment of each process that trains, one for each job.

    Args:
        jobs: how many at a time; None for one a GPU, or one where there is none.
        run: the configuration's; what it asks for with more than one device takes all of them.

    A GPU is seen by the processes of its own only; on a CPU the cores are divided.
    """
    on_gpu = torch.cuda.is_available() and run.accelerator in ("auto", "gpu", "cuda") and run.devices == 1
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = (visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]) if on_gpu else []
    count = jobs or len(gpus) or 1
    if gpus:
        return [{**os.environ, "CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(count)]
    threads = max(1, num_cores() // count)
    return [{**os.environ, **({"OMP_NUM_THREADS": str(threads)} if count > 1 else {})} for _ in range(count)]
