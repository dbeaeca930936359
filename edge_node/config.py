"""EdgeConfig: everything an edge node is told, read once from TOML; unknown keys are refused by name."""

from __future__ import annotations

import dataclasses
import re
import ssl
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fuser import DeviceName, DtypeName, bundle_directory
from fuser.config import BadConfig, read_toml
from kvwire.errors import AccessDenied
from kvwire.identity import Identity, PeerRole
from kvwire.plan import Plan
from kvwire.segment import SliceKind
from kvwire.telemetry import TelemetryConfig

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\]")


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """PEM files: the edge's certificate chain and key, and the authority that signs the cloud's."""

    certificate: str
    key: str
    authority: str

    def load(self) -> tuple[ssl.SSLContext, bytes, bytes]:
        """A context that shows the certificate and trusts the authority alone; certificate chain and key as PEM.

        Raises:
            BadConfig: a file is missing or cannot be used; names the key.
        """
        contents = {}
        for key, path in dataclasses.asdict(self).items():
            try:
                contents[key] = Path(path).read_bytes()
            except OSError as error:
                raise BadConfig(f"tls.{key}: {path}: {error.strerror}") from error
            if b"-----BEGIN " not in contents[key]:
                raise BadConfig(f"tls.{key}: {path}: not a PEM file")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False  # the SPIFFE id is checked instead
        context.set_alpn_protocols(["h2"])
        try:
            context.load_verify_locations(self.authority)
        except OSError as error:
            raise BadConfig(f"tls.authority: {self.authority}: no certificate that can be read") from error
        try:
            context.load_cert_chain(self.certificate, self.key, password="")  # never asked for on a terminal
        except OSError as error:
            why = getattr(error, "reason", None) or error.strerror
            if why == "KEY_VALUES_MISMATCH":
                raise BadConfig(f"tls.key: {self.key} is not the key of {self.certificate}") from error
            raise BadConfig(f"tls.certificate: {self.certificate} with the key {self.key}: {why}") from error
        return context, contents["certificate"], contents["key"]


@dataclass(frozen=True, slots=True)
class CloudPeer:
    """The cloud this edge talks to.

    address: "host:port" of its gateway.
    fallbacks: addresses of further gateways, tried in order where one before does not answer or takes no calls. Each
        holds what the first one holds.
    identity: the SPIFFE id its certificate must carry; the host's name proves nothing.
    """

    address: str = "127.0.0.1:7443"
    identity: str = Identity(PeerRole.CLOUD, "main").uri
    fallbacks: tuple[str, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        """All of them, in the order in which they are tried."""
        return (self.address, *self.fallbacks)

    def __post_init__(self) -> None:
        for address in self.addresses:
            split_address(address)
        if len(set(self.addresses)) < len(self.addresses):
            raise ValueError("an address stands among the fallbacks twice")
        try:
            role = Identity.parse(self.identity).role
        except AccessDenied as error:
            raise ValueError(str(error)) from error
        if role is not PeerRole.CLOUD:
            raise ValueError(f"identity {self.identity!r} is not a cloud's")


@dataclass(frozen=True, slots=True)
class ReceiverConfig:
    """What runs here.

    model: a directory, or a model on this machine by its known name or Hugging Face id; `kvwire` fetches it first.
    bundle: directory of the bundle trained for the pair, or the name of one that ships.
    threads: torch threads; 0 leaves torch's own choice.
    device: where model and heads compute; auto is a GPU where there is one, else the CPU.
    dtype: what the model computes in; auto is bfloat16 where the device multiplies it, else float32. float16 needs
        a GPU.
    least_confidence: an answer from a slice that is less likely to be right is withheld (`Answer.confidence`); 0
        withholds none, and left out it is as the bundle has it.
    """

    model: str
    bundle: str
    max_new_tokens: int = 64
    least_confidence: float | None = None
    threads: int = 0
    device: DeviceName = "auto"
    dtype: DtypeName = "auto"

    def __post_init__(self) -> None:
        if self.dtype == "float16" and self.device == "cpu":
            raise ValueError("dtype float16 needs a GPU; on a CPU take auto, bfloat16 or float32")
        if self.max_new_tokens < 1 or self.threads < 0:
            raise ValueError("max_new_tokens starts at 1, threads at 0")
        if self.least_confidence is not None and not 0 <= self.least_confidence <= 1:
            raise ValueError("least_confidence is 0 to 1")

    def check_confidence(self, told: Collection[str]) -> None:
        """Refuse a `least_confidence` that no answer could be held to.

        Args:
            told: the kinds of slice behind which the bundle tells how likely an answer is right.

        Raises:
            BadConfig: there are none, and it is above 0.
        """
        if self.least_confidence and not told:
            raise BadConfig(
                "receiver.least_confidence: this bundle cannot tell how likely answers are right; leave the key out, "
                "or name a bundle that can (docs/concepts.md)"
            )


@dataclass(frozen=True, slots=True)
class ShareConfig:
    """How a slice is asked for.

    plan: "codec" asks with the codec and the positions given here; "auto" picks from the bundle's table of plans
        (docs/plans.md), which must be there.
    kind: of the slice where a document of the cloud is asked about: "excerpt" quotes the document and is the fastest;
        "draft" says only what the Sharer would answer, after it has written that. Empty is the one with which the
        bundle answers best.
    codec: a codec's name; both sides must know it.
    max_positions: positions wanted at most; the cloud's export policy may allow fewer.
    deadline_s: the time the cloud has for a whole slice, connecting and retries included; then a question
        about a document of the cloud is not answered, and any other by the Receiver alone. It is cut to
        `Limits.max_deadline_s`.
    max_bytes: cap on the payload of a slice; 0 is none. Under a cap a plan is picked from the table, if there is one.
    history_turns: earlier turns of a conversation that are sent where a draft is asked for, for the Sharer to read; 0
        sends none.
    relay: where no plan fits or is of use, or the bundle has none, ask for the Sharer's own answer as text; the cloud's
        policy must allow it.
    """

    kind: Literal["", "excerpt", "draft"] = ""
    codec: str = "lossless"
    max_positions: int = 32
    deadline_s: float = 20.0
    plan: Literal["codec", "auto"] = "codec"
    max_bytes: int = 0
    relay: bool = False
    history_turns: int = 3

    def __post_init__(self) -> None:
        if self.max_positions < 1 or not 0 < self.deadline_s < float("inf") or self.max_bytes < 0:
            raise ValueError("max_positions starts at 1, deadline_s is above 0, max_bytes starts at 0")
        if self.history_turns < 0:
            raise ValueError("history_turns starts at 0")

    def usual(self, document: bool, best: str) -> SliceKind:
        """The kind of slice for a prompt with or without a document of the cloud. best: that of the bundle."""
        return SliceKind(self.kind or best) if document else SliceKind.SHARED

    def configured(self, kind: SliceKind) -> Plan:
        """The plan of codec and positions; a shared slice has those of its sections."""
        return Plan(codec=self.codec, positions=0 if kind is SliceKind.SHARED else self.max_positions)


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """The local HTTP API.

    listen: a loopback address, as what is said is not encrypted; `localhost` is that of IPv4 and of IPv6. Another one
        is for a container or behind a proxy that ends TLS, and needs `hosts` and `keys_file`.
    hosts: names besides those of loopback by which callers and pages may name this edge, without a port.
    at_once: requests that are answered at once. max_waiting: that wait meanwhile; more are told to come again.
    documents: ids of documents that GET /v1/models lists, as "kvwire/ID"; any other may be asked about as well.
    keys_file: a text file with a key a line, one of which every caller must show; None asks for none.
    """

    listen: str = "localhost:7480"
    max_body_bytes: int = 1 << 20
    at_once: int = 4
    max_waiting: int = 8
    documents: tuple[str, ...] = ()
    keys_file: str | None = None
    hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        host, _ = split_address(self.listen)
        if host not in ("127.0.0.1", "::1", "localhost") and not (self.hosts and self.keys_file):
            raise ValueError(
                f"listen {self.listen!r} is not on loopback, and the API has no TLS: behind a proxy that ends it, or "
                "in a container, say by which hosts it is called and give it a keys_file"
            )
        if wrong := [name for name in self.hosts if not _HOST.fullmatch(name)]:
            raise ValueError(f"hosts: {wrong[0]!r} is no host's name or address without a port")
        if min(self.max_body_bytes, self.at_once) < 1 or self.max_waiting < 0:
            raise ValueError("max_body_bytes and at_once start at 1, max_waiting at 0")

    def keys(self) -> tuple[str, ...]:
        """The keys of `keys_file`; none where no file is named.

        Raises:
            BadConfig: the file cannot be read, or holds no key, or one that no caller can show; names the key.
        """
        if self.keys_file is None:
            return ()
        try:
            lines = Path(self.keys_file).read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise BadConfig(f"api.keys_file: {self.keys_file}: {why}") from error
        keys = tuple(line.strip() for line in lines if line.strip())
        for number, line in enumerate(lines, 1):
            if not (line.strip().isascii() and line.strip().isprintable()):
                raise BadConfig(f"api.keys_file: {self.keys_file}: line {number} is not printable ASCII")
        if not keys:
            raise BadConfig(f"api.keys_file: {self.keys_file}: there is no key in it")
        return keys


@dataclass(frozen=True, slots=True)
class EdgeConfig:
    """The whole configuration of one edge node. Paths are absolute after `load`.

    capture: file to which every protobuf message sent or received is appended (`edge_node.channel`); it holds
        questions as they were sent, so leave it out except to audit the wire.
    """

    tls: TlsConfig
    receiver: ReceiverConfig
    cloud: CloudPeer = field(default_factory=CloudPeer)
    share: ShareConfig = field(default_factory=ShareConfig)
    api: ApiConfig = field(default_factory=ApiConfig)
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)
    capture: str | None = None

    @classmethod
    def load(cls, path: str | Path) -> EdgeConfig:
        """Read a TOML file; relative paths in it count from the file's own directory.

        Raises:
            BadConfig: unknown or missing key, wrong type or refused value, or no valid TOML; names file and key.
            OSError: the file cannot be read.
        """
        return read_toml(cls, Path(path))

    def check_files(self) -> None:
        """Refuse what a node could not run with, where it starts.

        Raises:
            BadConfig: a file of `[tls]` or `[api]` is missing or cannot be used; names the key.
        """
        self.tls.load()
        self.api.keys()

    def relative_to(self, directory: Path) -> EdgeConfig:
        """The same configuration with relative paths taken from `directory`."""

        def absolute(name: str) -> str:
            return str(directory / Path(name).expanduser())

        def model(name: str) -> str:
            return absolute(name) if name.startswith((".", "~")) or (directory / name).is_dir() else name

        return dataclasses.replace(
            self,
            tls=TlsConfig(*(absolute(name) for name in dataclasses.astuple(self.tls))),
            receiver=dataclasses.replace(
                self.receiver,
                model=model(self.receiver.model),
                bundle=str(bundle_directory(self.receiver.bundle, directory)),
            ),
            api=dataclasses.replace(
                self.api, keys_file=None if self.api.keys_file is None else absolute(self.api.keys_file)
            ),
            capture=None if self.capture is None else absolute(self.capture),
        )


def split_address(address: str) -> tuple[str, int]:
    """Host and port of "host:port" or "[IPv6]:port".

    Raises:
        ValueError: it is not of that form.
    """
    host, separator, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (separator and host and port.isascii() and port.isdigit() and int(port) < 65_536):
        raise ValueError(f"not an address of the form host:port: {address!r}")
    return host, int(port)
