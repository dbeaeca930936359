"""`kvwire train --workers N`: the same run in N processes on Ray Train, every batch shared equally among them.

Ray starts the workers, connects them with torch.distributed, and ends them together when one fails. What they do is
`fuser.lab.train.run.train`, which knows nothing of Ray.
"""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import Progress

if TYPE_CHECKING:  # Ray imports this module in processes that need no models
    from fuser.lab.train.config import TrainConfig

_POLL_S = 2.0


class Workers:
    """`count` processes on this machine; Ray starts when they first train, and ends with the block.

    Ray is started once: it keeps the first token that a process gave it.

    Raises:
        ImportError: when they train, ray is not installed.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._started = ExitStack()
        self._storage: str | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._started.close()

    def train(self, config: TrainConfig, progress: Progress, max_minutes: float) -> dict[str, Any]:
        """`fuser.lab.train.run.train` in all of them; returns what worker 0 returns.

        Raises:
            CacheIncomplete: not all items are cached.
            ValueError: too few GPUs.
            Exception: the first worker's own, when a worker fails.
        """
        from fuser.config import to_dict

        use_gpu, gpus = _wants_gpu(config), _gpus()
        if use_gpu and gpus < self._count:
            raise ValueError(
                f"{self._count} workers want a GPU each and there are {gpus}: ask for fewer, or device = cpu"
            )
        storage = self._start(gpus)
        from ray.train import RunConfig, ScalingConfig, WorkerGroupError
        from ray.train.torch import TorchConfig, TorchTrainer

        trainer = TorchTrainer(
            _worker,
            train_loop_config={
                "config": to_dict(config),
                "max_minutes": max_minutes,
                "threads": max(1, (os.cpu_count() or 1) // self._count),
                "directory": str(Path.cwd()),
            },
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(num_workers=self._count, use_gpu=use_gpu),
            run_config=RunConfig(name=Path(config.work).name, storage_path=storage),
        )
        try:
            with _followed(config, progress):
                done: dict[str, Any] = trainer.fit().return_value  # of worker 0
        except WorkerGroupError as error:
            raise min(error.worker_failures.items())[1] from None
        return done

    def _start(self, gpus: int) -> str:
        """Start Ray, once; returns a directory for what it stores."""
        if self._storage is None:
            folder = self._started.enter_context(tempfile.TemporaryDirectory(prefix="kvwire-train-"))
            _environment(Path(folder))
            try:
                import ray
            except ImportError as error:
                raise ImportError(f"workers need Ray: pip install 'kvwire[cloud,train]' ({error})") from error
            self._started.callback(ray.shutdown)
            ray.init(
                address="local",
                num_cpus=self._count,
                num_gpus=gpus,
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
                logging_level=logging.ERROR,
            )
            self._storage = folder
        return self._storage


def _worker(loop: dict[str, Any]) -> dict[str, Any]:
    import torch

    from fuser.config import from_dict
    from fuser.lab.train.config import TrainConfig
    from fuser.lab.train.run import train

    os.chdir(loop["directory"])
    torch.set_num_threads(loop["threads"])
    config = from_dict(TrainConfig, loop["config"])
    return train(config, Progress(disable=True), loop["max_minutes"])


def _wants_gpu(config: TrainConfig) -> bool:
    from fuser.lab.train.prepare import device_of

    return device_of(config).type == "cuda"


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _environment(folder: Path) -> None:
    """What Ray reads when it is imported: loopback alone, a token of its own, nothing sent anywhere, time to start."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "300")  # for busy machines of few cores
    os.environ.setdefault("RAY_worker_niceness", "0")  # these processes are the work, not its background
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # listen on loopback only, on Linux too
    os.environ["RAY_AUTH_MODE"] = "token"
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), encoding="utf-8")
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)


@contextmanager
def _followed(config: TrainConfig, progress: Progress) -> Iterator[None]:
    """Show the run's log as progress while the workers write it."""
    from fuser.lab.train.log import read_log

    done = threading.Event()
    bar = progress.add_task("training", total=config.answer.steps)

    def follow() -> None:
        while not done.wait(_POLL_S):
            steps = [row for row in read_log(Path(config.work)) if row["stage"] == "step"]
            if steps:
                loss = steps[-1]["loss"]
                progress.update(
                    bar, completed=steps[-1]["step"] + 1, description=f"training, loss {loss:.3f}"
                )

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
