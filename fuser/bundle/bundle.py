"""A bundle: what was trained for one pair, stored in `config.json` and `fuser.safetensors`, with one hash."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from fuser.atomic import atomic_write, file_bytes
from fuser.bundle import tensors as bundle_tensors
from fuser.bundle.config import BundleConfig, CodecBases, CodecBasesConfig
from fuser.bundle.tensors import BadBundle
from fuser.heads.answerable import Answerable
from fuser.heads.fuse import FuseHead
from fuser.heads.selection import Scorer
from fuser.heads.translate import TranslateHead
from kvwire.codec import Codec
from kvwire.errors import Unsupported
from kvwire.segment import SliceKind

__all__ = ["BadBundle", "Bundle", "BundleConfig"]

CONFIG_FILE = "config.json"
TENSORS_FILE = "fuser.safetensors"
ANSWERABLE_FILE = "answerable.safetensors"
_MAX_CONFIG_BYTES = 1 << 20


class Bundle:
    """A config with its heads.

    Made from heads it takes them as they are, so a trainer may write a bundle and go on; a bundle that is
    loaded has them in evaluation mode and frozen. The hash, once read, is kept: read it after training.

    Args:
        config: which models and what shapes; a head is present exactly where its config is.
        fuse: the fuse head, or None.
        translate: the translate head, or None.
        scorer: of the learnt selection rule, or None.
        codec_bases: of the codecs that the bundle brings, or None.
        answerable: tells whether documents hold an answer, or None. It has a file of its own and is in no hash.

    Raises:
        BadBundle: a head without a config, or a config without a head.
    """

    def __init__(
        self,
        config: BundleConfig,
        fuse: FuseHead | None = None,
        translate: TranslateHead | None = None,
        scorer: Scorer | None = None,
        codec_bases: CodecBases | None = None,
        answerable: Answerable | None = None,
    ) -> None:
        for name, wanted, head in (
            ("fuse", config.fuse is not None, fuse),
            ("translate", config.translate is not None, translate),
            ("scorer", config.selection.rule == "learnt", scorer),
            ("codec_bases", config.codec_bases is not None, codec_bases),
            ("answerable", config.answerable is not None, answerable),
        ):
            if wanted != (head is not None):
                raise BadBundle(f"{name}: the config and the head must both be there, or neither")
        self.config = config
        self.fuse = fuse
        self.translate = translate
        self.scorer = scorer
        self.codec_bases = codec_bases
        self.answerable = answerable
        self._codecs: tuple[Codec, ...] | None = None
        self._dtypes: dict[str, torch.dtype] = {}  # of what was loaded in less than single precision
        self._hash: str | None = None

    @property
    def kinds(self) -> frozenset[SliceKind]:
        """The kinds of slice this bundle can make and take in."""
        shared = {SliceKind.SHARED} if self.fuse is not None else set()
        return frozenset(
            shared | ({SliceKind.EXCERPT, SliceKind.DRAFT} if self.translate is not None else set())
        )

    def require_fuse(self) -> FuseHead:
        """The fuse head.

        Raises:
            Unsupported: the bundle has none, so it makes no shared slices.
        """
        if self.fuse is None:
            raise Unsupported("this bundle has no fuse head: it makes no shared slices")
        return self.fuse

    def require_translate(self) -> TranslateHead:
        """The translate head.

        Raises:
            Unsupported: the bundle has none, so it makes no excerpts or drafts.
        """
        if self.translate is None:
            raise Unsupported("this bundle has no translate head: it makes no excerpts or drafts")
        return self.translate

    def codecs(self) -> tuple[Codec, ...]:
        """The codecs that this bundle brings, beside those that every bundle can use; made once.

        Raises:
            BadBundle: bases that no calibration gives.
        """
        if self._codecs is None:
            try:
                self._codecs = () if self.codec_bases is None else self.codec_bases.codecs()
            except ValueError as error:
                raise BadBundle(f"codec_bases: {error}") from error
        return self._codecs

    def with_codec_bases(self, config: CodecBasesConfig | None) -> Bundle:
        """The same heads, to be stored as they were, with bases of this shape still to be written; None: without."""
        whole = replace(self.config, codec_bases=config)
        return self._again(whole, whole.new_codec_bases(), self.answerable)

    def with_answerable(self, head: Answerable) -> Bundle:
        """The same heads, to be stored as they were, with this one."""
        return self._again(replace(self.config, answerable=head.config), self.codec_bases, head)

    def _again(
        self, config: BundleConfig, codec_bases: CodecBases | None, answerable: Answerable | None
    ) -> Bundle:
        bundle = Bundle(config, self.fuse, self.translate, self.scorer, codec_bases, answerable)
        bundle._dtypes = dict(self._dtypes)
        return bundle

    def prefix_kv(self, kind: SliceKind | None) -> Tensor | None:
        """The learnt Receiver prefix put before a slice of this kind: (positions, receiver width), keys re-based.

        None for a shared slice, and where the bundle has none. A receiver-only answer (kind None) has that of excerpts.
        """
        if kind is SliceKind.SHARED or self.translate is None:
            return None
        return self.translate.prefix_kv()

    def to(self, device: torch.device | str) -> Bundle:
        """Move the heads to a device; returns this bundle."""
        for head in self._heads().values():
            head.to(device)
        return self

    @property
    def hash(self) -> str:
        """64 hex digits: SHA-256 of canonical config, but for its `confidence`, and tensors, as `save` without a dtype
        stores them. Computed at the first reading and kept; two bundles with one hash compute the same numbers.
        """
        if self._hash is None:
            self._hash = self.hash_in(None)
        return self._hash

    def hash_in(self, dtype: torch.dtype | None) -> str:
        """The hash that `save` with this dtype would return."""
        return bundle_tensors.digest(self.config.hashed, self._stored(dtype))

    @property
    def parameter_count(self) -> int:
        """Trainable numbers of all heads."""
        return sum(p.numel() for head in self._heads().values() for p in head.parameters())

    def save(self, directory: Path | str, dtype: torch.dtype | None = None) -> str:
        """Write the bundle, replacing one that is there, and return the hash of what was written.

        Args:
            directory: made if absent.
            dtype: float16 or bfloat16 to store large tensors so (small ones and those that would overflow
                stay float32): then the returned hash is that of the stored bundle, not of this one. None
                keeps what was loaded, float32 otherwise.

        Raises:
            BadBundle: a tensor is not finite or of a type that is not stored; or the directory has a config of
                something else, a model's say.
        """
        directory = Path(directory)
        if (directory / CONFIG_FILE).exists() and not (directory / TENSORS_FILE).exists():
            raise BadBundle(f"{directory} holds a {CONFIG_FILE} that is no bundle's; name another directory")
        directory.mkdir(parents=True, exist_ok=True)
        tensors, text = self._stored(dtype), self.config.to_json()
        found = bundle_tensors.digest(self.config.hashed, tensors)
        if self.answerable is not None:  # before the config that names it
            own = dict(self.answerable.state_dict())
            told = bundle_tensors.digest(_answerable_of(self.config), own)
            bundle_tensors.write(directory / ANSWERABLE_FILE, own, told)
        bundle_tensors.write(directory / TENSORS_FILE, tensors, found)
        with atomic_write(directory / CONFIG_FILE) as partial:
            partial.write_text(text, encoding="utf-8")
        return found

    @classmethod
    def load(cls, directory: Path | str) -> Bundle:
        """Read a bundle, strictly: nothing missing or extra, shapes as the config says, every number finite.

        Tensors are computed with in float32 whatever they are stored in. Shapes are compared with the config
        before anything of their size is allocated, and the global random state is left alone.

        Raises:
            BadBundle: naming the file and the key or tensor that is wrong.
        """
        directory = Path(directory)
        text = _read_config(directory / CONFIG_FILE)
        try:
            config = BundleConfig.from_json(text)
            with torch.device("meta"):
                expected = _untrained(config)._named()
        except (ValueError, IndexError, RuntimeError, TypeError, OverflowError) as error:
            raise BadBundle(f"{directory / CONFIG_FILE}: {error}") from error
        stored, found = bundle_tensors.read(directory / TENSORS_FILE, expected, config.hashed)
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            bundle = _untrained(config)
        for name, head in bundle._heads().items():
            prefix = f"{name}."
            state = {key.removeprefix(prefix): stored[key] for key in stored if key.startswith(prefix)}
            head.load_state_dict(state, strict=True)  # copies, and widens to float32
            head.eval().requires_grad_(False)
        bundle._dtypes = {name: t.dtype for name, t in stored.items() if t.dtype != expected[name].dtype}
        bundle._hash = found
        if bundle.answerable is not None:
            head = bundle.answerable.eval().requires_grad_(False)
            of = _answerable_of(config)
            head.load_state_dict(bundle_tensors.read(directory / ANSWERABLE_FILE, head.state_dict(), of)[0])
        bundle.codecs()  # now, and not in the first call, is the time to find that bases are none
        return bundle

    def _heads(self) -> dict[str, nn.Module]:
        heads: dict[str, nn.Module | None] = {
            "fuse": self.fuse,
            "translate": self.translate,
            "scorer": self.scorer,
            "codec_bases": self.codec_bases,
        }
        return {name: head for name, head in heads.items() if head is not None}

    def _named(self) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": tensor
            for name, head in self._heads().items()
            for key, tensor in head.state_dict().items()
        }

    def _stored(self, dtype: torch.dtype | None) -> dict[str, Tensor]:
        heads = self._heads()
        trained = {f"{name}.{key}" for name, head in heads.items() for key, _ in head.named_parameters()}
        return bundle_tensors.as_stored(self._named(), dtype, self._dtypes, trained)


def _answerable_of(config: BundleConfig) -> str:
    """What the numbers of a bundle's `answerable` belong to."""
    return f"{config.answerable} {config.hashed}"


def _untrained(config: BundleConfig) -> Bundle:
    translate, scorer = config.new_translate(), config.new_scorer()
    rest = config.new_codec_bases(), config.new_answerable()
    return Bundle(config, config.new_fuse(), translate, scorer, *rest)


def _read_config(path: Path) -> str:
    try:
        if file_bytes(path) > _MAX_CONFIG_BYTES:
            raise BadBundle(f"{path}: larger than {_MAX_CONFIG_BYTES} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadBundle(f"{path}: {error}") from error
