"""Questions with the passages that a search finds for them.

    python 2026-11-30-passages.py SQUAD K OUT [QUESTIONS]

SQUAD are JSON lines (gzip) with title, context, question and answers. Every article is one document of a store; each
question is asked of it, and OUT has the K best passages as its context, for `kvwire eval --set data=OUT`.
"""

import gzip
import json
import random
import sys
import tempfile
from pathlib import Path

from cloud_node.documents import Documents

squad, k, out = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
count = int(sys.argv[4]) if len(sys.argv) > 4 else 60
with gzip.open(squad, "rt", encoding="utf-8") as lines:
    rows = [json.loads(line) for line in lines]
articles: dict[str, dict[str, None]] = {}
for row in rows:
    articles.setdefault(row["title"], {})[row["context"]] = None
with tempfile.TemporaryDirectory() as folder:
    store = Documents(f"sqlite:///{folder}/documents.db")
    for number, paragraphs in enumerate(articles.values()):
        store.add("t", f"article-{number}", "\n\n".join(paragraphs))
    found = []
    for row in random.Random(7).sample(rows, count):
        hits = store.search("t", row["question"], k)
        text = "\n\n".join(store.get("t", hit.document, hit.passage).text for hit in hits)
        found.append({"context": text, "question": row["question"], "answers": row["answers"]})
    held = sum(any(answer in row["context"] for answer in row["answers"]) for row in found)
out.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
longest = max(len(row["context"]) for row in found)
print(f"{held} of {len(found)} contexts hold an answer; the longest has {longest} characters")
