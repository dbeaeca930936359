"""Bytes against answers: the same questions under a few plans, as one table. The cells also run in a notebook.

    python examples/bandwidth.py edge.toml questions.tsv

A line of questions.tsv has a document, a question and the words that a right answer has, with tabs between. The codecs
and positions below are examples (docs/plans.md tells of those that a bundle was measured with), and the cloud's export
policy may allow fewer positions than a plan asks for. Few questions tell little: see the interval.
"""

# %% What is asked, and how
import sys
from pathlib import Path

from edge_node import Ask, Assistant, Plan
from fuser.lab.interval import wilson

config, table = sys.argv[1], Path(sys.argv[2])
lines = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines() if line.strip()]
plans = [Plan(codec=codec, positions=count) for codec in ("raw", "int8", "int4") for count in (4, 8, 16)]

# %% The floor: the Receiver alone, which knows nothing of the documents
with Assistant.from_config(config) as assistant:

    def right(ask: Ask, words: str) -> tuple[bool, int, float]:
        """Whether the answer has the words, the slice's bytes, and seconds to the first token."""
        answer = assistant.ask(ask)
        said = answer.text.casefold()
        return words.casefold() in said, answer.payload_bytes, answer.time_to_first_token_s

    rows = [("alone", [right(Ask(question, source="receiver-only"), words) for _, question, words in lines])]

    # %% The slices
    for plan in plans:
        asks = [(Ask(question, document=name, plan=plan), words) for name, question, words in lines]
        rows.append((str(plan), [right(ask, words) for ask, words in asks]))

# %% The table
print(f"{'plan':12} {'bytes':>8} {'right':>10} {'95 %':>14} {'first token':>12}")
for name, results in rows:
    count, found = len(results), sum(good for good, _, _ in results)
    share = wilson(found, count)
    size, seconds = (sum(result[at] for result in results) / count for at in (1, 2))
    interval = f"{100 * share.low:.0f} to {100 * share.high:.0f}"
    print(f"{name:12} {size:8.0f} {f'{found} of {count}':>10} {interval:>14} {seconds:10.2f} s")
