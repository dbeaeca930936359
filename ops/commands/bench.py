"""`kvwire bench`: one subcommand a benchmark of `ops/bench`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kvwire.segment import SliceKind
from ops.bench.benchmark import Bench
from ops.commands.options import (
    BundleOption,
    DeviceOption,
    DtypeOption,
    JsonOut,
    MarkdownOut,
    PlotOut,
    ReceiverOption,
    SharerOption,
    found_bundle,
)

if TYPE_CHECKING:
    from rich.progress import Progress

    from fuser.bundle.bundle import Bundle
    from fuser.models.load import DeviceName, DtypeName
    from ops.demo.stage import Cast

KindOption = Annotated[
    SliceKind | None, typer.Option("--kind", help="Of the slices. [default: the bundle's first]")
]

app = typer.Typer(no_args_is_help=True, help="Benchmarks: every time beside its baseline of the same run.")


@app.command()
def link(
    rates: Annotated[
        str, typer.Option(help="Comma-separated rates in Mbit/s, both ways.")
    ] = "1,5,10,20,50,100,1000",
    rtt: Annotated[str, typer.Option(help="Comma-separated round trips in ms.")] = "5,40,100",
    loss: Annotated[float, typer.Option(help="Only 0: a TCP proxy cannot lose packets.")] = 0.0,
    limit: Annotated[int, typer.Option(min=1, help="Questions of the demo, one a document first.")] = 5,
    ways: Annotated[
        str | None,
        typer.Option(help="Ways to an answer, semicolon between. [default: all that the bundle has]"),
    ] = None,
    utilisation: Annotated[
        str,
        typer.Option(
            help="Mbit/s at which a long slice is streamed, to see what share of the link it uses; '' for none."
        ),
    ] = "10,50,100",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens an answer has at most.")] = 24,
    sharer: SharerOption = None,
    receiver: ReceiverOption = None,
    bundle: BundleOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    json_out: JsonOut = None,
    markdown_out: MarkdownOut = None,
    plot_out: PlotOut = None,
) -> None:
    """Time to an answer over slow links: each plan, the text relay, and the Receiver alone; two nodes, real calls."""
    from ops.bench import link as bench
    from ops.bench import link_report
    from ops.bench import utilisation as used
    from ops.bench.ways import chosen, ways_of
    from ops.demo.interrupt import Interrupt
    from ops.link.shape import check_loss, shapes

    check_loss(loss)
    speeds, trips = _numbers("--rates", rates), _numbers("--rtt", rtt)
    long = _numbers("--utilisation", utilisation) if utilisation else ()
    links, streamed = shapes(speeds, trips), shapes(long, trips)
    cast, pairs = _cast(sharer, receiver, bundle, "raw", device, dtype)
    names = None if ways is None else [name.strip() for name in ways.split(";")]
    taken = chosen(ways_of(cast.bundle, pairs), names)
    plan = bench.LinkBench(cast, taken, tuple(links), limit, max_new_tokens)

    def measure(progress: "Progress") -> Mapping[str, Any]:
        found: dict[str, Any] = {}
        with Interrupt() as interrupt:
            if streamed:  # the shorter part first: should it fail, less is lost
                with bench.working_folder() as folder:
                    like = Path(cast.sharer)
                    shares = used.measure(streamed, like, Path(folder), progress, interrupt.check)
                found = {"utilisation": shares}
            with bench.working_folder() as folder:
                return bench.measure(plan, Path(folder), progress, interrupt.check) | found

    settings = {
        "rates": speeds,
        "rtt": trips,
        "loss": loss,
        "questions": limit,
        "max_new_tokens": max_new_tokens,
        "ways": [way.name for way in taken],
        "utilisation": long,
    }
    Bench("link", settings | _named(cast, pairs), measure, link_report.markdown, link_report.plot).run(
        json_out, markdown_out, plot_out
    )


@app.command()
def cloud(
    streams: Annotated[
        str, typer.Option(help="Comma-separated numbers of callers at a time.")
    ] = "1,2,4,8,16",
    limit: Annotated[int, typer.Option(min=1, help="Calls for each number of callers, in each round.")] = 24,
    rounds: Annotated[int, typer.Option(min=1, help="Of all numbers of callers.")] = 3,
    kind: KindOption = None,
    codec: Annotated[str, typer.Option(help="On the wire.")] = "raw",
    sharer: SharerOption = None,
    bundle: BundleOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    json_out: JsonOut = None,
    markdown_out: MarkdownOut = None,
) -> None:
    """Requests and tokens a second through gateway, Ray and TLS, beside a bare batched prefill of the same tokens."""
    from ops.bench import cloud as bench

    cast, pairs = _cast(sharer, None, bundle, codec, device, dtype)
    callers = _counts("--streams", streams)
    plan = bench.CloudBench(cast, callers, limit, kind or _first_kind(pairs), rounds)

    settings = {
        "streams": callers,
        "requests": limit,
        "rounds": rounds,
        "kind": str(plan.kind),
        "codec": codec,
    }
    settings |= _named(cast, pairs)
    Bench("cloud", settings, _alone(bench.measure, plan), bench.markdown).run(json_out, markdown_out)


@app.command()
def local(
    limit: Annotated[
        int, typer.Option(min=1, help="Documents of the demo, each asked about in every round.")
    ] = 12,
    tokens: Annotated[
        int,
        typer.Option(
            min=0, help="Of the Sharer, that each document is filled up to with texts of others; 0: none."
        ),
    ] = 500,
    pin: Annotated[
        bool,
        typer.Option(
            "--pin",
            help="Keep the cloud on one half of the cores, the edge on the other; the one process has all.",
        ),
    ] = False,
    kind: KindOption = None,
    codec: Annotated[str, typer.Option(help="On the wire.")] = "lossless",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens an answer has at most.")] = 24,
    sharer: SharerOption = None,
    receiver: ReceiverOption = None,
    bundle: BundleOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    json_out: JsonOut = None,
    markdown_out: MarkdownOut = None,
) -> None:
    """The time to an answer of the service beside both models one after the other in one process; and where it goes."""
    from ops.bench import local as bench
    from ops.demo.cores import halves

    cores = halves() if pin else None
    cast, pairs = _cast(sharer, receiver, bundle, codec, device, dtype)
    plan = bench.LocalBench(cast, kind or _first_kind(pairs), limit, tokens, max_new_tokens, cores)

    settings = {
        "documents": limit,
        "tokens": tokens,
        "pin": pin,
        "kind": str(plan.kind),
        "codec": codec,
        "max_new_tokens": max_new_tokens,
    }
    Bench("local", settings | _named(cast, pairs), _alone(bench.measure, plan), bench.markdown).run(
        json_out, markdown_out
    )


@app.command()
def replies(
    data: Annotated[
        str, typer.Option(help="Documents, as the key `data` of `kvwire eval` takes them.")
    ] = "notes:heldout",
    limit: Annotated[int, typer.Option(min=6, help="Documents, of up to 2,000 characters.")] = 24,
    rounds: Annotated[
        int, typer.Option(min=4, help="Replies over each document, to two questions in turns.")
    ] = 12,
    plan: Annotated[str, typer.Option(help="Of the slices, such as transform-2:m8:padded.")] = "raw:m8",
    kind: KindOption = None,
    sharer: SharerOption = None,
    bundle: BundleOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    json_out: JsonOut = None,
    markdown_out: MarkdownOut = None,
) -> None:
    """What bytes and seconds of replies tell of a document: its length, and which of two it is (docs/privacy.md).

    Exits with 1 where a check fails: the numbers then say nothing.
    """
    from fuser.lab.data.load import load
    from kvwire.plan import Plan
    from ops.bench import replies as bench

    asked = Plan.parse(plan)
    cast, pairs = _cast(sharer, None, bundle, asked.codec, device, dtype)
    taken = kind or _first_kind(pairs)
    asked.check(taken)
    items = load(data, "document", limit, 1, for_training=False, max_document_chars=2_000)
    told = bench.RepliesBench(cast, taken, asked, tuple(item.document for item in items), rounds)

    settings = {"data": data, "documents": limit, "rounds": rounds, "plan": plan, "kind": str(taken)}
    report = Bench(
        "replies", settings | _named(cast, pairs), _alone(bench.measure, told), bench.markdown, seed=1
    ).run(json_out, markdown_out)
    if not report["results"]["valid"]:
        raise typer.Exit(1)


@app.command()
def prefixes(
    tokens: Annotated[
        str, typer.Option(help="Comma-separated lengths of documents.")
    ] = "100,500,1000,2000,4000,8000",
    rounds: Annotated[int, typer.Option(min=1, help="Of all ways, for each length.")] = 5,
    kind: KindOption = None,
    sharer: SharerOption = None,
    bundle: BundleOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    json_out: JsonOut = None,
    markdown_out: MarkdownOut = None,
    plot_out: PlotOut = None,
) -> None:
    """The Sharer's part of a first question, its document read before or not, beside that of the next question."""
    from ops.bench import prefixes as bench

    cast, pairs = _cast(sharer, None, bundle, "raw", device, dtype)
    lengths = _counts("--tokens", tokens)
    taken = kind or _first_kind(pairs)
    plan = bench.PrefixBench(Path(cast.sharer), cast.bundle, taken, lengths, rounds, device, dtype)

    settings = {"tokens": lengths, "rounds": rounds, "kind": str(taken)} | _named(cast, pairs)
    Bench("prefixes", settings, _alone(bench.measure, plan), bench.markdown, bench.plot, seed=1).run(
        json_out, markdown_out, plot_out
    )


@app.command()
def codecs(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            help="Its codecs, on its segments: directory, or name of one that ships. [default: the demo's]",
            metavar="BUNDLE",
            parser=found_bundle,
        ),
    ] = None,
    data: Annotated[
        str, typer.Option(help="Documents with questions, as the key `data` of `kvwire eval` takes them.")
    ] = ("records:heldout"),
    limit: Annotated[int, typer.Option(min=1, help="Documents.")] = 12,
    rounds: Annotated[int, typer.Option(min=1, help="Each rung's fastest counts.")] = 3,
    seed: Annotated[int, typer.Option(help="Which documents.")] = 1,
    sharer: SharerOption = None,
    json_out: JsonOut = None,
    markdown_out: MarkdownOut = None,
    plot_out: PlotOut = None,
) -> None:
    """Every rung of the ladder on real segments: ratio, error, speed, and what of the transfer it loses."""
    from fuser.bundle.bundle import Bundle
    from fuser.bundle.plans import PlanTable
    from fuser.lab.data.load import load
    from fuser.models.directory import model_ref
    from fuser.models.load import load_model
    from kvwire.codec import CodecRegistry
    from ops.bench import codecs as bench
    from ops.bench.real_segments import read_samples
    from ops.demo import pair
    from ops.models.fetch import resolve

    directory = bundle or pair.BUNDLE
    found = Bundle.load(directory)
    path = resolve(sharer or found.config.sharer.name)
    if model_ref(path) != found.config.sharer:
        raise ValueError(f"the bundle is for {found.config.sharer}, this Sharer is {model_ref(path)}")
    table = PlanTable.load(directory, found.hash) if PlanTable.lies_in(directory) else None
    items = load(data, "document", limit, seed, for_training=False)

    def measure(progress: "Progress") -> Mapping[str, Any]:
        samples = read_samples(found, *load_model(path), items, progress)
        return bench.measure(samples, CodecRegistry(found.codecs()), progress, rounds, table)

    settings = {"data": data, "documents": limit, "rounds": rounds}
    settings |= {"sharer": str(found.config.sharer), "bundle": found.hash}
    Bench("codecs", settings, measure, bench.markdown, bench.plot, seed).run(json_out, markdown_out, plot_out)


@app.command()
def scale(
    service: Annotated[
        Path,
        typer.Option(help="Report of `bench prefixes`: the service times.", exists=True, dir_okay=False),
    ],
    questions_s: Annotated[float, typer.Option(min=1, max=10_000_000, help="Questions a second.")] = 10_000.0,
    documents: Annotated[int, typer.Option(min=1, help="That are asked about.")] = 1_000_000,
    events: Annotated[int, typer.Option(min=2, help="Questions that are simulated.")] = 300_000,
    serve: Annotated[
        str,
        typer.Option(help="Comma-separated numbers of sleeping replicas to run in Ray Serve; '' for none."),
    ] = "",
    json_out: JsonOut = None,
    markdown_out: MarkdownOut = None,
) -> None:
    """Replicas, waits, bytes and costs of many questions over many documents: a model and its simulation, not a run."""
    from dataclasses import asdict

    from ops.bench import scale as bench
    from ops.bench.queues import Scale

    asked = Scale(questions_s=questions_s, documents=documents, events=events)
    replicas = _counts("--serve", serve) if serve else ()
    prefixes = bench.read_report(service, asked.tokens)

    def measure(progress: "Progress") -> Mapping[str, Any]:
        found = bench.measure(asked, prefixes, progress)
        if replicas:
            from ops.bench.scale_serve import serve as run

            found["serve"] = run(replicas, found["cv"], questions=400)
        return found

    settings = asdict(asked) | {"service": prefixes["date"], "serve": replicas}
    Bench("scale", settings, measure, bench.markdown, seed=1).run(json_out, markdown_out)


@app.command()
def put(
    reports: Annotated[
        list[Path],
        typer.Argument(help="What --json wrote.", metavar="REPORT...", exists=True, dir_okay=False),
    ],
    into: Annotated[
        Path,
        typer.Option(
            help="The page: each table goes between its lines <!-- kvwire bench NAME --> and "
            "<!-- end of kvwire bench -->.",
            exists=True,
            dir_okay=False,
        ),
    ],
    pictures: Annotated[Path, typer.Option(help="Folder of the pictures, NAME.png.", file_okay=False)],
) -> None:
    """Make tables and pictures of reports again, in their places of a page; nothing is measured."""
    from ops.bench.pages import put_report

    for report in reports:
        put_report(report, into, pictures)


def _alone(
    measure: "Callable[[Any, Path, Progress, Callable[[], None]], Mapping[str, Any]]", plan: Any
) -> "Callable[[Progress], Mapping[str, Any]]":
    """A measurement of a plan in a folder of its own, which Ctrl-C ends."""

    def run(progress: "Progress") -> Mapping[str, Any]:
        from ops.bench.link import working_folder
        from ops.demo.interrupt import Interrupt

        with Interrupt() as interrupt, working_folder() as folder:
            return measure(plan, Path(folder), progress, interrupt.check)

    return run


def _cast(
    sharer: str | None,
    receiver: str | None,
    bundle: Path | None,
    codec: str,
    device: "DeviceName",
    dtype: "DtypeName",
) -> tuple["Cast", "Bundle"]:
    """Who plays, else the demo's pair, models brought onto this machine; and the bundle."""
    from fuser.bundle.bundle import Bundle
    from fuser.models.load import find_device
    from ops.demo import pair
    from ops.demo.stage import Cast
    from ops.models.fetch import resolve

    find_device(device)  # refused now, and not when two nodes have started
    directory = bundle or pair.BUNDLE
    models = sharer or pair.SHARER, receiver or pair.RECEIVER
    paths = [str(resolve(model).resolve()) for model in models]
    cast = Cast(paths[0], paths[1], directory.resolve(), codec, device=device, dtype=dtype)
    return cast, Bundle.load(directory)


def _first_kind(bundle: "Bundle") -> SliceKind:
    """Of slices that the bundle makes: excerpts before others."""
    return min(bundle.kinds, key=[SliceKind.EXCERPT, SliceKind.SHARED, SliceKind.DRAFT].index)


def _named(cast: "Cast", bundle: "Bundle") -> dict[str, str]:
    """What a report says of who played, and where."""
    from fuser.models.load import dtype_of, find_device

    device = find_device(cast.device)
    return {
        "device": device.type,
        "dtype": str(dtype_of(cast.dtype, device)).removeprefix("torch."),
        "sharer": str(bundle.config.sharer),
        "receiver": str(bundle.config.receiver),
        "bundle": bundle.hash,
    }


def _numbers(option: str, text: str) -> tuple[float, ...]:
    """Raises ValueError: none, or not all of them numbers."""
    try:
        found = tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError as error:
        raise ValueError(f"{option} {text!r}: numbers with commas between are needed") from error
    return found


def _counts(option: str, text: str) -> tuple[int, ...]:
    """Raises ValueError: as `_numbers`, or not all of them whole and from 1."""
    found = _numbers(option, text)
    if not all(number >= 1 and number.is_integer() for number in found):
        raise ValueError(f"{option} {text!r}: whole numbers from 1 are needed")
    return tuple(map(int, found))
