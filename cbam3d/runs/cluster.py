"""Work on a Ray cluster (https://docs.ray.io), which is an extra: the cluster that is there, or one of this machine.

Its machines must see the same files: those at URLs, or of a file system that they share.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cbam3d.errors import InputError, reason_of, unknown

ENGINES = ("local", "ray")
_RETRIES = 3  # of a task whose process or machine died

logger = logging.getLogger(__name__)


class Cluster:
    """A cluster that is connected; see `cluster_of`.

    Args:
        ray: the library.
    """

    def __init__(self, ray: Any) -> None:
        self.ray = ray
        resources: dict[str, float] = ray.cluster_resources()
        self.num_workers = max(1, int(resources.get("CPU", 1)))
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self.gpus_of_node = int(max((node.get("GPU", 0) for node in nodes), default=0))
        self.cpus_of_node = int(min((node["CPU"] for node in nodes if node.get("CPU", 0) >= 1), default=1))

    def __call__(
        self,
        task: Callable[[Any, list[Any]], list[Any]],
        about: Any,
        parts: list[list[Any]],
        num_cpus: float = 1,
        num_gpus: float = 0,
        at_once: int | None = None,
    ) -> Iterator[list[tuple[Any, Any]]]:
        """The results of `task(about, part)` for each part, as they come: what is in it, each with its result.

        A task whose process or machine dies is repeated; where it dies again and again, one item after the other is
        tried alone, and those at fault have the result None. `at_once` limits the tasks that run.

        Raises:
            Exception: what a task raised.
        """
        ray, shared = self.ray, self.ray.put(about)
        options = {"num_cpus": num_cpus, "num_gpus": num_gpus}
        todo, going = deque((part, _RETRIES) for part in parts), dict[Any, list[Any]]()
        try:
            while todo or going:
                while todo and len(going) < (at_once or 2 * self.num_workers):
                    part, retries = todo.popleft()
                    going[ray.remote(max_retries=retries, **options)(task).remote(shared, part)] = part
                (done,), _ = ray.wait(list(going))
                part = going.pop(done)
                try:
                    yield list(zip(part, ray.get(done), strict=True))
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except ray.exceptions.RayError as error:
                    logger.warning(f"a task of {len(part)} died: {reason_of(error)}")
                    if len(part) == 1:
                        yield [(part[0], None)]
                    todo.extendleft(([item], 1) for item in part if len(part) > 1)
        finally:
            for one in going:
                ray.cancel(one, force=True)


@contextmanager
def cluster_of(engine: str) -> Iterator[Cluster | None]:
    """Connect to the cluster of an engine, for as long as the block lasts; None for local.

    Args:
        engine: local or ray; RAY_ADDRESS names the cluster.

    Raises:
        InputError: an unknown engine, or no Ray.
    """
    if engine not in ENGINES:
        raise InputError(unknown("engine", engine, ENGINES))
    if engine == "local":
        yield None
        return
    try:
        import ray
    except ImportError:
        raise InputError('engine ray: not installed (pip install "cbam3d[ray]")') from None
    if ray.is_initialized():
        yield Cluster(ray)
        return
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"engine ray: {reason_of(error)}") from None
    try:
        yield Cluster(ray)
    finally:
        ray.shutdown()
