"""`avgas labels`: what a checkpoint knows."""

from typing import Annotated

import typer

from ..loaders.folders import DEFAULT_CHECKPOINT, locate
from ..printable import printable
from .checks import bad_input_exits
from .models import load_pipeline


def labels(
    model: Annotated[str, typer.Argument(help="Checkpoint: a folder or a Hub repository.")] = DEFAULT_CHECKPOINT,
) -> None:
    """Print the labels that a checkpoint knows, one a line, in alphabetical order."""
    with bad_input_exits():
        locate(model)
        separator = load_pipeline(model, "cpu", None).separator
    for label in sorted(label for number, label in separator.id2label.items() if number != separator.unknown_index):
        typer.echo(printable(label))
