"""Who asks: an edge, by its certificate, and the user behind it, where a token that the edge hands on names one.

Tokens are JSON Web Tokens (RFC 7519) of an issuer elsewhere, bound to an audience, and are checked against its public
keys, a JWK Set (RFC 7517) in a file. A key says which algorithm is checked with it, never the token: so there is none
of "none", and none of HMAC.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from cloud_node.config import UsersConfig
from cloud_node.revoked import Reread
from kvwire.errors import TokenRefused
from kvwire.identity import Identity
from kvwire.limits import MAX_TOKEN_CHARS

_LEEWAY_S: Final = 30.0
"""How far the issuer's clock may be off."""
_LEAST_RSA_BITS: Final = 2_048
_USER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+|=-]{0,127}")
_PREFIX: Final = "user:"
_ALGORITHMS: Final = {("RSA", ""): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
"""By type and curve of a key: what it is good for here."""
_PRIVATE: Final = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks.

    user: as the token names it; "" where there is none. needed: whoever names no user is refused.
    """

    identity: Identity
    user: str = ""
    needed: bool = False

    @property
    def tenant(self) -> str:
        """Of the edge's certificate."""
        return self.identity.tenant

    @property
    def names(self) -> tuple[str, ...]:
        """To whom a document may be granted, and for whom it counts what leaves: the edge, for whoever is behind it,
        and the user, over all edges of the tenant."""
        return (self.identity.uri, *([named_user(self.user)] if self.user else []))

    @property
    def bounded(self) -> tuple[str, ...]:
        """The names whose budgets hold. Where a token may be left out the edge's holds for all that leaves by it: else
        who shows a token, and then none, has two."""
        return self.names[-1:] if self.needed else self.names


def named_user(user: str) -> str:
    """How a user stands where an edge's SPIFFE id may stand too.

    Raises:
        ValueError: no token can name it.
    """
    if not _USER.fullmatch(user):
        raise ValueError(f"{user[:160]!r} is no user: up to 128 letters, digits and ._:/@+|=-")
    return f"{_PREFIX}{user}"


def is_user(name: str) -> bool:
    """Whether this is what `named_user` makes."""
    return name.startswith(_PREFIX) and _USER.fullmatch(name.removeprefix(_PREFIX)) is not None


class Users:
    """Reads the tokens of calls. The keys are read again when their file changes; half a change changes nothing.

    Raises:
        OSError: the file with the keys cannot be read. ValueError: it has none of use.
    """

    def __init__(self, config: UsersConfig) -> None:
        self._config = config
        self._keys: Mapping[str, jwt.PyJWK] = {}
        kept = "the keys of users stay what they were"
        self._file = None if config.jwks is None else Reread(Path(config.jwks), self._read, kept)

    @property
    def keys(self) -> int:
        """How many there are."""
        return len(self._keys)

    def caller(self, identity: Identity, metadata: Sequence[tuple[str, str | bytes]] | None) -> Principal:
        """Who asks.

        Args:
            metadata: of the call: `authorization` is "Bearer " and the token.

        Raises:
            TokenRefused: there is a token that does not hold, or none where one is needed; says why, and nothing of it.
        """
        shown = [value for key, value in metadata or () if key == "authorization"]
        if not shown and not self._config.required:
            return Principal(identity)
        if len(shown) != 1:
            raise TokenRefused(f"{len(shown)} tokens, and one is needed")
        if self._file is None:
            raise TokenRefused("this cloud knows no users: [users] jwks")
        self._file.look_again()
        scheme, _, token = str(shown[0]).partition(" ")
        if scheme.lower() != "bearer" or len(token) > MAX_TOKEN_CHARS:
            raise TokenRefused(
                f"it is not Bearer and a JSON Web Token of up to {MAX_TOKEN_CHARS:,} characters"
            )
        return Principal(identity, self._user(token, identity.tenant), self._config.required)

    def _user(self, token: str, tenant: str) -> str:
        wanted = self._config.audience.replace("{tenant}", tenant)
        try:
            header = jwt.get_unverified_header(token)
            key = self._keys.get(header.get("kid", ""))
            if key is None or "crit" in header:
                raise TokenRefused(
                    "it is signed by no key of [users] jwks, or asks for what is not known here"
                )
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],  # the key's, whatever the token says
                audience=wanted,
                issuer=self._config.issuer or None,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "aud", "sub"]},
            )
        except (jwt.PyJWTError, RecursionError, TypeError) as error:
            raise TokenRefused(f"{type(error).__name__}, asked for {wanted}") from None
        user = claims["sub"]
        if not isinstance(user, str) or not _USER.fullmatch(user):
            raise TokenRefused("it names no user that one may be called here")
        return user

    def _read(self, path: Path) -> None:
        self._keys = _keys(path)


def _keys(path: Path) -> dict[str, jwt.PyJWK]:
    """Public keys by id. Those for other purposes, and for algorithms that are not taken here, are left out."""
    try:
        members = json.loads(path.read_text(encoding="utf-8"))["keys"]
        keys: dict[str, jwt.PyJWK] = {}
        for member in members:
            algorithm = _ALGORITHMS.get((member["kty"], member.get("crv", "")))
            if (
                algorithm is None
                or member.get("use", "sig") != "sig"
                or member.get("alg", algorithm) != algorithm
            ):
                continue
            if member["kid"] in keys:
                raise ValueError(f"two keys are called {member['kid']}")
            public = {name: value for name, value in member.items() if name not in _PRIVATE}
            key = keys[member["kid"]] = jwt.PyJWK(public, algorithm)
            if isinstance(key.key, RSAPublicKey) and key.key.key_size < _LEAST_RSA_BITS:
                raise ValueError(f"an RSA key of {key.key.key_size} bits, under {_LEAST_RSA_BITS:,}")
    except (KeyError, TypeError, AttributeError, RecursionError, jwt.PyJWTError) as error:
        raise ValueError(f"{path} is no JWK Set in which every key has a kid: {error!r}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not keys:
        raise ValueError(f"{path} has no public key for {', '.join(_ALGORITHMS.values())}")
    return keys
