"""The `avgas` command: its subcommands, and what is set before any of them."""

import os
from typing import Annotated

import typer

from ..version import VERSION
from .benchmark import benchmark
from .demo import demo
from .evaluate import evaluate
from .export_remote_code import export_remote_code
from .film import film
from .generate import generate
from .info import info
from .labels import labels
from .prepare import prepare
from .signals import end_on_signals
from .study import study
from .terminal import guard_streams


# Formatting help and errors with rich would take longer than all the rest of `avgas --help`.
app = typer.Typer(
    name="avgas",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (generate, demo, film, info, labels, export_remote_code, prepare, evaluate, benchmark, study):
    app.command()(command)

# How OpenMP's threads wait for work: the standard variable, GNU's and Intel's.
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def main() -> None:
    """`avgas`, as it is installed."""
    guard_streams()
    end_on_signals()
    # Threads that spin while they wait take the cores from each other as soon as another process is busy. A command
    # mostly imports, so it loses little by waiting passively. OpenMP reads this when torch is imported.
    if not any(name in os.environ for name in _WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    app(prog_name="avgas")


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(VERSION)
        raise typer.Exit


@app.callback()
def _avgas(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """See what a soundscape sounds like."""
