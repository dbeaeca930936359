"""A plan: what of a slice is sent, and how. An edge asks for one; a profile says what each one is worth."""

import re
from dataclasses import dataclass
from typing import Any, Final, Self

from kvwire.errors import InvalidRequest
from kvwire.segment import MAX_LAYERS, SliceKind

_LARGEST: Final = 2**32 - 1  # what a field of the wire holds
_WORD: Final = re.compile(
    r"m(?P<positions>[1-9][0-9]{0,9})|(?P<code_dim>[1-9][0-9]{0,9})|last(?P<last>[1-9][0-9]{0,9})"
    r"|layers(?P<layers>[0-9]{1,5}(?:\+[0-9]{1,5})*)|(?P<bottleneck>bottleneck)|(?P<padded>padded)|quoted(?P<quoted>[1-9][0-9]{0,9})"
    r"|runs(?P<runs>[1-9][0-9]{0,9})|(?P<fit>fit)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What of a slice is sent, and how.

    Attributes:
        codec: name of the codec of every segment.
        positions: the most positions of an excerpt, or of the answer in a draft; 0 takes as many as bundle and policy
            allow.
        quoted: the most positions of the document that stand before a draft.
        runs: the most runs of neighbours in which the document's positions may stand; 0 is one. The export policy may
            refuse more than one.
        fit: the one run of the document's positions ends where the answer does, as far as the Sharer's attention tells:
            it has all the positions, a half, a quarter and so on.
        code_dim: number of leading values of each code to send; 0 sends all. A bundle's codes are ordered: the first
            values matter most.
        layers: Sharer layers whose segments a shared slice has; none named means all that open gates read.
        last: number of trailing positions of a shared slice to send; 0 sends all.
        bottleneck: a shared slice holds the source halves of the Fuser's input map, computed in the cloud, in place of
            K and V.
        padded: every payload is filled up to the most its codec can need, so that its size tells nothing but how many
            positions it has; those of a draft are as many as were written.

    Raises:
        InvalidRequest: a number is negative, too large or of no layer, or a layer stands there twice.
    """

    codec: str
    positions: int = 0
    quoted: int = 0
    runs: int = 0
    fit: bool = False
    code_dim: int = 0
    layers: tuple[int, ...] = ()
    last: int = 0
    bottleneck: bool = False
    padded: bool = False

    def __post_init__(self) -> None:
        if min(self.positions, self.quoted, self.runs, self.code_dim, self.last, *self.layers, 0) < 0:
            raise InvalidRequest("a plan has no negative numbers")
        if max(self.positions, self.quoted, self.runs, self.code_dim, self.last) > _LARGEST:
            raise InvalidRequest(f"a plan has no numbers over {_LARGEST}")
        if self.fit and self.runs > 1:
            raise InvalidRequest("a plan fits the length of one run, not of several")
        if self.fit and self.padded:
            raise InvalidRequest("a plan whose sizes tell nothing fits no lengths: fit or padded")
        if list(self.layers) != sorted(set(self.layers)):
            raise InvalidRequest("a plan names layers in ascending order, each once")
        if self.layers and self.layers[-1] >= MAX_LAYERS:
            raise InvalidRequest(f"a plan names layer {self.layers[-1]}; there are fewer than {MAX_LAYERS}")

    def __str__(self) -> str:
        """In one word, such as `int8:m8:256`, or `raw:last3:bottleneck` of a shared slice; `parse` reads it."""
        words = (
            self.codec,
            f"m{self.positions}" if self.positions else "",
            f"quoted{self.quoted}" if self.quoted else "",
            f"runs{self.runs}" if self.runs else "",
            "fit" if self.fit else "",
            str(self.code_dim or ""),
            f"layers{'+'.join(map(str, self.layers))}" if self.layers else "",
            f"last{self.last}" if self.last else "",
            "bottleneck" if self.bottleneck else "",
            "padded" if self.padded else "",
        )
        return ":".join(word for word in words if word)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a plan as `str` writes it; what follows the codec may come in any order.

        Raises:
            InvalidRequest: it is none.
        """
        codec, *words = text.split(":")
        given: dict[str, Any] = {}
        for word in words:
            found = _WORD.fullmatch(word)
            kind = found and found.lastgroup
            if not found or not kind or kind in given:
                raise InvalidRequest(
                    f"{text}: expected CODEC[:mPOSITIONS][:quotedN][:runsN][:fit][:VALUES][:layersA+B][:lastN]"
                    "[:bottleneck][:padded]"
                )
            value = found[kind]
            if kind == "layers":
                given[kind] = tuple(map(int, value.split("+")))
            else:
                given[kind] = int(value) if value.isdecimal() else True
        return cls(codec=codec, **given)

    def check(self, kind: SliceKind) -> None:
        """Refuse what slices of this kind do not have.

        Raises:
            InvalidRequest: names the field.
        """
        of_kind = {
            "layers": (self.layers, {SliceKind.SHARED}),
            "last": (self.last, {SliceKind.SHARED}),
            "bottleneck": (self.bottleneck, {SliceKind.SHARED}),
            "positions": (self.positions, {SliceKind.EXCERPT, SliceKind.DRAFT}),
            "code_dim": (self.code_dim, {SliceKind.EXCERPT, SliceKind.DRAFT}),
            "quoted": (self.quoted, {SliceKind.DRAFT}),
            "runs": (self.runs, {SliceKind.EXCERPT, SliceKind.DRAFT}),
            "fit": (self.fit, {SliceKind.EXCERPT, SliceKind.DRAFT}),
        }
        for field, (value, kinds) in of_kind.items():
            if value and kind not in kinds:
                raise InvalidRequest(f"a slice of kind {kind} has no {field}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """What an export policy lets out of documents in one slice; a document's own caps may be lower.

    Attributes:
        max_positions: of an excerpt or a draft.
        max_quoted: positions of documents, of an excerpt or before a draft.
        max_runs: of neighbours, in which these stand.
        shared_over_documents: positions of a shared slice whose prompt has documents.
    """

    max_positions: int = 0
    max_quoted: int = 0
    max_runs: int = 0
    shared_over_documents: int = 0

    def most(self, kind: SliceKind) -> int:
        """The most positions that a slice of this kind may have."""
        if kind is SliceKind.SHARED:
            return self.shared_over_documents
        return min(self.max_positions, self.max_quoted) if kind is SliceKind.EXCERPT else self.max_positions

    def allows(self, kind: SliceKind, plan: Plan, positions: int) -> bool:
        """Whether a slice by this plan, with this number of positions, leaves as it was asked for."""
        quoted = plan.quoted <= self.max_quoted and plan.runs <= self.max_runs
        return quoted and positions <= self.most(kind)


WHOLE: Final = Plan(codec="raw")
"""All of a slice, every bit of it."""
