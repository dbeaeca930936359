"""Slices that say nothing: zeros, and noise with the moments of true slices."""

from collections.abc import Callable
from pathlib import Path

import torch

from fuser.lab.evaluate.choices import ChoiceTask
from fuser.lab.evaluate.controls import Noise, random_slices, zeroed
from fuser.lab.evaluate.documents import DocumentEvaluation
from fuser.lab.evaluate.evaluation import Given
from fuser.lab.evaluate.questions import DocumentQuestion
from kvwire.plan import WHOLE, Plan
from tests.fuser.lab.evaluate.asking import ask, texts
from tests.fuser.lab.evaluate.choices import make_choices

ROWS = ("fused", "zeroed", "random", "mismatched")
PLANS = [WHOLE, Plan(codec="int8")]


def test_noise_has_the_mean_and_the_covariance_of_the_samples() -> None:
    generator = torch.Generator().manual_seed(3)
    mixing = torch.randn(6, 6, generator=generator)
    samples = torch.randn(3000, 6, generator=generator) @ mixing + torch.arange(6)
    like = Noise.like(samples)
    noise = like.draw(2000, 1)
    torch.testing.assert_close(noise.mean(0), samples.mean(0), atol=0.3, rtol=0)
    torch.testing.assert_close(noise.T.cov(), samples.T.cov(), atol=1.5, rtol=0.1)
    cosine = torch.cosine_similarity(noise - noise.mean(0), samples[:2000] - samples.mean(0)).mean()
    assert abs(float(cosine)) < 0.05, "it says nothing of the samples one by one"
    assert torch.equal(noise, like.draw(2000, 1)) and not torch.equal(noise, like.draw(2000, 2))
    few = Noise.like(torch.randn(20, 30, generator=generator) + 7)
    assert abs(float(few.in_place_of(torch.zeros(40, 5, 30), 1).mean()) - 7) < 0.5, "fewer than its values"


def test_noise_over_documents_is_like_the_codes_of_all_questions_whatever_the_batch(
    given: Callable[..., Given], documents: list[DocumentQuestion]
) -> None:
    task = DocumentEvaluation(given(batch=3), documents)
    noise, excerpts = task.transfer.noise(WHOLE), task.transfer.excerpts(WHOLE)
    head = task.given.bundle.require_translate()
    codes = torch.cat([head.encode(excerpts.features([i])[0]) for i in range(len(documents))])
    torch.testing.assert_close(noise.mean, codes.mean(0))
    torch.testing.assert_close(noise.root.T @ noise.root, codes.T.cov(correction=0), atol=1e-4, rtol=1e-3)


def test_controls_over_documents_have_the_bytes_of_a_slice_and_say_other_things(
    given: Callable[..., Given], documents: list[DocumentQuestion], tmp_path: Path
) -> None:
    documents = documents[::2]
    found = ask(DocumentEvaluation(given(), documents), tmp_path, *ROWS, plans=PLANS)
    for plan in ("", " int8"):
        said = [[found[f"{row}{plan}", q.id].text for q in documents] for row in ROWS]
        assert len(set(map(tuple, said))) == len(ROWS)
    assert all(found["fused", q.id].bytes == found["random", q.id].bytes for q in documents)
    again = ask(DocumentEvaluation(given(), documents), tmp_path / "again", *ROWS, plans=PLANS)
    assert texts(again) == texts(found)


def test_controls_of_choices_have_the_bytes_of_a_slice_and_say_other_things(
    given: Callable[..., Given], tmp_path: Path
) -> None:
    items = make_choices(9)
    task = ChoiceTask(given(), items, tmp_path, max_new_tokens=6)
    found = ask(task, tmp_path, *ROWS, plans=PLANS)
    for plan in ("", " int8"):
        said = [[found[f"{row}{plan}", item.id].text for item in items] for row in ROWS]
        assert len(set(map(tuple, said))) == len(ROWS)
    assert all(found["fused", item.id].bytes == found["zeroed", item.id].bytes for item in items)
    heard = task.transfer.hear(items)
    for made in (zeroed(heard), random_slices(heard, 1)):
        for one, own in zip(heard, made, strict=True):
            assert {at: p.shape for at, p in one.segments.items()} == {
                at: p.shape for at, p in own.segments.items()
            }
            assert all(not torch.equal(own.segments[at], part) for at, part in one.segments.items())
