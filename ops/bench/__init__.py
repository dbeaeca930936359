"""The benchmarks of `kvwire bench`, a module each.

A module `ops/bench/<name>.py` has three functions; `ops/commands/bench.py` has its command:

    measure(..., progress: rich.progress.Progress) -> dict[str, Any]   # plain JSON values
    markdown(report: Mapping[str, Any]) -> str                         # the table of an envelope's "results"
    plot(report: Mapping[str, Any], path: Path) -> None                # where a picture makes sense

Every time in a result stands beside its baseline of the same run, as a ratio. A report holds what is needed to draw it
again.
"""
