"""Pings over an idle connection: as often as the gateway's configuration allows, and no oftener."""

import asyncio
import dataclasses

import grpc
import grpc.aio
import pytest

from cloud_node.config import CloudConfig, CloudTls, GatewayConfig, SharerConfig
from cloud_node.gateway import _options
from kvwire.limits import PING_S

CONFIG = CloudConfig(CloudTls("cloud.pem", "cloud.key", "ca.pem"), SharerConfig("m", ("b",)))


async def _stays_connected(gateway: GatewayConfig, every_s: float, for_s: float) -> bool:
    """Whether a client that pings so often over an idle connection is still connected after a while."""
    server = grpc.aio.server(options=_options(dataclasses.replace(CONFIG, gateway=gateway)))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    options = [
        ("grpc.keepalive_time_ms", int(every_s * 1_000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        await channel.channel_ready()
        try:
            async with asyncio.timeout(for_s):
                await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        except TimeoutError:
            return True
        finally:
            await server.stop(0)
    return False


async def test_pings_as_often_as_allowed_do_not_end_an_idle_connection() -> None:
    assert await _stays_connected(GatewayConfig(min_ping_interval_s=0.5), every_s=1.0, for_s=6.0)


async def test_pings_oftener_than_allowed_end_it() -> None:
    assert not await _stays_connected(GatewayConfig(min_ping_interval_s=10.0), every_s=1.0, for_s=10.0)


def test_no_gateway_can_forbid_what_every_edge_does_and_all_of_them_tell_the_number() -> None:
    with pytest.raises(ValueError, match="min_ping_interval_s"):
        GatewayConfig(min_ping_interval_s=PING_S + 1)
    told = dataclasses.replace(CONFIG, gateway=GatewayConfig(min_ping_interval_s=20.0)).limits
    assert told.min_ping_interval_s == 20.0
