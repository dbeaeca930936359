"""Does a search by embeddings find what a search by words does not?

    python 2026-11-30-embeddings.py SQUAD MODEL [QUESTIONS]

SQUAD and the questions are those of `2026-11-30-passages.py`. An embedding is the mean of MODEL's hidden states over a
text after some of its layers, less the mean of all. Compared are those passages alone that the search by words finds
among its first five of any question, or that are right: what is left out could only take places from embeddings.
"""

import gzip
import json
import random
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

from cloud_node.documents import Documents
from fuser.lab.interval import difference, wilson
from ops.models.fetch import resolve

Found = list[tuple[str, int]]
rows = [json.loads(line) for line in gzip.decompress(Path(sys.argv[1]).read_bytes()).splitlines()]
asked = random.Random(7).sample(rows, int(sys.argv[3]) if len(sys.argv) > 3 else 60)
articles: dict[str, dict[str, None]] = {}
for row in rows:
    articles.setdefault(row["title"], {})[row["context"]] = None
with tempfile.TemporaryDirectory() as folder:
    store = Documents(f"sqlite:///{folder}/documents.db")
    article = {title: f"article-{number}" for number, title in enumerate(articles)}
    for title, paragraphs in articles.items():
        store.add("t", article[title], "\n\n".join(paragraphs))
    words = [[(hit.document, hit.passage) for hit in store.search("t", row["question"], 50)] for row in asked]
    every = [(one.id, n) for one in store.list("t") for n in range(1, one.passages + 1)]
    text = {at: store.get("t", *at).text for at in every}
its = [(article[row["title"]], row["answers"]) for row in asked]
right = [{at for at in every if at[0] == own and any(a in text[at] for a in answers)} for own, answers in its]
pool = sorted({at for found in words for at in found[:5]}.union(*right))

model = AutoModel.from_pretrained(where := resolve(sys.argv[2]), dtype=torch.bfloat16).eval()
tokenizer = AutoTokenizer.from_pretrained(where)
layers = [model.config.num_hidden_layers * part // 4 for part in (1, 2, 3, 4)]


@torch.inference_mode()
def embedded(texts: list[str]) -> torch.Tensor:
    """Unit vectors, (texts, layers, hidden size)."""
    means = []
    for each in texts:
        states = model(**tokenizer(each, return_tensors="pt"), output_hidden_states=True).hidden_states
        means.append(torch.stack([states[layer][0].float().mean(0) for layer in layers]))
    return torch.nn.functional.normalize((made := torch.stack(means)) - made.mean(0, keepdim=True), dim=-1)


def told(name: str, found: list[Found]) -> None:
    """A line of the table: % with a right one among the first 1, 3, 5, and that among 3 less the words' in points."""
    pairs = list(zip(found, right, strict=True))
    hit = {k: torch.tensor([bool(sought & {*one[:k]}) for one, sought in pairs]) for k in (1, 3, 5)}
    base.append(hit[3])
    cells = [*(wilson(int(each.sum()), len(asked)) for each in hit.values()), difference(hit[3], base[0])]
    print("|", " | ".join([name, *map(str, cells)]), "|")


base: list[torch.Tensor] = []
print(f"{len(every):,} passages, {len(pool)} of them compared")
told("words", words)
passages, questions = embedded([text[at] for at in pool]), embedded([row["question"] for row in asked])
for at, layer in enumerate(layers):
    order = (questions[:, at] @ passages[:, at].T).argsort(dim=1, descending=True).tolist()
    near = [[pool[i] for i in ranked] for ranked in order]
    both = []
    for ranks in zip(words, near, strict=True):  # reciprocal ranks, as Cormack et al. (2009) have them
        rank = [{key: 61 + i for i, key in enumerate(one)} for one in ranks]
        score = {key: sum(1 / one[key] for one in rank if key in one) for key in {*ranks[0], *pool}}
        both.append(sorted(score, key=lambda key: (-score[key], key)))
    told(f"embeddings, layer {layer}", near)
    told(f"both, layer {layer}", both)
