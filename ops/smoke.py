"""What `kvwire smoke` tries: the way from this edge to its cloud, step after step, up to the first one that is broken.

name -> TCP -> TLS and identity -> health -> Describe, with bundle, kind of slice and codecs. Where there are several
gateways, each is gone to by itself. Clocks are compared by the dates of certificates alone: no message has a time.
"""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ops.finding import Finding, State, looked
from ops.offer_check import offer_findings

if TYPE_CHECKING:
    from edge_node import EdgeConfig

_STEP_S: Final = 5.0
_DATED: Final = (
    "both sides need certificates of one authority, valid now: `kvwire config check` dates a node's own"
)


def smoke(path: Path) -> Iterator[Finding]:
    """The findings for the edge that `path` configures, one a step. What comes after a broken step is not tried."""
    loaded: list[EdgeConfig] = []

    def load() -> Iterator[Finding]:
        from edge_node import EdgeConfig

        loaded.append(EdgeConfig.load(path))
        loaded[0].check_files()
        yield Finding(State.GOOD, "config", f"{path}: an edge; its certificate and key can be read")

    yield from looked("config", load, f"`kvwire config check {path}` says what is wrong")
    for config in loaded:
        for address in config.cloud.addresses:
            yield from _gateway(config, address)


def _gateway(config: "EdgeConfig", address: str) -> Iterator[Finding]:
    from dataclasses import replace

    only = replace(config, cloud=replace(config.cloud, address=address, fallbacks=()))
    steps: tuple[tuple[str, Callable[[], Iterator[Finding]], str], ...] = (
        ("name", lambda: _name(address), "mend [cloud] address, or the name server of this machine"),
        (
            "tcp",
            lambda: _tcp(address),
            f"is `kvwire cloud` running at {address}, and does a firewall let it in?",
        ),
        ("tls", lambda: _tls(only, address), f"look at [cloud] identity and [tls] here; {_DATED}"),
        (
            "health",
            lambda: _health(only, address),
            "look at the cloud's log and its /healthz, and whether it has revoked this certificate",
        ),
        ("describe", lambda: _offer(only), "install one version of kvwire on both sides"),
    )
    for what, step, then in steps:
        found = list(looked(f"{what} {address}", step, then))
        yield from found
        if any(one.state is State.BAD for one in found):
            return


def _name(address: str) -> Iterator[Finding]:
    from edge_node.config import split_address

    host, port = split_address(address)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    numbers = ", ".join(dict.fromkeys(str(one[4][0]) for one in found))
    yield Finding(State.GOOD, f"name {address}", f"{host} is {numbers}")


def _tcp(address: str) -> Iterator[Finding]:
    from edge_node.config import split_address

    began = time.monotonic()
    with socket.create_connection(split_address(address), timeout=_STEP_S):
        took_ms = 1_000 * (time.monotonic() - began)
    yield Finding(State.GOOD, f"tcp {address}", f"connected in {took_ms:.1f} ms")


def _tls(config: "EdgeConfig", address: str) -> Iterator[Finding]:
    from edge_node.channel import pin_cloud

    async def pinned() -> None:
        await asyncio.wait_for(pin_cloud(config, address), _STEP_S)

    asyncio.run(pinned())
    yield Finding(State.GOOD, f"tls {address}", f"it is {config.cloud.identity}, and takes this edge")


def _health(config: "EdgeConfig", address: str) -> Iterator[Finding]:
    import grpc
    from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
    from grpc_health.v1.health_pb2_grpc import HealthStub

    from edge_node.channel import pin_cloud

    async def asked() -> bool:
        pinned = await asyncio.wait_for(pin_cloud(config, address), _STEP_S)
        options = [("grpc.ssl_target_name_override", pinned.name), ("grpc.enable_http_proxy", 0)]
        async with grpc.aio.secure_channel(address, pinned.credentials, options=options) as channel:
            reply = await asyncio.wait_for(HealthStub(channel).Check(HealthCheckRequest()), _STEP_S)
        return bool(reply.status == HealthCheckResponse.SERVING)

    if asyncio.run(asked()):
        yield Finding(State.GOOD, f"health {address}", "SERVING")
    else:
        then = "wait, where it starts or drains; else /healthz and the log there say why"
        yield Finding(State.BAD, f"health {address}", "it says NOT_SERVING: it takes no calls now", then)


def _offer(config: "EdgeConfig") -> Iterator[Finding]:
    from fuser.bundle.bundle import Bundle

    yield from offer_findings(config, Bundle.load(config.receiver.bundle))
