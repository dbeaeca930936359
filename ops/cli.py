"""The command line `kvwire`: the one place that turns errors into exit codes.

Exit codes: 0 done; 1 it did not work (the reason is on standard error); 2 wrong use; 3 a question that got
no answer (`kvwire ask`, `kvwire chat`); 130 stopped by Ctrl-C.
"""

import logging
import os
import sys
from typing import Annotated

import typer

from ops.commands import audit_log, bench, bundle, documents, init, models
from ops.commands.audit import audit
from ops.commands.certs import certs
from ops.commands.chaos import chaos
from ops.commands.chat import chat
from ops.commands.demo import demo
from ops.commands.doctor import configs, doctor, smoke
from ops.commands.evaluate import evaluate
from ops.commands.link import link
from ops.commands.nodes import ask, cloud, edge
from ops.commands.pair import pair
from ops.commands.profile import profile
from ops.commands.top import top
from ops.commands.train import train
from ops.output import failed

app = typer.Typer(name="kvwire", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        sys.stdout.write(f"kvwire {version('kvwire')}\n")
        raise typer.Exit


@app.callback()
def root(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more; show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """A small model at the edge answers with what a large model in the cloud has read.

    The question goes up as text; what comes down is a slice of the large model's KV cache.
    """
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


app.command(rich_help_panel="Use")(demo)
app.command(rich_help_panel="Use")(ask)
app.command(rich_help_panel="Use")(chat)
app.command(rich_help_panel="Use")(doctor)
app.add_typer(init.app, name="init", rich_help_panel="Run")
app.command(rich_help_panel="Run")(cloud)
app.command(rich_help_panel="Run")(edge)
app.command(rich_help_panel="Run")(smoke)
app.command(rich_help_panel="Run")(top)
app.add_typer(configs, name="config", rich_help_panel="Run")
app.command(rich_help_panel="Run")(certs)
app.command(rich_help_panel="Run")(link)
app.command(rich_help_panel="Run")(chaos)
app.add_typer(documents.app, name="documents", rich_help_panel="Run")
app.add_typer(audit_log.app, name="audit-log", rich_help_panel="Run")
app.add_typer(models.app, name="models", rich_help_panel="Models and bundles")
app.add_typer(bundle.app, name="bundle", rich_help_panel="Models and bundles")
app.command(rich_help_panel="Models and bundles")(pair)
app.command(rich_help_panel="Models and bundles")(train)
app.add_typer(bench.app, name="bench", rich_help_panel="Models and bundles")
app.command("eval", rich_help_panel="Models and bundles")(evaluate)
app.command(rich_help_panel="Models and bundles")(profile)
app.command(rich_help_panel="Models and bundles")(audit)


def main() -> None:
    """Entry point of the installed command."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        sys.exit(failed(error))


if __name__ == "__main__":
    main()
