"""`avgas export-remote-code`: a checkpoint that carries the pipeline's code."""

from pathlib import Path
from typing import Annotated

import typer

from ..loaders.folders import locate
from .checks import bad_input_exits
from .options import ModelArgument


def export_remote_code(
    model: ModelArgument,
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
) -> None:
    """Copy a checkpoint with the code inside. People can then use it without installing this package."""
    with bad_input_exits():
        locate(model)

        from ..loaders.remote_code import export_remote_code as export

        export(model, out)
    typer.echo(f"{out}: load it with DiffusionPipeline.from_pretrained(..., trust_remote_code=True)")
