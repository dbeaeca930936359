"""How well a translate head fitted in closed form explains held-out text, by documents and by size of the code.

    python 2026-11-30-curves.py BUNDLE TRAIN HELD_OUT OUT

TRAIN and HELD_OUT are JSON lines as `kvwire eval --set data=` takes them; OUT is JSON. Nothing is trained on answers.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from rich.progress import Progress

from fuser.bundle.bundle import Bundle
from fuser.heads.translate import TranslateHead
from fuser.lab.data.load import load
from fuser.lab.evaluate.evaluation import TimeLimit
from fuser.lab.evaluate.models import Model
from fuser.lab.evaluate.questions import draw
from fuser.lab.evaluate.sharer_cache import read_documents
from fuser.lab.train.reading import FrozenReceiver
from fuser.lab.train.regress import (
    Moments,
    explained_variance,
    of_layers,
    standardise_as,
    start_in_closed_form,
)

LEAD, RIDGE, DOCUMENTS, DIMS = "Note:\n", 0.02, (10, 20, 40, 80, 160, 320, 640), (48, 96, 192, 384, 768)
bundle, (train, held, out) = Bundle.load(Path(sys.argv[1])), sys.argv[2:]
sharer, receiver = (
    Model(name, "bfloat16") for name in (bundle.config.sharer.name, bundle.config.receiver.name)
)
reading = FrozenReceiver(receiver.network, receiver.tokenizer, bundle.config.receiver_prompt, LEAD)


def read(source, count):
    """The first texts of a sample of a source, and what the Sharer reads of them."""
    items = load(source, "document", 4 * count, 1, for_training=False, max_document_chars=900)
    questions = list({question.document: question for question in draw(items, None, 1)}.values())[:count]
    with Progress(disable=True) as progress:
        return read_documents(questions, bundle, sharer, Path(out).parent, progress, TimeLimit())[0]


tested, texts = read(held, 60), read(train, DOCUMENTS[-1])
trained, found, moments = bundle.require_translate(), [], None
for index, document in enumerate(texts.documents, 1):
    raw = of_layers(texts.raw(document, torch.arange(document.count)), trained)
    if moments is None:
        moments = Moments.empty(len(trained.input_mean), len(trained.output_mean))
        standardise_as(texts, trained)
    with torch.no_grad():
        own = reading.document_kv(document.text, document.spans, trained.receiver_positions)
        moments.add(trained.standardise(raw), own.flatten(1))
    if index in DOCUMENTS:
        for dim in DIMS if index == DOCUMENTS[-1] else (384,):
            config = replace(trained.config, code_dim=dim, prefix_positions=0)
            head = TranslateHead(config, bundle.config.sharer_geometry, bundle.config.receiver_geometry)
            standardise_as(texts, head)
            start_in_closed_form(head, moments, bundle.config.receiver_geometry, RIDGE)
            key, value = explained_variance(head.eval(), tested, tested.documents, reading)
            found.append(
                {"documents": index, "positions": moments.count, "code_dim": dim, "key": key, "value": value}
            )
            print(found[-1], flush=True)
            Path(out).write_text(json.dumps(found, indent=1))
