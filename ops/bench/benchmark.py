"""One benchmark as a command runs it: measured with a progress bar, printed, written, drawn"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ops.output import counting_progress, write_report

if TYPE_CHECKING:
    from rich.progress import Progress


@dataclass(frozen=True)
class Bench:
    """See the module.

    Attributes:
        name: of the subcommand.
        settings: what was asked for, as the report repeats it.
        measure: does it; returns plain JSON values.
        markdown: the table of a report.
        plot: draws a report, where there is a picture.
        seed: None where nothing is drawn by chance.
    """

    name: str
    settings: Mapping[str, Any]
    measure: Callable[["Progress"], Mapping[str, Any]]
    markdown: Callable[[Mapping[str, Any]], str]
    plot: Callable[[Mapping[str, Any], Path], None] | None = None
    seed: int | None = None

    def run(
        self, json_out: str | None = None, markdown_out: Path | None = None, plot_out: Path | None = None
    ) -> Mapping[str, Any]:
        """Measure with a progress bar, then print and write what was asked for, and return it.

        Raises:
            RuntimeError, ValueError: the picture could not be drawn; said before anything is measured.
        """
        from ops.bench.envelope import measured

        if plot_out is not None:
            from fuser.lab.evaluate.picture import check

            check(plot_out)
        with counting_progress() as progress:
            report = measured(self.name, self.settings, self.seed, lambda: self.measure(progress))
        write_report(report, self.markdown(report), json_out, markdown_out)
        if plot_out is not None and self.plot is not None:
            plot_out.parent.mkdir(parents=True, exist_ok=True)
            self.plot(report, plot_out)
        return report
