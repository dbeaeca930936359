"""CloudConfig: everything a cloud node is told, read once from TOML; unknown keys are refused by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from cloud_node.redaction import Redaction
from fuser import DeviceName, DtypeName, PrefixFiles, bundle_directory
from fuser.config import read_toml
from kvwire.limits import PING_S, Limits
from kvwire.plan import Granted
from kvwire.segment import SliceKind
from kvwire.telemetry import TelemetryConfig

_MIB = 1 << 20
_MOST_REPLICAS: Final = 1_000
_MOST_WEIGHT: Final = 1_000


@dataclass(frozen=True, slots=True)
class CloudTls:
    """PEM files: the node's certificate chain and key, and the authority behind the edges' certificates.

    All are read again when they change. revoked: a file of serial numbers and SPIFFE ids that are no longer good, one a
    line (`cloud_node.revoked`).
    """

    certificate: str
    key: str
    authority: str
    revoked: str | None = None


@dataclass(frozen=True, slots=True)
class UsersConfig:
    """`[users]`: users behind the edges, whom tokens name that edges hand on (`cloud_node.users`).

    jwks: the public keys of who issues tokens, a JWK Set; read again when it changes. None: there are no users, and a
        token is refused.
    audience: whom a token must be for (`aud`); "{tenant}" in it stands for the tenant of the edge's certificate, so
        that one tenant's edge can do nothing with a token of another's user.
    issuer: who must have issued it (`iss`); "" is whoever has such a key.
    required: refuse calls without a token. Then users have budgets, and edges none.
    """

    jwks: str | None = None
    audience: str = ""
    issuer: str = ""
    required: bool = False

    def __post_init__(self) -> None:
        if (self.jwks is None) != (not self.audience):
            raise ValueError("jwks and audience are given together: a token for somebody else is no token")
        if self.jwks is None and (self.required or self.issuer):
            raise ValueError("required and issuer need jwks")


@dataclass(frozen=True, slots=True)
class SharerConfig:
    """What the replicas run and what each may use.

    model: a directory, or a model on this machine by its known name or Hugging Face id; `kvwire` fetches it first.
    bundles: directories of bundles trained for this Sharer, or names of those that ship; at least one.
    replicas: how many there are, or at least where `max_replicas` lets Ray Serve add to them; 1,000 at most.
    max_replicas: how many there may be while callers keep them busy: one is added where each has more than half of
        `max_ongoing` - 1 calls, the node's own question being one while it is under way. A local Ray reserves `cpus`
        and `gpus` for all of them. 0: always `replicas`.
    scale_up_s, scale_down_s: for how long before Ray Serve adds one, and takes one away; its calls have
        `gateway.drain_s` to end.
    cpus: cores per replica: Ray's reservation and the number of torch threads.
    gpus: of a GPU per replica, as Ray reserves and hands them out; a part of one is shared with other replicas, and
        more than one is refused, as a model lies on one.
    device: where a replica computes; auto is the GPU that Ray hands it where gpus is above 0, else whatever GPU torch
        finds, else the CPU.
    dtype: what the model computes in; auto is bfloat16 where the device multiplies it, else float32
        (`fuser.models.load`). float16 needs a GPU.
    max_ongoing: calls a replica holds at once, beside one of the node's own; one tenant's never have all places of all
        replicas.
    max_batch: prompts of those that are prefilled together at most; 1 prefills each alone. What is sent has the same
        bits on a CPU, and differs in the last ones on a GPU.
    max_batch_positions: positions prefilled together at most; longer prompts are prefilled alone, and shorter ones
        overtake them.
    max_queued: calls waiting for a replica, over all of them.
    retry_after_s: when calls beyond that are told to come again.
    max_prompt_tokens: the longest prompt a replica prefills; 0 takes the model's own window.
    memory_bytes: what prompts may take of a replica's memory, for K and V of all layers and what a layer computes with:
        longer ones are TOO_LARGE before they are prefilled, and those that do not fit beside others wait. 0 takes four
        fifths of what its device, or the machine and its container, has free once the model is loaded, shared by the
        replicas there, less `prefix_cache_bytes` of each; half of it is for documents that are read ahead. What is free
        differs from start to start: set it in production.
    prefix_store: a folder for K and V of documents, which are read while nobody asks, so that the first question over
        one need not read it either; for all replicas of a machine. They go with their document. By default `prefixes`
        beside a SQLite file of documents, else beside the audit log; "" keeps none.
    prefix_store_bytes: of that folder at most.
    prefix_cache_bytes: K and V of documents asked about lately that a replica keeps in memory, so that the next
        question over one need not read it again; a removed or replaced document's go within seconds. 0 keeps none.
    """

    model: str
    bundles: tuple[str, ...]
    replicas: int = 1
    max_replicas: int = 0
    scale_up_s: float = 30.0
    scale_down_s: float = 600.0
    cpus: float = 1.0
    gpus: float = 0.0
    device: DeviceName = "auto"
    dtype: DtypeName = "auto"
    max_ongoing: int = 8
    max_batch: int = 8
    max_batch_positions: int = 512
    max_queued: int = 16
    retry_after_s: float = 1.0
    max_prompt_tokens: int = 0
    memory_bytes: int = 0
    prefix_cache_bytes: int = 256 * _MIB
    prefix_store: str | None = None
    prefix_store_bytes: int = 4096 * _MIB

    def __post_init__(self) -> None:
        if not self.bundles:
            raise ValueError("bundles: at least one bundle directory is needed")
        if min(self.replicas, self.max_ongoing, self.max_batch, self.max_batch_positions) < 1:
            raise ValueError("replicas, max_ongoing, max_batch and max_batch_positions start at 1")
        if self.most_replicas > _MOST_REPLICAS:
            raise ValueError(f"replicas and max_replicas are at most {_MOST_REPLICAS:,}")
        if self.max_replicas and self.max_replicas < self.replicas:
            raise ValueError("max_replicas is below replicas")
        if min(self.scale_up_s, self.scale_down_s) < 0:
            raise ValueError("scale_up_s and scale_down_s start at 0")
        if self.device == "cuda" and self.gpus == 0:
            raise ValueError("device cuda needs gpus above 0: Ray hands a replica no other GPU")
        if self.gpus > 1:
            raise ValueError(
                "gpus is at most 1: a replica's model lies on one GPU; more GPUs take more replicas"
            )
        if self.device in ("cpu", "mps") and self.gpus > 0:
            raise ValueError(f"gpus are reserved for nothing where device is {self.device}")
        if self.dtype == "float16" and self.gpus == 0 and self.device != "mps":
            raise ValueError("dtype float16 needs a GPU; on a CPU take auto, bfloat16 or float32")
        sizes = self.memory_bytes, self.prefix_cache_bytes, self.prefix_store_bytes
        if min(self.max_queued, self.max_prompt_tokens, *sizes) < 0:
            raise ValueError(
                "max_queued, max_prompt_tokens, memory_bytes, prefix_cache_bytes and prefix_store_bytes start at 0"
            )
        if self.cpus <= 0 or self.gpus < 0 or self.retry_after_s <= 0:
            raise ValueError("cpus and retry_after_s must be above 0 and gpus at least 0")

    @property
    def most_replicas(self) -> int:
        """How many there can be at once."""
        return max(self.replicas, self.max_replicas)

    @property
    def wanted_device(self) -> DeviceName:
        """`device`, where "auto" is no longer open once a GPU is reserved: there must be one then."""
        return "cuda" if self.device == "auto" and self.gpus > 0 else self.device


@dataclass(frozen=True, slots=True)
class RayConfig:
    """Where the replicas run.

    address: "local" starts Ray on this machine, on loopback; anything else is a running cluster's address.
    token: file with the cluster's token. With "local" it may be left out: a fresh one is made for each run.
    start_timeout_s: how long a Ray started here may take; it is tried twice. An attached cluster has twice this.
    load_timeout_s: how long the replicas may take to load their models.
    insecure_dev: attach to a cluster without token authentication; whoever reaches it runs code on it.
    """

    address: str = "local"
    token: str | None = None
    object_store_bytes: int = 128 * _MIB
    start_timeout_s: float = 120.0
    load_timeout_s: float = 600.0
    insecure_dev: bool = False

    def __post_init__(self) -> None:
        if self.object_store_bytes < 80 * _MIB:
            raise ValueError("object_store_bytes: Ray needs at least 80 MiB")
        if min(self.start_timeout_s, self.load_timeout_s) <= 0:
            raise ValueError("start_timeout_s and load_timeout_s must be above 0")
        if self.address != "local" and self.token is None and not self.insecure_dev:
            raise ValueError("token: attaching to a cluster needs its token file (or insecure_dev = true)")


@dataclass(frozen=True, slots=True)
class ExportProfile:
    """What one word of `[export] profile` stands for: keys of `ExportPolicy`, and what slices by them gave away.

    beyond: content tokens of a document that an attack read of a slice beyond answer and question, on average.
    together: the share of a document's content tokens (%) that all questions over it exposed together, three on
        average. Both of the most that the profile lets out, as docs/privacy.md measures it; None: not measured.
    """

    kinds: tuple[SliceKind, ...]
    max_quoted: int
    max_runs: int = 1
    shared_over_documents: int = 0
    beyond: float | None = None
    together: float | None = None


ProfileName = Literal["answer-only", "short-quote", "quote", "custom"]
PROFILES: Final[Mapping[ProfileName, ExportProfile]] = {
    "answer-only": ExportProfile((SliceKind.SHARED, SliceKind.DRAFT), 0, beyond=0.0, together=5.1),
    "short-quote": ExportProfile(tuple(SliceKind), 8, beyond=0.5, together=10.0),
    "quote": ExportProfile(tuple(SliceKind), 16, beyond=1.6, together=18.7),
    "custom": ExportProfile(tuple(SliceKind), 32),
}
_OF_PROFILE: Final[Any] = None  # until `ExportPolicy` has looked


@dataclass(frozen=True, slots=True)
class ExportPolicy:
    """What may leave this cloud.

    profile: gives `kinds`, `max_quoted`, `max_runs` and `shared_over_documents` where they are not written; written
        they may only be less. "answer-only": of documents drafts alone. "short-quote": also one run of up to 8
        positions. "quote": of up to 16. "custom": whatever is written, up to 32 positions in one run where nothing is.
    kinds: the kinds of slice.
    max_quoted: the most positions of documents that a slice quotes: those of an excerpt, or before a draft.
    max_runs: the most runs of neighbours in which they may stand.
    max_positions: the most positions of an excerpt or a draft, and tokens of a relayed text, about documents; a
        document's own cap can only lower it.
    shared_over_documents: positions at most of a shared slice whose prompt has documents. They hold what the Sharer
        read there: 0 lets no such slice out.
    allow_relay: let the Sharer answer as text. Off, no reply carries text.
    positions_per_day, questions_per_day: that an edge, and each user behind it, may have of a document in a day (UTC):
        positions of slices and tokens of relayed texts over it; slices, texts and searches that find it. Searches that
        find nothing are questions of none, as many in a day. 0 is no bound; a document's own can only lower it.
    new_positions_per_day: the same of distinct positions: one that was quoted of this text to the same edge or user, on
        any day, costs nothing. Positions of drafts and shared slices and relayed tokens are new each time, as nothing
        tells which of the document's they repeat.
    allow_search: tell an edge which passages of its tenant's documents have a question's words. Who asks often enough
        learns which words a passage has.
    redact: what is taken out of documents.
    """

    profile: ProfileName = "short-quote"
    kinds: tuple[SliceKind, ...] = _OF_PROFILE
    max_quoted: int = _OF_PROFILE
    max_runs: int = _OF_PROFILE
    max_positions: int = 32
    shared_over_documents: int = _OF_PROFILE
    allow_relay: bool = False
    allow_search: bool = True
    positions_per_day: int = 0
    questions_per_day: int = 0
    new_positions_per_day: int = 0
    redact: Redaction = field(default_factory=Redaction)

    def __post_init__(self) -> None:
        profile = PROFILES[self.profile]
        for key in (one.name for one in dataclasses.fields(self) if one.default is _OF_PROFILE):
            written, most = getattr(self, key), getattr(profile, key)
            if written is _OF_PROFILE:
                object.__setattr__(self, key, most)
            elif self.profile != "custom" and not _within(written, most):
                shown = ", ".join(most) if key == "kinds" else most
                raise ValueError(
                    f'{key}: profile "{self.profile}" allows no more than {shown}; "custom" is bound by no profile'
                )
        for one in dataclasses.fields(self):
            if isinstance(value := getattr(self, one.name), int) and value < 0:
                raise ValueError(f"{one.name} must not be negative")
        if self.max_runs < 1:
            raise ValueError("max_runs starts at 1")

    @property
    def granted(self) -> Granted:
        """What of it an edge is told."""
        return Granted(**{one.name: getattr(self, one.name) for one in dataclasses.fields(Granted)})


def _within(written: Any, most: Any) -> bool:
    return set(written) <= set(most) if isinstance(most, tuple) else bool(written <= most)


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """How the gateway meets its callers.

    max_concurrent_calls: calls beyond it are refused before they are read.
    max_calls_per_tenant, max_calls_per_host: of them, those of one tenant and those from one address. Behind a proxy
        all callers have its address: set max_calls_per_host as high as max_concurrent_calls there.
    weights: by tenant, how many of its waiting calls go to a replica before another tenant's; 1 where none is given.
    max_deadline_s: a call that asks for longer gets this.
    drain_s: after SIGTERM calls in flight have this long to finish.
    keepalive_s, keepalive_timeout_s: a connection that is silent so long is pinged, and closed if nothing comes back.
    min_ping_interval_s: an edge that pings an idle connection oftener is cut off; edges ping every 30 s.
    """

    max_concurrent_calls: int = 64
    max_calls_per_tenant: int = 16
    max_calls_per_host: int = 32
    weights: Mapping[str, int] = field(default_factory=dict)
    max_deadline_s: float = 120.0
    drain_s: float = 20.0
    keepalive_s: float = 30.0
    keepalive_timeout_s: float = 10.0
    min_ping_interval_s: float = 10.0

    def __post_init__(self) -> None:
        if min(self.max_concurrent_calls, self.max_calls_per_tenant, self.max_calls_per_host) < 1:
            raise ValueError("max_concurrent_calls, max_calls_per_tenant and max_calls_per_host start at 1")
        if not all(0 < weight <= _MOST_WEIGHT for weight in self.weights.values()):
            raise ValueError(f"weights are whole numbers from 1 to {_MOST_WEIGHT}")
        if min(self.max_deadline_s, self.keepalive_s, self.keepalive_timeout_s) <= 0 or self.drain_s < 0:
            raise ValueError(
                "max_deadline_s, keepalive_s and keepalive_timeout_s must be above 0, drain_s not below"
            )
        if not 0 < self.min_ping_interval_s <= PING_S:
            raise ValueError(
                f"min_ping_interval_s is above 0 and at most {PING_S:g}: so often every edge pings"
            )


@dataclass(frozen=True, slots=True)
class CloudConfig:
    """The whole configuration of one cloud node. Paths are absolute after `load`.

    audit: the audit log. audit_key: the key that signs it, made at the first start; None is one beside it, with `.key`
        in place of its suffix. audit_rotate_bytes, audit_rotate_daily: as `AuditLog` takes them.
    """

    tls: CloudTls
    sharer: SharerConfig
    listen: str = "127.0.0.1:7443"
    documents: str = "sqlite:///documents.db"
    audit: str = "audit.jsonl"
    audit_key: str | None = None
    audit_rotate_bytes: int = 64 * _MIB
    audit_rotate_daily: bool = False
    users: UsersConfig = field(default_factory=UsersConfig)
    export: ExportPolicy = field(default_factory=ExportPolicy)
    gateway: GatewayConfig = field(default_factory=GatewayConfig)
    ray: RayConfig = field(default_factory=RayConfig)
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)

    def __post_init__(self) -> None:
        if self.audit_rotate_bytes < 0:
            raise ValueError("audit_rotate_bytes starts at 0")
        if not self.documents.startswith(("sqlite:", "sqlite+", "postgresql:", "postgresql+")):
            raise ValueError("documents: a database of SQLite or PostgreSQL, such as sqlite:///documents.db")
        if self.documents.partition("?")[0] in ("sqlite://", "sqlite:///", "sqlite:///:memory:"):
            raise ValueError(
                "documents: replicas are other processes, so a database in memory cannot be shared"
            )

    @property
    def prefix_files(self) -> PrefixFiles | None:
        """Where K and V of documents are kept on disk."""
        folder, size = self.sharer.prefix_store, self.sharer.prefix_store_bytes
        if folder is None:
            scheme, _, file = self.documents.partition("?")[0].partition(":///")
            folder = str(Path(file if scheme.startswith("sqlite") else self.audit).parent / "prefixes")
        return PrefixFiles(Path(folder), size) if folder else None

    @property
    def limits(self) -> Limits:
        """The caps of the wire that this node holds to."""
        return Limits(
            max_deadline_s=self.gateway.max_deadline_s, min_ping_interval_s=self.gateway.min_ping_interval_s
        )

    @classmethod
    def load(cls, path: str | Path) -> CloudConfig:
        """Read a TOML file; relative paths in it count from the file's own directory.

        Raises:
            BadConfig: unknown or missing key, wrong type or refused value, or no valid TOML; names file and key.
            OSError: the file cannot be read.
        """
        return read_toml(cls, Path(path))

    def relative_to(self, directory: Path) -> CloudConfig:
        """The same configuration with relative paths taken from `directory`."""

        def absolute(name: str | None) -> Any:
            return name and str(directory / Path(name).expanduser())

        own, model = self.sharer, self.sharer.model
        a_path = model.startswith((".", "~")) or (directory / model).is_dir()
        sharer = dataclasses.replace(
            own,
            model=absolute(model) if a_path else model,
            bundles=tuple(str(bundle_directory(name, directory)) for name in own.bundles),
            prefix_store=absolute(own.prefix_store),
        )
        return dataclasses.replace(
            self,
            tls=CloudTls(*map(absolute, dataclasses.astuple(self.tls))),
            sharer=sharer,
            documents=_absolute_sqlite(self.documents, directory),
            audit=absolute(self.audit),
            audit_key=absolute(self.audit_key),
            users=dataclasses.replace(self.users, jwks=absolute(self.users.jwks)),
            ray=dataclasses.replace(self.ray, token=absolute(self.ray.token)),
        )


def _absolute_sqlite(url: str, directory: Path) -> str:
    scheme, separator, file = url.partition(":///")
    if not separator or not scheme.startswith("sqlite") or file in ("", ":memory:"):
        return url
    return f"{scheme}:///{directory / Path(file).expanduser()}"
