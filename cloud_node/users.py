"""Who asks: an edge, by its certificate, and the user behind it, where a token that the edge hands on names one.

Tokens are JSON Web Tokens (RFC 7519) of an issuer elsewhere, bound to an audience, and are checked against its public
keys, a JWK Set (RFC 7517) in a file. A key says which algorithm is checked with it, never the token: so there is none
of "none", and none of HMAC.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from cloud_node.config import UsersConfig
from cloud_node.revoked import version_of_file
from kvwire.errors import TokenRefused
from kvwire.identity import Identity

logger = logging.getLogger(__name__)

_LONGEST: Final = 8_192
_LEEWAY_S: Final = 30.0
"""How far the issuer's clock may be off."""
_LEAST_RSA_BITS: Final = 2_048
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_USER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+|=-]{0,127}")
_PREFIX: Final = "user:"
_Check = Callable[[bytes, bytes], None]
"""Of a signature over some bytes. Raises InvalidSignature."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. user: as the token names it; "" where there is none."""

    identity: Identity
    user: str = ""

    @property
    def tenant(self) -> str:
        """Of the edge's certificate."""
        return self.identity.tenant

    @property
    def counted(self) -> str:
        """For whom it counts what leaves: the user, over all edges of the tenant, else the edge."""
        return named_user(self.user) if self.user else self.identity.uri

    @property
    def granted(self) -> tuple[str, ...]:
        """What a document may have been granted to: the edge, for whoever is behind it, or the user."""
        return tuple(dict.fromkeys((self.identity.uri, self.counted)))


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
        self._path = None if config.jwks is None else Path(config.jwks)
        self._seen: object = None
        self._keys: Mapping[tuple[str, str], _Check] = {}
        if self._path is not None:
            self._seen = version_of_file(self._path)
            self._keys = _keys(self._path)

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
        if self._path is None:
            raise TokenRefused("this cloud knows no users: [users] jwks")
        self._look_again(self._path)
        scheme, _, token = str(shown[0]).partition(" ")
        if scheme.lower() != "bearer" or len(token) > _LONGEST or not _TOKEN.fullmatch(token):
            raise TokenRefused(f"it is not Bearer and a JSON Web Token of up to {_LONGEST:,} characters")
        return Principal(identity, self._user(self._claims(token), identity.tenant))

    def _claims(self, token: str) -> dict[str, Any]:
        signed, _, signature = token.rpartition(".")
        head, _, body = signed.partition(".")
        header = _object(head)
        check = self._keys.get((str(header.get("kid")), str(header.get("alg"))))
        if check is None or "crit" in header:
            raise TokenRefused("it is signed by no key of [users] jwks, or asks for what is not known here")
        try:
            check(_bytes(signature), signed.encode())
        except (InvalidSignature, ValueError):
            raise TokenRefused("its signature is not of the key that it names") from None
        return _object(body)

    def _user(self, claims: Mapping[str, Any], tenant: str) -> str:
        now, audience = time.time(), claims.get("aud")
        ends, begins = _number(claims.get("exp")), _number(claims.get("nbf", 0))
        if ends is None or not now < ends + _LEEWAY_S:
            raise TokenRefused("it has no end, or is past it")
        if begins is None or not begins - _LEEWAY_S <= now:
            raise TokenRefused("its time has not come")
        wanted = self._config.audience.replace("{tenant}", tenant)
        if wanted not in (audience if isinstance(audience, list) else [audience]):
            raise TokenRefused(f"it is not for {wanted}")
        if self._config.issuer and claims.get("iss") != self._config.issuer:
            raise TokenRefused(f"it is not of {self._config.issuer}")
        user = claims.get("sub")
        if not isinstance(user, str) or not _USER.fullmatch(user):
            raise TokenRefused("it names no user that one may be called here")
        return user

    def _look_again(self, path: Path) -> None:
        seen: object = None
        try:
            seen = version_of_file(path)
            if seen != self._seen:
                self._keys = _keys(path)
        except (OSError, ValueError) as error:
            if seen != self._seen:
                logger.error("the keys of users stay what they were: %s", error)
        self._seen = seen


def _keys(path: Path) -> dict[tuple[str, str], _Check]:
    """By id and algorithm. Keys for other purposes, and of kinds that are not known here, are left out."""
    try:
        members = json.loads(path.read_text(encoding="utf-8"))["keys"]
        keys: dict[tuple[str, str], _Check] = {}
        for member in members:
            algorithm = _ALGORITHMS.get((member["kty"], member.get("crv", "")))
            if algorithm is None or member.get("use", "sig") != "sig":
                continue
            name, read = algorithm
            if member.get("alg", name) != name:
                continue
            if (member["kid"], name) in keys:
                raise ValueError(f"two keys are called {member['kid']}")
            keys[member["kid"], name] = read(member)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is no JWK Set in which every key has a kid: {error!r}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not keys:
        raise ValueError(
            f"{path} has no public key for {', '.join(name for name, _ in _ALGORITHMS.values())}"
        )
    return keys


def _rsa(member: Mapping[str, Any]) -> _Check:
    key: RSAPublicKey = RSAPublicNumbers(_integer(member["e"]), _integer(member["n"])).public_key()
    if key.key_size < _LEAST_RSA_BITS:
        raise ValueError(f"an RSA key of {key.key_size} bits, under {_LEAST_RSA_BITS:,}")
    return lambda signature, signed: key.verify(signature, signed, PKCS1v15(), SHA256())


def _p256(member: Mapping[str, Any]) -> _Check:
    place = _integer(member["x"]), _integer(member["y"])
    key: EllipticCurvePublicKey = EllipticCurvePublicNumbers(*place, SECP256R1()).public_key()

    def check(signature: bytes, signed: bytes) -> None:
        if len(signature) != 64:
            raise InvalidSignature
        r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
        key.verify(encode_dss_signature(r, s), signed, ECDSA(SHA256()))

    return check


def _ed25519(member: Mapping[str, Any]) -> _Check:
    return Ed25519PublicKey.from_public_bytes(_bytes(member["x"])).verify


_ALGORITHMS: Final[Mapping[tuple[str, str], tuple[str, Callable[[Mapping[str, Any]], _Check]]]] = {
    ("RSA", ""): ("RS256", _rsa),
    ("EC", "P-256"): ("ES256", _p256),
    ("OKP", "Ed25519"): ("EdDSA", _ed25519),
}
"""By type and curve of the key: the algorithm that it is good for (RFC 7518, RFC 8037), and how it is read."""


def _bytes(text: str) -> bytes:
    """Of base64url without padding. Raises ValueError."""
    return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)


def _integer(text: str) -> int:
    return int.from_bytes(_bytes(text), "big")


def _object(part: str) -> dict[str, Any]:
    try:
        value = json.loads(_bytes(part), parse_constant=_no_number)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise TokenRefused("a part of it is no JSON object")
    return value


def _no_number(name: str) -> float:
    raise ValueError(name)


def _number(value: Any) -> float | None:
    """NumericDate (RFC 7519, section 2)."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
