"""From two models and texts to a bundle and a page about it. Stopped at any moment, the same call goes on."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress

from fuser.atomic import atomic_write, directory_lock, write_json
from fuser.lab.evaluate.picture import plot_losses, plot_plans
from fuser.lab.evaluate.run import Run
from fuser.lab.evaluate.settings import EvaluateConfig, Setup
from fuser.lab.pair.models import check_pair
from fuser.lab.pair.recipe import CHOOSING, DRAFTED, HELD_OUT, POSITIONS, SENT, TRAIN, recipe_of, to_toml
from fuser.lab.pair.rehearse import SIZES, measure, write_texts
from fuser.lab.pair.sizes import DRAFT_ROWS, ROWS, Counts, Pace, Sizes, sizes_of
from fuser.lab.pair.texts import MOST, Corpus, counted, read_corpus, write_items
from fuser.lab.train.making import REPORT, make
from fuser.lab.train.recipe import Recipe
from fuser.models.directory import find_model
from fuser.models.load import DeviceName, dtype_of, find_device

RECIPE, ESTIMATE, ASKED = "recipe.toml", "estimate.json", "asked.json"
PAGE, LOSSES = "report.md", "losses.png"
_CODE = 384
_LONG = 6  # characters of a token, on the long side: codecs need twice as many positions as a code has values
_GPU_BATCH, _CPU_BATCH = 16, 8

Estimate = dict[str, Any]
"""Plain JSON values: what there is, what is made of it, what that takes."""


@dataclass(frozen=True, slots=True)
class PairRequest:
    """What a pair is made of.

    sharer, receiver: names or directories. data: a JSON-lines file, or a directory of texts. minutes: for all of it.
    kinds: of slice. With "draft" the Sharer also writes a short answer to each question, and the head is trained on
        them too; with "excerpt" the table has rows of excerpts.
    """

    sharer: str
    receiver: str
    data: str
    minutes: float
    kinds: tuple[str, ...] = ("excerpt", "draft")
    seed: int = 1

    def __post_init__(self) -> None:
        if not self.kinds or set(self.kinds) - {"excerpt", "draft"}:
            raise ValueError(
                f"kinds are excerpt and draft, not {', '.join(self.kinds) or 'none'}; slices of kind shared are of "
                "prompts that both sides hold: `kvwire train` makes them by a recipe with a table [fuse]"
            )
        if not self.minutes > 0:
            raise ValueError(f"minutes must be above 0, got {self.minutes:g}")


class PairRun:
    """See the module. Both models are looked at before anything else.

    Args:
        work: directory of the recipe, its stages, the cache and the answers. output: of the bundle and the page.

    Raises:
        Unsupported: a model cannot be in a pair.
        ValueError: `work` was begun with other values.
        RuntimeError: another process is at it.
    """

    def __init__(self, asked: PairRequest, output: Path, work: Path, device: DeviceName = "auto") -> None:
        self.asked, self.output, self.work = asked, output.resolve(), work.resolve()
        self._device = find_device(device)
        self.models = check_pair(find_model(asked.sharer), find_model(asked.receiver))
        self._same_as_before()

    def prepare(self, progress: Progress) -> Estimate:
        """Read the texts, measure, share the minutes out and write the recipe; or find all that as it was left."""
        path = self.work / ESTIMATE
        with directory_lock(self.work, "making a pair in"):
            if not path.exists():
                began = time.monotonic()
                corpus = read_corpus(Path(self.asked.data), self.asked.seed)
                pace = self._measured(corpus, progress)
                spent = (time.monotonic() - began) / 60
                left = max(self.asked.minutes - spent, self.asked.minutes / 2)
                estimate = self._planned(corpus, pace, left) | {"measured_in_minutes": round(spent, 2)}
                write_json(path, estimate)
        return self._estimate

    def make(self, progress: Progress) -> dict[str, Any]:
        """Make the bundle by the recipe; returns what `fuser.lab.train.making.make` does."""
        return make(self._recipe, progress)

    def evaluate(self, progress: Progress) -> dict[str, Any]:
        """Ask the held-out questions in every row; returns the report of `fuser.lab.evaluate.run.Run`."""
        of_excerpts = ROWS if "excerpt" in self.asked.kinds else ROWS[:2]
        rows: tuple[str, ...] = (*of_excerpts, *(DRAFT_ROWS if self._drafts else ()))
        told = EvaluateConfig(
            data=str(self.work / "data" / HELD_OUT),
            task="document",
            limit=self._estimate["sizes"]["held_out"],
            seed=self.asked.seed,
            rows=rows,
            plans=(f"transform-2:m{SENT}",),
            drafts=("transform-2",) if self._drafts else (),
        )
        first = self._recipe.stages[0].config
        setup = Setup(
            str(self.models.sharer),
            str(self.models.receiver),
            first.dtype,
            first.device,
            str(self.work / "answers"),
        )
        run = Run(self.output, told, setup)
        run.answer(progress)
        return run.report()

    def page(self, report: Mapping[str, Any], table: str, say: Callable[[str], None]) -> Path:
        """Write the page about the bundle and its pictures beside it, and the whole report into `work`.

        Args:
            table: of the report, as Markdown. say: is told what is left out.
        """
        write_json(self.work / REPORT, report)
        estimate = self._estimate
        pictures = self._pictures(say)
        sizes, left_out = estimate["sizes"], Counter[str](estimate["left_out"])
        lines = [
            f"# {self.asked.sharer} to {self.asked.receiver}",
            "",
            f"Bundle `{report['bundle']['sha256'][:12]}`, {report['bundle']['parameters']:,} parameters, made with "
            f"`kvwire pair --minutes {self.asked.minutes:g}` on {report['time'][:10]}.",
            "",
            f"Texts: {estimate['documents']:,} documents. Trained on {sizes['pieces']:,} of "
            f"{estimate['there']['train']:,} pieces, {sizes['steps'] + sizes['draft_steps']:,} steps of "
            f"{estimate['batch']} questions; plans chosen on {sizes['plans']} questions. The table is over "
            f"{report['data']['questions']} questions about documents that neither saw. Left out: "
            f"{counted(left_out)}.",
            "",
            table,
            "",
            *(f"![{words}]({name})" for words, name in pictures),
        ]
        path = self.output / PAGE
        with atomic_write(path) as partial:
            partial.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
        return path

    @property
    def names(self) -> tuple[str, str]:
        """Of Sharer and Receiver, that say from anywhere which they are."""
        sharer, receiver = (
            str(Path(name).resolve()) if Path(name).is_dir() else name
            for name in (self.asked.sharer, self.asked.receiver)
        )
        return sharer, receiver

    @property
    def _estimate(self) -> Estimate:
        found: Estimate = json.loads((self.work / ESTIMATE).read_text(encoding="utf-8"))
        return found

    @property
    def _drafts(self) -> bool:
        return "draft" in self.asked.kinds

    @property
    def _recipe(self) -> Recipe:
        return Recipe.load(self.work / RECIPE, [f'device="{self._device.type}"'])

    def _pictures(self, say: Callable[[str], None]) -> Sequence[tuple[str, str]]:
        """Words and file name of each picture that could be drawn."""
        try:
            import matplotlib.figure  # noqa: F401
        except ImportError:
            say("The pictures are left out: they need matplotlib, pip install 'kvwire[train]'.")
            return ()
        stages = self._recipe.stages
        plot_losses([stage.folder for stage in stages if stage.kind == "train"], self.output / LOSSES)
        drawn = [("Losses of training", LOSSES)]
        for stage in (stage for stage in stages if stage.kind == "profile"):
            report = json.loads((stage.folder / REPORT).read_text(encoding="utf-8"))
            name = f"{report['kind']}_transfer.png"
            plot_plans(report, self.output / name)
            drawn.append((f"Transfer of plans against their bytes, kind {report['kind']}", name))
        return drawn

    def _same_as_before(self) -> None:
        path, now = self.work / ASKED, json.loads(json.dumps(asdict(self.asked)))
        if path.exists():
            then = json.loads(path.read_text(encoding="utf-8"))
            for name in (name for name in now if then.get(name) != now[name]):
                raise ValueError(
                    f"{self.work} was begun with {name} {then.get(name)!r} and not {now[name]!r}: set it back, name "
                    "another --work, or remove that directory"
                )
            return
        self.work.mkdir(parents=True, exist_ok=True)
        write_json(path, now)

    def _measured(self, corpus: Corpus, progress: Progress) -> Pace:
        folder = self.work / "rehearsal"
        write_texts(corpus, folder)
        table = self._table(corpus, SIZES, (0,), folder)
        return measure(self.models, corpus, table, folder, self._drafts, self._device, progress)

    def _planned(self, corpus: Corpus, pace: Pace, minutes: float) -> Estimate:
        data, models = self.work / "data", self.models
        geometry = models.sharer_geometry
        there = Counts(
            train=len(corpus.train),
            plans=len(corpus.plans),
            held_out=sum(len(item.questions) for item in corpus.held_out),
            fitting=sum(any(a in i.document for a in i.questions[0].answers) for i in corpus.train),
            outputs=2 * models.receiver_geometry.width,
            layer=2 * geometry.layer_width,
            layers=geometry.layers,
        )
        sizes = sizes_of(minutes, pace, there, self._drafts)
        write_items(corpus.train[: sizes.pieces], data / TRAIN)
        write_items(corpus.train[: sizes.drafted], data / DRAFTED)
        write_items(corpus.plans, data / CHOOSING)
        write_items(corpus.held_out, data / HELD_OUT)
        layers = models.layers(sizes.inputs)
        table = self._table(corpus, sizes, layers, self.work)
        with atomic_write(self.work / RECIPE) as partial:
            partial.write_text(to_toml(table), encoding="utf-8")
        left_out = corpus.left_out.copy()
        left_out["pieces that cannot be read in the time"] += len(corpus.train) - sizes.pieces
        read = sizes.pieces + sizes.validation
        positions = round(read * pace.positions)
        drafted = round((sizes.drafted + sizes.drafted_validation) * pace.positions)
        return {
            "documents": corpus.documents,
            "there": asdict(there),
            "sizes": asdict(sizes),
            "pace": asdict(pace),
            "batch": table["answer"]["batch"],
            "questions": sum(len(item.questions) for item in corpus.train[: sizes.pieces]),
            "positions": positions,
            "cache_bytes": 2 * geometry.width * (positions + drafted),
            "sharer_layers": len(layers),
            "minutes": round(sizes.total / 60, 2),
            "left_out": dict(left_out + Counter()),
        }

    def _table(self, corpus: Corpus, sizes: Sizes, layers: Sequence[int], folder: Path) -> dict[str, Any]:
        read = corpus.train[: sizes.drafted or sizes.pieces]
        questions = sum(len(item.questions) for item in read)
        sent = sum(len(item.questions) * min(POSITIONS, len(item.document) // _LONG) for item in read)
        batch = min(_CPU_BATCH if self._device.type == "cpu" else _GPU_BATCH, questions)
        texts = [item.document[:MOST] for item in corpus.train[:50]]
        dtype = str(dtype_of("auto", self._device)).removeprefix("torch.")
        return recipe_of(
            self.models,
            self.names,
            folder,
            self.output,
            sizes,
            self.models.translate(texts, layers, min(_CODE, sent // 2)),
            drafts=self._drafts,
            device=self._device.type,
            dtype=dtype,
            batch=batch,
            seed=self.asked.seed,
        )
