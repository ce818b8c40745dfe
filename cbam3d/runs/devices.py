"""Where several trainings can go on side by side."""

import os

import torch

from cbam3d.config import RunConfig


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
    threads = max(1, (os.cpu_count() or 1) // count)
    return [{**os.environ, **({"OMP_NUM_THREADS": str(threads)} if count > 1 else {})} for _ in range(count)]
