"""Ray Serve around the replicas: the only module that imports ray. No Ray port faces the edge.

Ray starts on loopback with token authentication, without dashboard and without Serve's own proxies: calls
reach the replicas through a deployment handle of the gateway's process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from cloud_node.call import Part, RelayCall, ShareCall
from cloud_node.config import CloudConfig, RayConfig
from kvwire.description import Description
from kvwire.errors import Busy, InternalError, KvwireError
from kvwire.request import RelayReply

logger = logging.getLogger(__name__)

APPLICATION: Final = "kvwire"
_SHUTDOWN_GRACE_S: Final = 2.0
_NICENESS: Final = "RAY_worker_niceness"  # 15 by itself: whatever else runs here would starve the replicas
_CLUSTERS: Final = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # "0": listen on loopback only, on Linux too


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

    async def share(self, call: ShareCall, timeout_s: float) -> AsyncIterator[list[Part | KvwireError]]:
        """Batches of parts; an error is the last part. A cancelled call stops the prefill."""
        async with contextlib.aclosing(self._replica.share(call, timeout_s)) as batches:  # type: ignore[type-var]
            async for batch in batches:
                yield batch

    async def relay(self, call: RelayCall, timeout_s: float) -> RelayReply | KvwireError:
        """The Sharer's own answer."""
        return await self._replica.relay(call, timeout_s)


class RayReplicas:
    """The replicas of one cloud node, behind a streaming handle. Made by `start`."""

    def __init__(self, handle: Any, retry_after_s: float, private: Path | None) -> None:
        self._handle = handle
        self._retry_after_s = retry_after_s
        self._private = private  # folder of the Ray started here; None when attached to a cluster

    @classmethod
    def start(cls, config: CloudConfig) -> RayReplicas:
        """Start Ray or attach to a cluster, deploy, and wait until every replica has loaded its model.

        Raises:
            RuntimeError: a replica could not start; the reason is in Ray's log of that replica.
            OSError: the token file cannot be read.
        """
        private = _environment(config.ray)
        try:
            import ray
            from ray import serve
            from ray.serve.schema import LoggingConfig

            logging.getLogger("ray.serve").setLevel(logging.ERROR)
            _connect(ray, config, private)
            quiet = LoggingConfig(enable_access_log=False, log_level="ERROR")
            serve.start(proxy_location="Disabled", logging_config=quiet)
            deployment = serve.deployment(SharerDeployment, name="sharer").options(
                num_replicas=config.sharer.replicas,
                max_ongoing_requests=config.sharer.max_ongoing,
                max_queued_requests=config.sharer.max_queued,
                ray_actor_options={"num_cpus": config.sharer.cpus, "num_gpus": config.sharer.gpus},
                graceful_shutdown_timeout_s=_SHUTDOWN_GRACE_S,
                graceful_shutdown_wait_loop_s=0.1,
            )
            handle = serve.run(
                deployment.bind(config), name=APPLICATION, route_prefix=None, logging_config=quiet
            )
        except BaseException:
            _stop(private)
            raise
        return cls(handle, config.sharer.retry_after_s, private)

    async def describe(self) -> Description:
        """What the replicas can do."""
        description: Description = await self._handle.describe.remote()
        return description

    async def share(self, call: ShareCall, timeout_s: float) -> AsyncIterator[Part]:
        """The parts of one slice. Closing the iterator, or cancelling its task, stops the replica.

        Raises:
            KvwireError: Busy when the queue is full or a replica is gone; else what the replica told.
        """
        response = self._handle.options(stream=True).share.remote(call, timeout_s)
        ended = False
        try:
            async for batch in response:
                for part in batch:
                    if isinstance(part, KvwireError):
                        raise part
                    yield part
            ended = True
        except Exception as error:
            ended = True
            raise self._told(error) from None
        finally:
            if not ended:
                _cancel(response)

    async def relay(self, call: RelayCall, timeout_s: float) -> RelayReply:
        """The Sharer's own answer. Raises KvwireError as `share` does."""
        response = self._handle.relay.remote(call, timeout_s)
        try:
            reply: RelayReply | KvwireError = await response
        except asyncio.CancelledError:
            _cancel(response)
            raise
        except Exception as error:
            raise self._told(error) from None
        if isinstance(reply, KvwireError):
            raise reply
        return reply

    async def running(self) -> bool:
        """Whether Serve says that the replicas can take calls."""
        from ray import serve

        status = await asyncio.to_thread(serve.status)
        application = status.applications.get(APPLICATION)
        return application is not None and str(application.status.value) in ("RUNNING", "DEPLOYING")

    def stop(self) -> None:
        """Stop the replicas, and Ray where `start` started it."""
        if self._private is None:
            from ray import serve

            serve.delete(APPLICATION)
        _stop(self._private)

    def _told(self, error: Exception) -> KvwireError:
        from ray.exceptions import RayActorError
        from ray.serve import exceptions

        if isinstance(error, KvwireError):
            return error
        if isinstance(error, exceptions.BackPressureError):
            return Busy(self._retry_after_s)
        gone = (RayActorError, exceptions.DeploymentUnavailableError, exceptions.ReplicaUnavailableError)
        if isinstance(error, gone):
            logger.error("%s: a replica is gone", type(error).__name__)
            return Busy(self._retry_after_s)
        logger.error("%s from a replica", type(error).__name__)
        return InternalError(type(error).__name__)


def _cancel(response: Any) -> None:
    """Cancel a call; one that failed in the meantime would raise its failure here."""
    with contextlib.suppress(Exception):
        response.cancel()


def _environment(config: RayConfig) -> Path | None:
    """Set what Ray reads from the environment when imported; for a local Ray, make a folder of its own."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")
    private = None
    if config.address == "local":
        os.environ[_CLUSTERS] = "0"
        os.environ.setdefault(_NICENESS, "0")
        private = Path(tempfile.mkdtemp(prefix="kvwire-ray-"))  # mode 0700
    if config.token is not None:
        token = Path(config.token)
        token.read_bytes()
    elif private is not None:
        token = private / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
    else:
        return None
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
    return private


def _stay_on_loopback() -> None:
    """Serve opens a port in each replica for calls between deployments, on all interfaces: narrow it.

    It asks for Ray's token either way. Ray offers no setting for it (2.60), hence the hand into its module.
    """
    from ray.serve._private import replica

    listen = getattr(replica, "add_port_to_grpc_server", None)
    if listen is not None:
        replica.add_port_to_grpc_server = lambda server, address: listen(
            server, address.replace("[::]", "127.0.0.1")
        )


def _connect(ray: ModuleType, config: CloudConfig, private: Path | None) -> None:
    quiet = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.ERROR}
    if private is None:
        ray.init(address=config.ray.address, **quiet)
        return
    ray.init(
        address="local",
        num_cpus=max(1, -int(-config.sharer.cpus * config.sharer.replicas // 1)),
        num_gpus=-int(-config.sharer.gpus * config.sharer.replicas // 1),
        object_store_memory=config.ray.object_store_bytes,
        object_spilling_directory=str(private),  # frames that slow callers leave waiting: ours to delete
        include_dashboard=False,
        **quiet,
    )


def _stop(private: Path | None) -> None:
    import ray
    from ray import serve

    if private is not None and ray.is_initialized():  # without a Ray, Serve would start one to stop it
        serve.shutdown()
    ray.shutdown()
    if private is not None:
        shutil.rmtree(private, ignore_errors=True)
