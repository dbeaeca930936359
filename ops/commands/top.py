"""`kvwire top`."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from ops.output import Json, Rows, console, print_json, print_table, reason_of

if TYPE_CHECKING:
    from ops.top import Page


def top(
    url: Annotated[
        list[str] | None,
        typer.Option(help="Metrics of a node; give it once for each. [default: this machine's, port 9464]"),
    ] = None,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, at all since each node began.")] = False,
    as_json: Json = False,
) -> None:
    """Show what running nodes do: calls a second, p50 and p99, bytes a second, how calls ended, who waits.

    Nodes serve their metrics where `listen` of the table telemetry says. With --json it looks once. Exits with 1 where
    a node is not there at the first look.
    """
    from ops.top import COLUMNS, Page, line, numbers

    urls = url or ["http://127.0.0.1:9464/metrics"]
    pages = {one: Page.of(one) for one in urls}
    told = {one: numbers(page.begun(), page) for one, page in pages.items()}
    if as_json:
        print_json([{"url": one, **values} for one, values in told.items()])
        return
    if once:
        print_table(COLUMNS, [line(one, values) for one, values in told.items()])
        return
    from rich.live import Live

    rows = {one: line(one, values) for one, values in told.items()}
    with Live(Rows(COLUMNS, rows.values()), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(every)
            for one in urls:
                rows[one] = _looked(one, pages)
            live.update(Rows(COLUMNS, rows.values()), refresh=True)


def _looked(url: str, pages: "dict[str, Page]") -> tuple[str, ...]:
    """A row about the time since the last look; a node that is not there has its reason in place of numbers."""
    from ops.top import COLUMNS, Page, line, numbers

    try:
        now = Page.of(url)
    except (OSError, ValueError) as error:
        return (url, *[""] * (len(COLUMNS) - 2), reason_of(error))
    row, pages[url] = line(url, numbers(pages[url], now)), now
    return row
