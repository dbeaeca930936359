"""Ray Serve around the replicas: the only module that imports ray. No Ray port faces the edge.

Ray starts on loopback with token authentication, without dashboard and without Serve's own proxies: calls
reach the replicas through a deployment handle of the gateway's process.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

from cloud_node.call import Part, RelayCall, ShareCall
from cloud_node.config import CloudConfig
from cloud_node.ray_folder import RayFolder
from kvwire.errors import Busy, InternalError, KvwireError
from kvwire.messages import Description, RelayReply

logger = logging.getLogger(__name__)

APPLICATION: Final = "kvwire"
_DEPLOYMENT: Final = "sharer"
_SHUTDOWN_GRACE_S: Final = 2.0
_HEALTH_PERIOD_S: Final = 1.0  # a killed replica is noticed after it, not after Serve's ten seconds
_HEALTH_TIMEOUT_S: Final = 5.0  # three in a row, and a replica that hangs is replaced
_POLL_S: Final = 0.2
# A Serve that was itself lost and is back asks each replica first; one on a node that drains works on meanwhile.
_UP: Final = ("RUNNING", "RECOVERING", "PENDING_MIGRATION")
_NICENESS: Final = "RAY_worker_niceness"  # 15 by itself: whatever else runs here would starve the replicas
_GCS_WAIT: Final = "RAY_gcs_server_port_wait_time_s"
_AUTO_CONNECT: Final = "RAY_ENABLE_AUTO_CONNECT"  # "0": Serve's threads start no Ray anew while one ends
_UNPROXIED: Final = ("no_grpc_proxy", "no_proxy")  # gRPC reads the first that is set
_HELPERS: Final = ("start_monitor", "start_log_monitor", "start_api_server")
_CLUSTERS: Final = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # "0": listen on loopback only, on Linux too
# Parts come over gRPC from the replica in place of Ray's object store, with Ray's token, and wait there for a slow
# reader: without threads between (docs/adr/0025-parts-come-over-serves-own-grpc.md).
_DIRECT: Final = {
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    # 4 MiB by itself; a batch of parts is bounded by the pipe it comes from.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**31 - 1),
}


class ReplicasLost(RuntimeError):
    """No replica will take a call again in this process."""


class SharerDeployment:
    """What Ray Serve runs, `replicas` times, each in its own process."""

    def __init__(self, config: CloudConfig) -> None:
        if config.ray.address == "local":
            _stay_on_loopback()
        from cloud_node.replica import Replica  # torch and transformers: not in the gateway's process

        self._replica = Replica.load(config)

    async def describe(self) -> Description:
        """What the replicas can do."""
        return self._replica.describe()

    async def where(self) -> str:
        """Device and dtype of this replica."""
        return self._replica.where()

    async def check_health(self) -> None:
        """Called by Serve every second; documents that are gone are let go of beside it, and new ones are read."""
        self._replica.look_soon()

    async def share(self, call: ShareCall, timeout_s: float) -> AsyncIterator[list[Part | KvwireError]]:
        """Batches of parts; an error is the last part. A cancelled call stops the prefill."""
        async with contextlib.aclosing(self._replica.share(call, timeout_s)) as batches:  # type: ignore[type-var]
            async for batch in batches:
                yield batch

    async def relay(self, call: RelayCall, timeout_s: float) -> RelayReply | KvwireError:
        """The Sharer's own answer."""
        return await self._replica.relay(call, timeout_s)


class Ray:
    """One cloud node's dealings with Ray. All of them but `prepare` may wait, some for ever: see `Control`."""

    def __init__(self, config: CloudConfig) -> None:
        self._config = config
        self._folder: RayFolder | None = None  # of the Ray started here; None when attached to a cluster
        self._processes: dict[str, subprocess.Popen[bytes]] = {}  # without which that Ray does nothing more
        self.stopping = False
        """Set by who does not want it started again."""

    def prepare(self) -> None:
        """Set what Ray reads from the environment when imported; for a local Ray, make a folder of its own.

        Raises:
            OSError: the token file cannot be read.
        """
        config = self._config.ray
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")
        os.environ[_AUTO_CONNECT] = "0"
        token = None if config.token is None else Path(config.token)
        if token is not None:
            token.read_bytes()
        if config.address == "local":
            os.umask(0o077)  # Ray's processes inherit it
            os.environ[_CLUSTERS] = "0"
            for name, value in _DIRECT.items():
                os.environ.setdefault(name, value)
            unproxied = next(filter(None, map(os.environ.get, _UNPROXIED)), "")
            os.environ[_UNPROXIED[0]] = f"{unproxied},127.0.0.1".lstrip(",")
            os.environ.setdefault(_NICENESS, "0")
            os.environ.setdefault(_GCS_WAIT, str(math.ceil(config.start_timeout_s)))
            self._folder = RayFolder.make()
            if token is None:
                token = self._folder.path / "token"
                token.write_text(secrets.token_hex(32))
        if token is not None:
            os.environ["RAY_AUTH_MODE"] = "token"
            os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)

    def check_processes(self) -> None:
        """Does not wait. Raises ReplicasLost: a process of the Ray started here is gone."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise ReplicasLost(f"Ray's {name} has ended (status {process.returncode})")

    def connect(self) -> None:
        """Start Ray, or attach to a cluster; once more if it fails. Raises RuntimeError."""
        import ray

        logging.getLogger("ray").setLevel(logging.ERROR)
        for last in (False, True):
            try:
                self._begin(ray.init)
                break
            except Exception as error:
                why = f"Ray did not {'answer' if self._folder is None else 'start'}: {first_line(error)}"
                if last or self.stopping:
                    raise RuntimeError(why) from None
                logger.warning("%s: once more", why)
                if self._folder is not None:
                    self._folder.end_users()
        if self._folder is not None:
            node = ray._private.worker._global_node
            self._processes = {name: node.all_processes[name][0].process for name in ("gcs_server", "raylet")}

    def _begin(self, init: Callable[..., object]) -> None:
        quiet = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.ERROR}
        if self._folder is None:
            init(address=self._config.ray.address, **quiet)
            return
        sharer = self._config.sharer
        with _patience(self._config.ray.start_timeout_s), _without_helpers():
            init(
                address="local",
                num_cpus=max(1, -int(-sharer.cpus * sharer.most_replicas // 1)),
                num_gpus=-int(-sharer.gpus * sharer.most_replicas // 1),
                object_store_memory=self._config.ray.object_store_bytes,
                # Ours to delete, as all that Ray writes.
                object_spilling_directory=str(self._folder.path),
                include_dashboard=False,
                _temp_dir=str(self._folder.ray),
                **quiet,
            )

    def deploy(self) -> Any:
        """Have Serve start the replicas. Returns their handle."""
        from ray import serve
        from ray.serve.schema import LoggingConfig

        sharer = self._config.sharer
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        quiet = LoggingConfig(enable_access_log=False, log_level="ERROR")
        serve.start(proxy_location="Disabled", logging_config=quiet)
        deployment = serve.deployment(SharerDeployment, name=_DEPLOYMENT).options(
            **self._number(),
            max_ongoing_requests=sharer.max_ongoing + 1,  # one for the node's own question
            max_queued_requests=sharer.max_queued,
            ray_actor_options={"num_cpus": sharer.cpus, "num_gpus": sharer.gpus},
            health_check_period_s=_HEALTH_PERIOD_S,
            health_check_timeout_s=_HEALTH_TIMEOUT_S,
            graceful_shutdown_wait_loop_s=0.1,
        )
        target = serve.RunTarget(
            deployment.bind(self._config), name=APPLICATION, route_prefix=None, logging_config=quiet
        )
        return serve.run_many([target], wait_for_applications_running=False)[0]

    def _number(self) -> dict[str, Any]:
        """How many replicas, and how long the calls of one that is taken away may go on."""
        sharer = self._config.sharer
        if sharer.most_replicas == sharer.replicas:
            return {"num_replicas": sharer.replicas, "graceful_shutdown_timeout_s": _SHUTDOWN_GRACE_S}
        scaling = {
            "min_replicas": sharer.replicas,
            "max_replicas": sharer.max_replicas,
            # Half of what one tenant alone may have under way, see `admission.Turns`.
            "target_ongoing_requests": max(1, sharer.max_ongoing - 1) / 2,
            "upscale_delay_s": sharer.scale_up_s,
            "downscale_delay_s": sharer.scale_down_s,
        }
        grace_s = self._config.gateway.drain_s
        return {"autoscaling_config": scaling, "graceful_shutdown_timeout_s": grace_s}

    def up(self) -> int:
        """How many replicas Serve says take calls. Raises RuntimeError when it gave up starting them, or knows none."""
        from ray import serve

        application = serve.status().applications.get(APPLICATION)
        if application is None:
            raise RuntimeError("Ray Serve does not know the replicas")
        if application.status.value == "DEPLOY_FAILED":
            *_, why = (application.message.strip() or "no reason given").splitlines()
            raise RuntimeError(f"the replicas could not start: {why}")
        deployment = application.deployments.get(_DEPLOYMENT)
        states = {} if deployment is None else deployment.replica_states
        return sum(int(states.get(state, 0)) for state in _UP)

    def shut_down(self) -> None:
        """End the replicas, and the Ray started here."""
        import ray

        if self._folder is None and ray.is_initialized():  # else the replicas end with their Ray
            from ray import serve

            serve.delete(APPLICATION)
        ray.shutdown()

    def clean_up(self, *, spare_children: bool) -> None:
        """Remove what is left of the Ray started here, as `RayFolder.remove` does."""
        if self._folder is not None:
            self._folder.remove(spare_children=spare_children)


def told(error: Exception, retry_after_s: float) -> KvwireError:
    """What a caller may know of a call that failed."""
    from grpc.aio import AioRpcError
    from ray.exceptions import RayError, RayTaskError
    from ray.serve import exceptions

    if isinstance(error, KvwireError):
        return error
    busy = Busy(retry_after_s)
    if isinstance(error, exceptions.BackPressureError):
        return busy
    # Of the stream between gateway and replica Serve tells as its own error only how it began.
    gone = (RayError, exceptions.DeploymentUnavailableError, exceptions.ReplicaUnavailableError, AioRpcError)
    if isinstance(error, gone) and not isinstance(error, RayTaskError):  # which the replica's code raised
        logger.error("%s: a replica is gone", type(error).__name__)
        return busy
    logger.error("%s from a replica", type(error).__name__)
    return InternalError(type(error).__name__)


@contextlib.contextmanager
def _patience(timeout_s: float) -> Iterator[None]:
    """Wait so long for Ray's own node, which it gives 30 s; no setting for it (2.60), hence the hand into it."""
    from ray._private import services

    ask = services.get_node

    def get_node(*asked: Any) -> Any:
        end = time.monotonic() + timeout_s
        while True:
            try:
                return ask(*asked)
            except RuntimeError:
                if time.monotonic() > end:
                    raise
                time.sleep(_POLL_S)

    services.get_node = get_node
    try:
        yield
    finally:
        services.get_node = ask


@contextlib.contextmanager
def _without_helpers() -> Iterator[None]:
    """Leave out Ray's autoscaler, log reader and dashboard server: three processes that nothing here asks for.

    Seconds of each start and 290 MB; `include_dashboard=False` starts the server all the same, and there is no setting
    for the others (2.60), hence the hand into it.
    """
    from ray._private.node import Node

    helpers = {name: getattr(Node, name, None) for name in _HELPERS}
    for name in helpers:
        setattr(Node, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name, start in helpers.items():
            setattr(Node, name, start)


def _stay_on_loopback() -> None:
    """Serve opens a port in each replica, over which calls come, on all interfaces: narrow it.

    It asks for Ray's token either way. Ray offers no setting for it (2.60), hence the hand into its module; a Ray that
    has no such function fails here rather than listen everywhere.
    """
    from ray.serve._private import replica

    listen = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, address: listen(
        server, address.replace("[::]", "127.0.0.1")
    )


def first_line(error: Exception) -> str:
    """Of its message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
