"""Token-by-token re-encoding, as the public Cache-to-Cache checkpoints were trained and are run.

Every Receiver token becomes exactly one Sharer token, so positions coincide and nothing has to be aligned;
pieces of a token that the Sharer would write as several are dropped. Our own bundles align by characters
(`fuser.prompts.shared`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

Strategy = Literal["first", "longest"]

_ROLES = ("pad", "eos", "bos", "unk")  # a later one wins where ids coincide


class Reencoder:
    """Receiver token ids -> as many Sharer token ids, by a table that fills as ids come.

    Args:
        receiver: Hugging Face tokenizer of the Receiver.
        sharer: Hugging Face tokenizer of the Sharer.
        strategy: of several Sharer tokens, the `first`, or the one whose text is `longest` (the earliest on a
        tie).
    """

    def __init__(self, receiver: Any, sharer: Any, strategy: Strategy) -> None:
        if strategy not in ("first", "longest"):
            raise ValueError(f"the strategy is first or longest, not {strategy!r}")
        self._receiver = receiver
        self._sharer = sharer
        self._strategy = strategy
        self._special = frozenset(receiver.all_special_ids)
        self._unknown = sharer.unk_token_id if sharer.unk_token_id is not None else 0
        self._table: dict[int, int] = {}
        self._by_role: dict[int, int] = {}
        for role in _ROLES:
            mine, theirs = (getattr(side, f"{role}_token_id") for side in (receiver, sharer))
            if mine is not None and theirs is not None:
                self._by_role[mine] = theirs

    def __call__(self, receiver_ids: Sequence[int]) -> list[int]:
        for token in set(receiver_ids) - self._table.keys():
            self._table[token] = self._one(token)
        return [self._table[token] for token in receiver_ids]

    def _one(self, token: int) -> int:
        text = _text(self._receiver, token)
        if token in self._special:
            return self._special_one(token, text)
        ids: list[int] = self._sharer.encode(text, add_special_tokens=False)
        if not ids:
            return int(self._unknown)
        if len(ids) == 1 or self._strategy == "first":
            return ids[0]
        return max(ids, key=lambda one: len(_text(self._sharer, one)))

    def _special_one(self, token: int, text: str) -> int:
        """By role, else by spelling, else unknown."""
        if token in self._by_role:
            return self._by_role[token]
        spelled = self._sharer.convert_tokens_to_ids(text)
        return int(spelled if spelled is not None else self._unknown)


def _text(tokenizer: Any, token: int) -> str:
    return str(tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False))
