"""What has left of a document, from the audit log alone: the log and the text suffice, the store is not asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from cloud_node.audit import SENDING
from cloud_node.exposure import Exposed, Quotes
from cloud_node.users import named_user


def exposure_in(
    lines: Iterable[dict[str, Any]], tenant: str, document_id: str, text_hash: str | None = None
) -> dict[str, tuple[list[Exposed], list[Quotes]]]:
    """By the version of the text: what left by day and who asked, and what was quoted, by who asked.

    As `Documents.exposure` counts it: a position that was chosen in the document counts for it, and any other of a call
    counts for each document of the call; what a user asked counts for the edge too. The version is "" in a line that
    names none.

    Args:
        lines: of the log, as `audit_chain.lines` reads them.
        text_hash: of the one text that is looked for; None: of every text.
    """
    left: Counter[tuple[str, str, str]] = Counter()
    new: Counter[tuple[str, str, str]] = Counter()
    questions: Counter[tuple[str, str, str]] = Counter()
    quotes: dict[str, dict[str, Counter[tuple[int, int]]]] = {}
    for line in lines:
        if line["decision"] != SENDING or line["tenant"] != tenant or document_id not in line["documents"]:
            continue
        place = line["documents"].index(document_id)
        if text_hash is not None and line.get("text_hashes", [])[place : place + 1] != [text_hash]:
            continue
        version = line["versions"][place] if line["versions"] else ""
        names = (line["identity"], *([named_user(user)] if (user := line.get("user")) else []))
        own = [(begins, ends) for document, begins, ends in line["quoted"] if document == place]
        others = line["positions"] - len(line["quoted"])
        for name in names:
            key = version, datetime.fromtimestamp(line["time"], UTC).date().isoformat(), name
            quoted = quotes.setdefault(version, {}).setdefault(name, Counter())
            questions[key] += 1
            left[key] += others + len(own)
            new[key] += others + len(set(own) - quoted.keys())
            quoted.update(own)
    return {
        version: (
            [
                Exposed(day, who, n, left[v, day, who], new[v, day, who])
                for (v, day, who), n in sorted(questions.items())
                if v == version
            ],
            [
                Quotes(who, tuple((begins, ends, times) for (begins, ends), times in sorted(spans.items())))
                for who, spans in sorted(by_identity.items())
                if spans
            ],
        )
        for version, by_identity in quotes.items()
    }
