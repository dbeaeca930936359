"""The page that an edge serves at /: static files that call the local API from the browser.

They hold no secret, so they are shown without a key; what the page asks for needs one as any other call does.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_MEDIA: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_NAMES: Final = (
    "index.html",
    "page.css",
    "icon.svg",
    "main.js",
    "api.js",
    "answer.js",
    "wire.js",
    "history.js",
    "dom.js",
)
PATHS: Final = frozenset({"/", *(f"/page/{name}" for name in _NAMES[1:])})
"""Where the page and its files are."""
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
"""Nothing from elsewhere, no script or style within the page, and no page around it."""


def page_routes() -> list[Route]:
    """A route for the page and one for each of its files, which are read once."""
    return [_route("/" if name == "index.html" else f"/page/{name}", name) for name in _NAMES]


def _route(path: str, name: str) -> Route:
    content = (files("edge_node") / "page" / name).read_bytes()
    headers = HEADERS | {"Content-Type": _MEDIA[name.rpartition(".")[2]]}

    async def file(request: Request) -> Response:
        return Response(content, headers=headers)

    return Route(path, file, methods=["GET"])
