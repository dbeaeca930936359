"""The summary head: learnt positions that read document and question in the cloud, and say it in a fixed size.

A small Perceiver (arXiv 2103.03206). The Sharer's layers are parted into groups of consecutive ones; each group has m
learnt queries of its own, which read that group's re-based K and V at every document and question position; then all
queries read each other. The groups' queries that stand for one summary position become one code together. So the
number of positions says nothing of the document's length, and no position is a quotation of a token.

It is small because only the first map, from a group's numbers to `width`, differs between groups; attention and MLP of
a block are the same for all of them, and queries tell them apart. At the demo pair (24 Sharer layers of 256 numbers, a
Receiver of 11,520 numbers a position) the default shape has 2.2 million parameters in the cloud, and a code of 192
numbers is expanded at the edge by 2.2 million more, or by the translate head's expansion where `expand` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fuser.expansion import Expansion, GroupedLinear
from fuser.geometry import Geometry
from fuser.perceiver import PerceiverBlock
from fuser.translate import TranslateHead, layers_read


@dataclass(frozen=True, slots=True)
class SummaryConfig:
    """Shape of a summary head.

    positions: summary positions, m; the export policy may allow fewer: then the first ones are sent.
    code_dim: numbers in a code, which is what travels per position.
    width: of queries and of what they read; heads: of attention, which divide it. blocks: rounds of reading.
    groups: groups of Sharer layers, each with m queries; they divide the layers read. As many groups as layers is one
        set of queries a layer.
    sharer_layers: Sharer layers that are read, ascending; empty means all.
    expand: "own": an expansion of its own. "translate": the translate head's, which has the same code_dim.
    hidden, prefix_positions: of its own expansion, as in `TranslateConfig`.
    """

    positions: int = 16
    code_dim: int = 192
    width: int = 192
    heads: int = 4
    blocks: int = 2
    groups: int = 4
    sharer_layers: tuple[int, ...] = ()
    expand: Literal["own", "translate"] = "own"
    hidden: int = 0
    prefix_positions: int = 0

    def __post_init__(self) -> None:
        if min(self.positions, self.code_dim, self.width, self.heads, self.blocks, self.groups) < 1:
            raise ValueError("summary needs positions, code_dim, width, heads, blocks and groups >= 1")
        if self.width % self.heads:
            raise ValueError(f"summary.heads: {self.heads} do not divide the width {self.width}")
        if self.hidden < 0 or self.prefix_positions < 0:
            raise ValueError("summary needs hidden >= 0 and prefix_positions >= 0")
        if self.expand == "translate" and (self.hidden or self.prefix_positions):
            raise ValueError(
                'summary.hidden and summary.prefix_positions are for expand = "own": '
                "the translate head's expansion brings its own"
            )
        if list(self.sharer_layers) != sorted(set(self.sharer_layers)):
            raise ValueError("summary.sharer_layers must be ascending without repeats")


class SummaryHead(nn.Module):
    """Learnt queries that read (`encode`, in the cloud) and what expands them (`expand`, at the edge). All float32.

    Args:
        translate: the bundle's translate head where `config.expand` is "translate"; it stays the bundle's, and its
            parameters are none of this module's.

    Attributes:
        layers: the Sharer layers whose K and V `encode` reads, ascending.

    Raises:
        ValueError: groups that do not divide the layers read, or a translate head that is missing or of another code.
    """

    input_mean: Tensor
    input_scale: Tensor

    def __init__(
        self,
        config: SummaryConfig,
        sharer: Geometry,
        receiver: Geometry,
        translate: TranslateHead | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.layers = layers_read(config.sharer_layers, sharer, "summary")
        if len(self.layers) % config.groups:
            raise ValueError(f"summary.groups: {config.groups} do not divide {len(self.layers)} layers")
        numbers = len(self.layers) * 2 * sharer.layer_width
        width = config.width
        self.register_buffer("input_mean", torch.zeros(numbers))
        self.register_buffer("input_scale", torch.ones(numbers))
        self.read = GroupedLinear(config.groups, numbers // config.groups, width)
        self.part = nn.Parameter(
            0.02 * torch.randn(2, width)
        )  # added to what stands in document and question
        self.nothing = nn.Parameter(
            torch.zeros(width)
        )  # one more position to read, where there is nothing else
        self.queries = nn.Parameter(torch.randn(config.groups, config.positions, width))
        self.blocks = nn.ModuleList(PerceiverBlock(width, config.heads) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(width)
        self.squeeze = nn.Linear(config.groups * width, config.code_dim)
        self.expansion: Expansion | None = None
        if config.expand == "own":
            self.expansion = Expansion(
                config.code_dim, receiver, hidden=config.hidden, prefix_positions=config.prefix_positions
            )
        elif translate is None or translate.code_dim != config.code_dim:
            raise ValueError(
                f'summary.expand = "translate" needs a translate head of code_dim {config.code_dim}'
            )
        self._lent = (translate,)  # in a tuple, so that it is no submodule

    def encode(
        self,
        document: Tensor,
        question: Tensor,
        document_mask: Tensor | None = None,
        question_mask: Tensor | None = None,
    ) -> Tensor:
        """Read document and question positions.

        Args:
            document: (batch, document positions, sharer numbers) float, features of the layers read as
                `fuser.translate.features_of` lays them out, as the Sharer gave them; may have no positions.
            question: (batch, question positions, sharer numbers), the same for the question.
            document_mask: (batch, document positions) bool, False where a position is padding; None has no padding.
            question_mask: the same for the question.

        Returns:
            codes (batch, m, code_dim) float32. Padding changes nothing but rounding.
        """
        read = torch.cat((self._read(document, 0), self._read(question, 1)), dim=2)
        read = torch.cat((self.nothing.expand(*read.shape[:2], 1, -1), read), dim=2)
        mask = None
        if document_mask is not None or question_mask is not None:
            masks = (_mask_of(document_mask, document), _mask_of(question_mask, question))
            mask = functional.pad(torch.cat(masks, dim=1), (1, 0), value=True)
        latents = self.queries.expand(len(read), -1, -1, -1)
        for block in self.blocks:
            latents = block(latents, read, mask)
        codes: Tensor = self.squeeze(self.norm(latents).transpose(1, 2).flatten(2))
        return codes

    @property
    def receiver_positions(self) -> int:
        """Receiver positions that each summary position is expanded to."""
        return self._expansion.receiver_positions

    def expand(self, codes: Tensor) -> Tensor:
        """As `fuser.expansion.Expansion.expand`."""
        return self._expansion.expand(codes)

    def prefix_kv(self) -> Tensor:
        """The learnt prefix as Receiver KV: (prefix_positions, receiver width), keys re-based."""
        return self._expansion.prefix_kv()

    def start(self, translate: TranslateHead) -> None:
        """Take over what the regression stage found: statistics, and where the shapes agree the expansion.

        Raises:
            ValueError: the two heads read other layers.
        """
        if translate.layers != self.layers:
            raise ValueError("the summary head reads other Sharer layers than the translate head")
        mine, theirs = self.state_dict(), translate.state_dict()
        with torch.no_grad():
            for name, tensor in theirs.items():
                own = mine.get(name if name.startswith("input_") else f"expansion.{name}")
                if own is not None and own.shape == tensor.shape:
                    own.copy_(tensor)

    @property
    def _expansion(self) -> Expansion:
        expansion = self.expansion if self.expansion is not None else self._lent[0]
        assert expansion is not None  # the constructor saw to it
        return expansion

    def _read(self, features: Tensor, part: int) -> Tensor:
        """(batch, positions, sharer numbers) -> (batch, groups, positions, width)."""
        standardised = (features.float() - self.input_mean) * self.input_scale
        grouped = standardised.unflatten(2, (self.config.groups, -1))
        mapped: Tensor = self.read(grouped) + self.part[part]
        return mapped.transpose(1, 2)


def _mask_of(mask: Tensor | None, features: Tensor) -> Tensor:
    return features.new_ones(features.shape[:2], dtype=torch.bool) if mask is None else mask
