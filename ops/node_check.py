"""What `kvwire doctor --config` and `kvwire config check` look at: all that a node's configuration names"""

import contextlib
import dataclasses
import errno
import json
import os
import socket
import tomllib
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kvwire.identity import TRUST_DOMAIN, ModelRef, PeerRole
from ops.finding import Finding, State, looked
from ops.offer_check import offer_findings
from ops.output import printable
from ops.tls_check import tls_findings

if TYPE_CHECKING:
    from cloud_node import CloudConfig
    from cloud_node.config import UsersConfig
    from edge_node import EdgeConfig
    from fuser.bundle.bundle import Bundle
    from fuser.models.load import DeviceName, DtypeName

_HEALTH_S = 5.0
_HEALTH_BYTES = 4_096


def role_of(path: Path) -> PeerRole:
    """Whose configuration a file is, by its tables.

    Raises:
        ValueError: it is neither's, or no TOML.
        OSError: it cannot be read.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # no TOML, or no UTF-8
        raise ValueError(f"{path}: {error}") from error
    found = [role for role, table in _TABLE.items() if table in tables]
    if len(found) != 1:
        raise ValueError(f"{path} needs either [sharer], as a cloud.toml, or [receiver], as an edge.toml")
    return found[0]


_TABLE = {PeerRole.CLOUD: "sharer", PeerRole.EDGE: "receiver"}


def node_findings(path: Path, role: PeerRole, *, far: bool = True) -> Iterator[Finding]:
    """About the node that `path` configures. A configuration that is refused is the only finding.

    far: ask a node that runs at these addresses too, and an edge's cloud, which may take seconds.
    """
    yield from looked("config", lambda: _node(path, role, far), "see the README's configurations")


def _node(path: Path, role: PeerRole, far: bool) -> Iterator[Finding]:
    if role is PeerRole.CLOUD:
        from cloud_node import CloudConfig

        cloud = CloudConfig.load(path)
        yield Finding(State.GOOD, "config", f"{path}: a cloud")
        yield from _cloud(cloud, far)
    else:
        from edge_node import EdgeConfig

        edge = EdgeConfig.load(path)
        yield Finding(State.GOOD, "config", f"{path}: an edge")
        yield from _edge(edge, far)
        if far:
            yield from _far(edge)


def _edge(config: "EdgeConfig", far: bool) -> Iterator[Finding]:
    yield from _tls(config.tls, PeerRole.EDGE)
    own = config.receiver
    then = "change device or dtype in [receiver], or install the torch build for this GPU"
    yield from looked("receiver.device", lambda: _device("receiver", own.device, own.dtype), then)
    model = yield from _model("receiver.model", config.receiver.model)
    bundle = yield from _bundle("receiver.bundle", config.receiver.bundle, model, PeerRole.EDGE)
    if bundle is not None:
        known = bundle  # for the closure
        yield from looked(
            "receiver.least_confidence", lambda: _confidence(config, known), "change [receiver]"
        )
        yield from looked("share", lambda: _share(config, known), "change [share]")
    listen, taken = config.api.listen, "nothing, where that is an edge node of yours; else change listen"
    yield from looked(
        "api.listen", lambda: _address("api.listen", listen, taken), "change listen to a loopback address"
    )
    if config.api.keys_file is not None:
        yield from looked("api.keys_file", lambda: _keys(config), "write a key a line into that file")
    yield from _telemetry(config.telemetry.listen, far)


def _far(config: "EdgeConfig") -> Iterator[Finding]:
    """What an edge's cloud says, if it answers."""
    from fuser.bundle.bundle import BadBundle, Bundle

    bundle: Bundle | None = None
    with contextlib.suppress(BadBundle, OSError):  # told already
        bundle = Bundle.load(config.receiver.bundle)
    address = config.cloud.address
    then = f"is `kvwire cloud` running at {address}? was this certificate revoked? `kvwire smoke` goes step by step"
    yield from looked("cloud", lambda: offer_findings(config, bundle), then)


def _telemetry(listen: str | None, ask: bool) -> Iterator[Finding]:
    """Whether it can be listened on, and with `ask` what a node that runs there says of its health."""
    if listen is not None:
        key, taken = "telemetry.listen", "nothing, where that is this node; else change listen"
        then = "change listen to an address of this machine"
        yield from looked(key, lambda: _address(key, listen, taken), then)
        if ask:
            with contextlib.suppress(OSError, ValueError):  # nobody is there, or no node
                yield _health(listen)


def _health(listen: str) -> Finding:
    """Raises OSError or ValueError where no node answers."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy has another loopback
    try:
        with direct.open(f"http://{listen}/healthz", timeout=_HEALTH_S) as reply:
            said = json.loads(reply.read(_HEALTH_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            said = json.loads(error.read(_HEALTH_BYTES))
    if not isinstance(said, dict) or said.get("status") not in ("SERVING", "NOT_SERVING"):
        raise ValueError("no health of a node")
    found = ", ".join(printable(str(value)) for value in said.values())
    if said["status"] == "SERVING":
        return Finding(State.GOOD, "health", found)
    return Finding(
        State.BAD, "health", found, "docs/operations.md, under alerts, says what to do for each reason"
    )


def _cloud(config: "CloudConfig", far: bool) -> Iterator[Finding]:
    yield from _tls(config.tls, PeerRole.CLOUD)
    if config.users.jwks is not None:
        yield from looked("users.jwks", lambda: _users(config.users), "a JWK Set with public keys")
    own = config.sharer
    if config.ray.address == "local":  # else the replicas run elsewhere
        then = "change device, dtype or gpus in [sharer], or install the torch build for this GPU"
        yield from looked("sharer.device", lambda: _device("sharer", own.wanted_device, own.dtype), then)
    model = yield from _model("sharer.model", config.sharer.model)
    for directory in config.sharer.bundles:
        yield from _bundle("sharer.bundles", directory, model, PeerRole.CLOUD)
    taken = "nothing, where that is a cloud node of yours; else change listen"
    yield from looked(
        "listen",
        lambda: _address("listen", config.listen, taken),
        "change listen to an address of this machine",
    )
    yield _export(config)
    yield from looked("audit", lambda: _audit(config), "keep the file, and name another one")
    yield from looked("documents", lambda: _documents(config), "mend the URL, or start the database")
    yield from _telemetry(config.telemetry.listen, far)
    if config.ray.token is not None and not Path(config.ray.token).is_file():
        yield Finding(
            State.BAD, "ray.token", f"{config.ray.token}: no such file", "name the cluster's token file"
        )


def _export(config: "CloudConfig") -> Finding:
    """What may leave, and what that was measured to give away."""
    from cloud_node.config import PROFILES

    policy = config.export
    profile = PROFILES[policy.profile]
    quoted = f"up to {policy.max_quoted} positions in {policy.max_runs} {'run' if policy.max_runs == 1 else 'runs'}"
    found = (
        f"{policy.profile}: {', '.join(policy.kinds)}; quotes {quoted if policy.max_quoted else 'nothing'}"
    )
    if profile.beyond is None:
        then = "`kvwire audit` measures what a plan gives away; docs/privacy.md has the other profiles"
        return Finding(State.NOTE, "export", found, then)
    measured = (
        f"measured for a short document: {profile.beyond} content tokens beyond an answer, {profile.together} % of "
        "the document's after three ordinary questions, more after more (docs/privacy.md)"
    )
    return Finding(State.GOOD, "export", f"{found}; {measured}")


def _device(table: str, device: "DeviceName", dtype: "DtypeName") -> Iterator[Finding]:
    from fuser.models.load import device_text, dtype_of, find_device

    found = find_device(device)
    what = str(dtype_of(dtype, found)).removeprefix("torch.")
    yield Finding(State.GOOD, f"{table}.device", f"{device_text(found)} in {what}")


def _keys(config: "EdgeConfig") -> Iterator[Finding]:
    yield Finding(State.GOOD, "api.keys_file", f"{config.api.keys_file}: {len(config.api.keys())} keys")


def _tls(tls: object, role: PeerRole) -> Iterator[Finding]:
    assert dataclasses.is_dataclass(tls) and not isinstance(tls, type)
    files = dataclasses.asdict(tls)
    revoked = files.pop("revoked", None)
    yield from looked("tls", lambda: tls_findings(files, f"spiffe://{TRUST_DOMAIN}/{role}/"))
    if revoked is not None:
        then = "a serial number in hex or a SPIFFE id a line"
        yield from looked("tls.revoked", lambda: _revoked(revoked), then)


def _revoked(path: str) -> Iterator[Finding]:
    from cloud_node.revoked import Revoked

    Revoked(path)
    yield Finding(State.GOOD, "tls.revoked", f"{path} can be read")


def _users(config: "UsersConfig") -> Iterator[Finding]:
    from cloud_node.users import Users

    yield Finding(
        State.GOOD, "users.jwks", f"{config.jwks}: {Users(config).keys} keys, for {config.audience}"
    )


def _model(key: str, name: str) -> Generator[Finding, None, ModelRef | None]:
    """The model that `key` names, if it is on this machine."""
    from fuser.models.directory import ModelError, NotFetched, model_ref
    from ops.models.fetch import find

    try:
        found = find(name)
        ref = model_ref(found)
    except NotFetched:
        then = f"kvwire models fetch {name}; else the node fetches it when it starts"
        yield Finding(State.NOTE, key, f"{name} is not on this machine", then)
    except (ModelError, OSError, ValueError) as error:
        yield Finding(
            State.BAD, key, str(error), "give a known name (`kvwire models list`) or a model's directory"
        )
    else:
        yield Finding(State.GOOD, key, f"{name}: {found}")
        return ref
    return None


def _bundle(
    key: str, directory: str, model: ModelRef | None, role: PeerRole
) -> "Generator[Finding, None, Bundle | None]":
    """The bundle in a directory that `key` names, where it can be read and is for the model."""
    from fuser.bundle.bundle import BadBundle, Bundle
    from fuser.models.directory import shipped_bundles

    try:
        bundle = Bundle.load(directory)
    except (BadBundle, OSError) as error:
        shipped = ", ".join(shipped_bundles())
        then = f"name a bundle that ships ({shipped}), or a directory counted from the configuration's own folder"
        yield Finding(State.BAD, key, str(error), then)
        return None
    config = bundle.config
    wanted = config.sharer if role is PeerRole.CLOUD else config.receiver
    if model is not None and model != wanted:
        found = f"{directory} is for {wanted}, not for {model}"
        yield Finding(
            State.BAD, key, found, "name the model that this bundle is for, or a bundle for this model"
        )
        return None
    slices = ", ".join(sorted(bundle.kinds))
    yield Finding(State.GOOD, key, f"{directory}: {bundle.hash[:12]}, {slices}, for {wanted.name}")
    return bundle


def _confidence(config: "EdgeConfig", bundle: "Bundle") -> Iterator[Finding]:
    """What is withheld, where that is configured."""
    config.receiver.check_confidence(bundle.config.confidence)
    if (least := config.receiver.least_confidence) is not None:
        yield Finding(State.GOOD, "receiver.least_confidence", f"{least:g}")


def _share(config: "EdgeConfig", bundle: "Bundle") -> Iterator[Finding]:
    """Whether a slice can be asked for as configured."""
    from fuser.bundle.plans import PlanTable
    from kvwire.codec import CodecRegistry

    CodecRegistry(bundle.codecs()).get(config.share.codec)
    if config.share.plan == "auto":
        PlanTable.load(Path(config.receiver.bundle), bundle.hash)
    yield Finding(State.GOOD, "share", f"plan {config.share.plan}, codec {config.share.codec}")


def _address(key: str, listen: str, taken: str) -> Iterator[Finding]:
    """Whether an address can be listened on; `taken` says what to do where it is in use."""
    if _free(listen):
        yield Finding(State.GOOD, key, f"{listen} is free")
    else:
        yield Finding(State.NOTE, key, f"{listen} is taken", taken)


def _free(address: str) -> bool:
    """Whether "host:port" can be listened on. Raises OSError for one that is not this machine's."""
    from edge_node.config import split_address

    host, port = split_address(address)
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return True
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False


def _audit(config: "CloudConfig") -> Iterator[Finding]:
    from cloud_node.audit import key_beside, public_hex, signing_key
    from cloud_node.audit_chain import TornTail, verify

    path = Path(config.audit)
    if not path.exists():
        yield _to_be_made("audit", path)
        return
    _check_writable(path)
    key = Path(config.audit_key) if config.audit_key else key_beside(path)
    try:
        found = verify(path, public_hex(signing_key(key)) if key.exists() else None, first=None)
        if found.records and not found.signed:
            raise FileNotFoundError(f"{key}: the key that signed {path} is not there")
        told = (
            f"{path}: {found.records:,} records from number {found.first} on, the chain holds and is signed"
        )
        yield Finding(State.GOOD, "audit", told)
    except TornTail as torn:
        yield Finding(State.NOTE, "audit", str(torn), "nothing: it is mended when the node starts")


def _documents(config: "CloudConfig") -> Iterator[Finding]:
    from sqlalchemy.engine import make_url

    from cloud_node.documents import look

    url = make_url(config.documents)
    shown = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite" and url.database:
        path = Path(url.database)
        if not path.exists():
            yield _to_be_made("documents", path)
            return
        _check_writable(path)
    look(config.documents)
    yield Finding(State.GOOD, "documents", f"{shown} can be opened")


def _check_writable(path: Path) -> None:
    if not os.access(path, os.R_OK | os.W_OK):
        raise PermissionError(f"{path} cannot be read and written by this user")


def _to_be_made(key: str, path: Path) -> Finding:
    """A file that the node makes when it starts, if it may."""
    place = path.parent
    while not place.exists():
        place = place.parent
    if os.access(place, os.W_OK):
        return Finding(State.GOOD, key, f"{path} is made at the first start")
    return Finding(State.BAD, key, f"{path} cannot be made in {place}", f"let this user write in {place}")
