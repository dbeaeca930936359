"""Users behind one edge, told apart by JSON Web Tokens."""

import asyncio
import base64
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from cloud_node.audit_chain import lines
from cloud_node.audit_exposure import exposure_in
from cloud_node.config import CloudConfig, ExportPolicy, UsersConfig
from cloud_node.documents import Documents
from cloud_node.exposure import Budget, Leaving
from cloud_node.users import Principal, Users, named_user
from kvwire import PROTOCOL_VERSION
from kvwire.errors import ExposureSpent, NotFound, TokenRefused
from kvwire.identity import Identity, PeerRole
from kvwire.limits import MAX_TOKEN_CHARS
from kvwire.v1 import sharer_pb2 as pb
from kvwire.v1.sharer_pb2_grpc import SharerServiceStub
from tests.cloud_node.conftest import Start

ACME = Identity(PeerRole.EDGE, "acme")
QUESTION = "Who keeps the spare key?"
RSA, SMALL = generate_rsa(65_537, 2_048), generate_rsa(65_537, 1_024)
EC, EDWARDS = generate_private_key(SECP256R1()), Ed25519PrivateKey.generate()


def plain(data: bytes | int) -> str:
    """base64url without padding."""
    if isinstance(data, int):
        data = data.to_bytes((data.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def p256(signed: bytes) -> bytes:
    r, s = decode_dss_signature(EC.sign(signed, ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def hmac(signed: bytes) -> bytes:
    made = HMAC(json.dumps(KEYS).encode(), SHA256())
    made.update(signed)
    return made.finalize()


SIGN: dict[str, Callable[[bytes], bytes]] = {
    "RS256": lambda signed: RSA.sign(signed, PKCS1v15(), SHA256()),
    "ES256": p256,
    "EdDSA": EDWARDS.sign,
    "HS256": hmac,
    "none": lambda signed: b"",
}
_numbers, _point = RSA.public_key().public_numbers(), EC.public_key().public_numbers()
KEYS: list[dict[str, Any]] = [
    {"kty": "RSA", "kid": "RS256", "use": "sig", "n": plain(_numbers.n), "e": plain(_numbers.e)},
    {"kty": "EC", "kid": "ES256", "crv": "P-256", "x": plain(_point.x), "y": plain(_point.y)},
    {"kty": "OKP", "kid": "EdDSA", "crv": "Ed25519", "x": plain(EDWARDS.public_key().public_bytes_raw())},
    {"kty": "oct", "kid": "HS256", "k": plain(b"a secret of both sides")},
    {"kty": "RSA", "kid": "none", "use": "enc", "n": plain(_numbers.n), "e": plain(_numbers.e)},
]


def token(user: Any = "ilse", alg: str = "ES256", header: dict[str, Any] | None = None, **claims: Any) -> str:
    """A token that holds for tenant acme, but for what is changed; a claim of None is left out."""
    said = {"sub": user, "aud": "kvwire/acme", "exp": time.time() + 60} | claims
    said = {name: value for name, value in said.items() if value is not None}
    named = {"alg": alg, "kid": alg} | (header or {})
    signed = f"{plain(json.dumps(named).encode())}.{plain(json.dumps(said).encode())}"
    return f"{signed}.{plain(SIGN[alg](signed.encode())) or 'AA'}"


def bearer(one: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {one}"),)


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": KEYS}))
    return path


@pytest.fixture
def users(jwks: Path) -> Users:
    return Users(UsersConfig(str(jwks), "kvwire/{tenant}"))


@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
def test_a_token_names_its_user_and_no_token_the_edge_alone(users: Users, alg: str) -> None:
    caller = users.caller(ACME, bearer(token("auth0|ilse@example.org", alg)))
    assert caller == Principal(ACME, "auth0|ilse@example.org")
    assert caller.names == (ACME.uri, "user:auth0|ilse@example.org")
    assert (
        users.caller(ACME, bearer(token(alg=alg, aud=["another", "kvwire/acme"], nbf=time.time()))).user
        == "ilse"
    )
    assert users.caller(ACME, (("other", "x"),)) == Principal(ACME)
    assert Principal(ACME).names == (ACME.uri,)


NOW = time.time()
BAD = {
    "none": token(alg="none"),
    "none in capitals": token(header={"alg": "NONE"}),
    "hmac with what is public": token(alg="HS256"),
    "a key for another algorithm": token(header={"kid": "RS256"}),
    "an unknown key": token(header={"kid": "x"}),
    "no key": token(header={"kid": None}),
    "a list for a key": token(header={"kid": ["ES256"]}),
    "what must be understood": token(header={"crit": ["exp"]}),
    "another audience": token(aud="kvwire/other"),
    "another audience among several": token(aud=["kvwire/other"]),
    "the audience with more behind it": token(aud="kvwire/acme/x"),
    "no audience": token(aud=None),
    "no end": token(exp=None),
    "past its end": token(exp=NOW - 60),
    "an end in words": token(exp="tomorrow"),
    "an end that is true": token(exp=True),
    "an end that is no number": token(exp=float("nan")),
    "not yet": token(nbf=NOW + 3_600),
    "a start in words": token(nbf="now"),
    "no user": token(None),
    "a user who is a number": token(7),
    "a user who is an edge": token("spiffe://kvwire/edge/acme/a b"),
    "a user without a name": token(""),
    "a user with a line break": token("ilse\n"),
    "too long": token(more="x" * 8_192),
    "another signature": token()[:-8] + "AAAAAAAA",
    "half a signature": token()[:-43],
    "two parts": token().rpartition(".")[0],
    "four parts": token() + ".AA",
    "empty": "",
    "nested": f"{plain(b'[' * 4_000)}.{plain(b'{}')}.AA",
    "no object": f"{plain(b'7')}.{plain(b'7')}.AA",
}


@pytest.mark.parametrize("shown", BAD.values(), ids=list(BAD))
def test_a_token_that_does_not_hold_is_refused_and_never_ignored(users: Users, shown: str) -> None:
    with pytest.raises(TokenRefused) as error:
        users.caller(ACME, bearer(shown))
    assert shown == "" or shown not in str(error.value)


def test_another_user_in_a_signed_token_is_refused(users: Users) -> None:
    head, _, signature = token("ilse").split(".")
    body = token("someone").split(".")[1]
    with pytest.raises(TokenRefused, match="Signature"):
        users.caller(ACME, bearer(f"{head}.{body}.{signature}"))


def test_two_tokens_another_scheme_and_a_cloud_without_users_refuse_it(users: Users, jwks: Path) -> None:
    good = token()
    for shown in (bearer(good) * 2, (("authorization", f"Basic {good}"),), (("authorization", good),)):
        with pytest.raises(TokenRefused):
            users.caller(ACME, shown)
    with pytest.raises(TokenRefused, match="knows no users"):
        Users(UsersConfig()).caller(ACME, bearer(good))
    with pytest.raises(TokenRefused):
        users.caller(Identity(PeerRole.EDGE, "other"), bearer(good))
    strict = Users(UsersConfig(str(jwks), "kvwire/acme", issuer="https://id.acme.example", required=True))
    for shown in ((), bearer(good), bearer(token(iss="https://elsewhere.example"))):
        with pytest.raises(TokenRefused):
            strict.caller(ACME, shown)
    assert strict.caller(ACME, bearer(token(iss="https://id.acme.example"))).user == "ilse"


def test_new_keys_are_taken_up_without_a_restart_and_half_a_change_changes_nothing(
    users: Users, jwks: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jwks.write_text(json.dumps({"keys": KEYS})[:-9])
    assert users.caller(ACME, bearer(token())).user == "ilse"
    assert "the keys of users stay what they were" in caplog.text
    jwks.write_text(json.dumps({"keys": KEYS[:1]}))
    with pytest.raises(TokenRefused, match="no key of"):
        users.caller(ACME, bearer(token()))
    assert users.caller(ACME, bearer(token(alg="RS256"))).user == "ilse"


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({}, "no JWK Set"),
        ({"keys": 7}, "no JWK Set"),
        ({"keys": [{"kty": "EC", "crv": "P-256"}]}, "no JWK Set"),
        ({"keys": KEYS[3:]}, "has no public key for RS256, ES256, EdDSA"),
        ({"keys": [KEYS[1], KEYS[1]]}, "two keys are called ES256"),
        ({"keys": [KEYS[0] | {"n": plain(SMALL.public_key().public_numbers().n)}]}, "1024 bits"),
        ({"keys": [KEYS[1] | {"y": plain(7)}]}, "jwks.json"),
    ],
)
def test_a_file_without_keys_of_use_is_refused_at_the_start(jwks: Path, keys: Any, why: str) -> None:
    jwks.write_text(json.dumps(keys))
    with pytest.raises(ValueError, match=why):
        Users(UsersConfig(str(jwks), "kvwire"))


def test_what_names_nobody_is_refused() -> None:
    for told in ({"jwks": "x"}, {"audience": "x"}, {"required": True}, {"issuer": "x"}):
        with pytest.raises(ValueError, match="jwks"):
            UsersConfig(**told)  # type: ignore[arg-type]
    for name in ("", "a b", "user\n", "x" * 129):
        with pytest.raises(ValueError, match="is no user"):
            named_user(name)


async def test_a_document_granted_to_a_user_is_there_for_that_user_behind_any_edge_and_for_nobody_else(
    start_local: Start, config: CloudConfig, jwks: Path
) -> None:
    cloud = await start_local(
        export=ExportPolicy(allow_relay=True), users=UsersConfig(str(jwks), "kvwire/{tenant}")
    )
    store = Documents(config.documents)
    await cloud.share(cloud.request("note-1", QUESTION))  # read, and in the prefix cache
    store.grant("acme", "note-1", named_user("ilse"))
    assert store.granted("acme", "note-1") == ("user:ilse",)
    assert store.find("acme", ["note-1"], Principal(Identity(PeerRole.EDGE, "acme", "kiosk-3"), "ilse"))
    told = set()
    for shown in ((), bearer(token("someone")), bearer(token("Ilse"))):
        cloud.metadata = shown
        for document_id in ("note-1", "nobodys"):
            for ask in (
                cloud.share(cloud.request(document_id, QUESTION)),
                cloud.relay(document_id, QUESTION, 4),
            ):
                with pytest.raises(NotFound) as error:
                    await ask
                told.add((error.value.public_text, str(error.value.metadata())))
        assert await cloud.search("Brandvik") == ()
    assert len(told) == 1
    cloud.metadata = bearer(token("ilse"))
    await cloud.share(cloud.request("note-1", QUESTION))
    await cloud.relay("note-1", QUESTION, 4)
    assert [found.document for found in await cloud.search("Brandvik")] == ["note-1"]
    store.revoke("acme", "note-1", named_user("ilse"))
    with pytest.raises(NotFound):
        await cloud.share(cloud.request("note-1", QUESTION))
    store.close()


async def test_the_longest_token_arrives_with_all_else_that_a_call_may_say_and_a_longer_one_is_named(
    start_local: Start, jwks: Path
) -> None:
    cloud = await start_local(users=UsersConfig(str(jwks), "kvwire/{tenant}"))
    made = (token(header={"typ": "at"}, exp=int(NOW) + 600, pad="x" * n) for n in range(5_900, 6_100))
    long = next(one for one in made if len(one) == MAX_TOKEN_CHARS)
    for _ in range(3):  # over gRPC's own soft limit it is chance
        cloud.metadata = (*bearer(long), ("other", "x" * 6_000))
        await cloud.share(cloud.request("note-1", QUESTION))
    cloud.metadata = bearer(f"{long}x")
    with pytest.raises(TokenRefused):
        await cloud.share(cloud.request("note-1", QUESTION))


async def test_a_cloud_that_demands_tokens_says_what_it_offers_without_one(
    start_local: Start, jwks: Path
) -> None:
    cloud = await start_local(users=UsersConfig(str(jwks), "kvwire/acme", required=True))
    async with cloud.channel() as channel:
        stub = SharerServiceStub(channel)  # type: ignore[no-untyped-call]
        told = await stub.Describe(pb.DescribeRequest(protocol_version=PROTOCOL_VERSION), timeout=20)
    assert told.sharer.name
    with pytest.raises(TokenRefused):
        await cloud.share(cloud.request("note-1", QUESTION))


async def test_all_that_leaves_by_an_edge_counts_for_it_and_a_users_part_for_the_user_too(
    start_local: Start, config: CloudConfig, jwks: Path
) -> None:
    policy = dataclasses.replace(config.export, questions_per_day=2)
    cloud = await start_local(export=policy, users=UsersConfig(str(jwks), "kvwire/acme"))
    store = Documents(config.documents)
    ilse, someone, nobody = bearer(token("ilse")), bearer(token("someone")), ()

    async def ask(shown: tuple[tuple[str, str], ...]) -> None:
        cloud.metadata = shown
        await cloud.share(cloud.request("note-1", QUESTION))

    await ask(ilse)
    await ask(nobody)
    for shown in (ilse, someone, nobody):  # nobody gets more by showing a token, or none
        with pytest.raises(ExposureSpent):
            await ask(shown)
    for cloud.metadata in (ilse, someone):
        assert await cloud.search("Brandvik") == ()
    cloud.metadata = nobody  # by the edge two have found nothing
    with pytest.raises(ExposureSpent):
        await cloud.search("Brandvik")
    days, quotes = store.exposure("acme", "note-1")
    assert [(day.identity, day.questions) for day in days] == [(ACME.uri, 2), ("user:ilse", 1)]
    assert [one.identity for one in quotes] == [ACME.uri, "user:ilse"]  # where each stands once
    kiosk = Principal(Identity(PeerRole.EDGE, "acme", "kiosk-3"), "ilse")
    store.count(kiosk, [Leaving("note-1", Budget(questions=2), 1)])
    with pytest.raises(ExposureSpent):
        store.count(kiosk, [Leaving("note-1", Budget(questions=2), 1)])
    with pytest.raises(TokenRefused):
        await ask(bearer(token(exp=NOW - 60)))
    async with asyncio.timeout(20):  # refusals are written beside the calls
        while (written := list(lines(cloud.audit)))[-1]["decision"] != "TOKEN_REFUSED":
            await asyncio.sleep(0.05)
    sent = [line for line in written if (line["method"], line["decision"]) == ("Share", "SENDING")]
    assert [(line["identity"], line["user"]) for line in sent] == [(ACME.uri, "ilse"), (ACME.uri, "")]
    refused = [line for line in written if line["decision"] == "TOKEN_REFUSED"]
    assert [(line["identity"], line["user"]) for line in refused] == [(ACME.uri, "")]
    (told,) = exposure_in(written, "acme", "note-1").values()
    assert told == (days, quotes)
    store.close()


async def test_where_everybody_needs_a_token_users_have_their_budgets_whatever_leaves_by_the_edge(
    start_local: Start, config: CloudConfig, jwks: Path
) -> None:
    policy = dataclasses.replace(config.export, questions_per_day=1)
    users = UsersConfig(str(jwks), "kvwire/acme", required=True)
    cloud = await start_local(export=policy, users=users)
    for user in ("ilse", "someone"):
        cloud.metadata = bearer(token(user))
        *_, ended = await cloud.share(cloud.request("note-1", QUESTION))
        assert ended.questions_left == 0
        with pytest.raises(ExposureSpent):
            await cloud.share(cloud.request("note-1", QUESTION))
    store = Documents(config.documents)
    days, _ = store.exposure("acme", "note-1")
    assert [(day.identity, day.questions) for day in days] == [
        (ACME.uri, 2),
        ("user:ilse", 1),
        ("user:someone", 1),
    ]
    store.close()
