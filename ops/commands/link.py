"""`kvwire link`."""

from typing import Annotated

import typer

from ops.output import Json, console, print_json


def link(
    to: Annotated[str, typer.Option(help="Where connections go on to, host:port.")],
    rate: Annotated[
        float, typer.Option(help="Mbit/s towards the client, and away from it if --up is not given.")
    ],
    up: Annotated[float | None, typer.Option(help="Mbit/s away from the client. [default: --rate]")] = None,
    rtt: Annotated[float, typer.Option(help="Round trip in ms, half of it each way.")] = 0.0,
    jitter: Annotated[float, typer.Option(help="Up to so many ms more for each piece, drawn anew.")] = 0.0,
    loss: Annotated[float, typer.Option(help="Only 0: a TCP proxy cannot lose packets.")] = 0.0,
    listen: Annotated[
        str, typer.Option(help="Where to listen, host:port; port 0 takes a free one.")
    ] = "127.0.0.1:0",
    as_json: Json = False,
) -> None:
    """Try a client through a slow link: a TCP proxy with a rate and a round trip. Ctrl-C ends it.

    An edge's cloud.address may be the link's: the cloud is known by its certificate, not by its address.
    """
    import asyncio

    from ops.link.proxy import LinkProxy
    from ops.link.shape import Shape, check_loss

    check_loss(loss)
    shape = Shape(down_mbit=rate, up_mbit=rate if up is None else up, rtt_ms=rtt, jitter_ms=jitter)

    async def run() -> None:
        async with LinkProxy(listen, to, shape) as proxy:
            if as_json:
                print_json({"listening": proxy.address, "to": to, "shape": str(shape)})
            else:
                console.print(f"{proxy.address} -> {to}: {shape}", markup=False, highlight=False)
            await asyncio.Event().wait()

    asyncio.run(run())
