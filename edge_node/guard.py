"""Who may call the local API: loopback names and origins alone, and with a key where keys are configured."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from edge_node.page_files import PATHS
from edge_node.refusals import Refused, refusal
from kvwire.errors import AccessDenied, InvalidRequest, KvwireError

_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
_OPEN: Final = PATHS | {"/healthz"}
"""What is shown without a key, and to a page of another origin, which cannot read it."""
_SITES: Final = ("same-origin", "none")
"""What browsers say of a call by the page itself, and of one by the user."""
CLOSE: Final = {"Connection": "close"}
"""Of refusals before the body is read: the rest of it is not waited for."""


class Guard:
    """Refuses requests that name another host (a page of another origin may have had its name point here), that come
    from a page of elsewhere, or that lack a key. `keys`: what may be shown; empty asks for none. `hosts`: names beside
    those of loopback. `refused`: told of each "host", "origin" or "key"."""

    def __init__(
        self,
        app: ASGIApp,
        keys: Sequence[str] = (),
        hosts: Sequence[str] = (),
        refused: Callable[[str], None] = lambda check: None,
    ) -> None:
        self._app, self._told = app, refused
        named = rf"({'|'.join(map(re.escape, (*_LOOPBACK, *hosts)))})(:\d+)?"
        self._host = re.compile(named, re.IGNORECASE)
        self._origin = re.compile(rf"https?://{named}", re.IGNORECASE)
        self._keys = [_digest(key) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = None if scope["type"] == "lifespan" else self._refused(scope["path"], Headers(scope=scope))
        if error is None:
            await self._app(scope, receive, send)
        else:
            await refusal(error, headers=CLOSE)(scope, receive, send)

    def _refused(self, path: str, headers: Headers) -> KvwireError | None:
        if not self._host.fullmatch(headers.get("host", "")):
            self._told("host")
            return InvalidRequest("the Host header names neither a loopback address nor one of api.hosts")
        # A page that merely has a URL loaded, as a picture say, sends no Origin.
        sites = () if path in _OPEN else headers.getlist("sec-fetch-site")
        ours = all(self._origin.fullmatch(origin) for origin in headers.getlist("origin"))
        if not ours or any(site not in _SITES for site in sites):
            self._told("origin")
            return AccessDenied("a page of another origin may not call this API")
        if self._keys and path not in _OPEN:
            scheme, _, key = headers.get("authorization", "").partition(" ")
            shown = _digest(key.strip())
            fits = [hmac.compare_digest(shown, each) for each in self._keys]
            if scheme.lower() != "bearer" or not any(fits):
                self._told("key")
                return Refused(
                    "no valid key: Authorization: Bearer <key>", code="invalid_api_key", status=401
                )
        return None


def _digest(key: str) -> bytes:
    """Of one length, so that comparing takes the same time for each."""
    return hashlib.sha256(key.encode()).digest()
