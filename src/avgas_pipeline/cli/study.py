"""`avgas study`: two systems compared by people."""

import threading
from pathlib import Path
from typing import Annotated

import typer

from ..notices import quieten
from ..printable import printable
from .checks import bad_input_exits, check_is_folder


def study(
    report: Annotated[Path, typer.Argument(help="Folder that `avgas evaluate` wrote, with two systems or more.")],
    against: Annotated[
        str | None, typer.Option(help="System to compare the first one with; the second if not given.")
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs shown to each rater.")] = 40,
    data: Annotated[str | None, typer.Option(help="The dataset, if it is not where it was.")] = None,
    host: Annotated[str, typer.Option(help="Address to serve on; 0.0.0.0 for the whole network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to serve on.")] = 7860,
    results: Annotated[bool, typer.Option("--results", help="Only print the preference so far.")] = False,
) -> None:
    """Have people compare two systems' pictures. A local page shows them without the systems' names."""
    with bad_input_exits():
        check_is_folder(report)
        quieten()

        from ..evaluation.ratings import RATINGS, Comparison, RatingFile, preference

        compared = Comparison.of_report(report, against)
        if not results:
            from ..evaluation.study import Study, served

            try:
                with served(Study(report, against, pairs, data), host, port) as url:
                    typer.echo(printable(f"{url} compares {compared.ours} with {compared.theirs}; Ctrl-C ends it."))
                    threading.Event().wait()
            except KeyboardInterrupt:
                typer.echo("")
        ratings = compared.relevant(RatingFile(report / RATINGS).read())
        outcome = preference(ratings, compared.ours, compared.theirs)
        typer.echo(printable(f"{compared.ours} against {compared.theirs}: {outcome}"))
