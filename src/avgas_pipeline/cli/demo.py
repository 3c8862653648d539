"""`avgas demo`: a page in the browser."""

import math
import threading
from typing import Annotated

import typer

from ..loaders.folders import DEFAULT_CHECKPOINT, locate
from ..loaders.phrases import DEFAULT_STYLE, check_style
from ..printable import printable
from .checks import bad_input_exits, check_number, check_sources
from .models import load_pipeline, load_text_to_image
from .options import Device, DType


def demo(
    model: Annotated[str, typer.Option(help="Checkpoint: a folder or a Hub repository.")] = DEFAULT_CHECKPOINT,
    painter: Annotated[
        str | None,
        typer.Option(help="Text-to-image pipeline of diffusers that draws instead: a folder or a Hub repository."),
    ] = None,
    style: Annotated[
        str | None, typer.Option(help="With --painter: what kind of picture, {} for what it shows.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to serve on; 0.0.0.0 for the whole network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to serve on; 0 for one that is free.")] = 7860,
    share: Annotated[bool, typer.Option("--share", help="Ask gradio for a public address, too.")] = False,
    max_file: Annotated[float, typer.Option(help="Largest file accepted, in megabytes.")] = 100.0,
    max_duration: Annotated[float, typer.Option(help="Longest recording accepted, in seconds.")] = 600.0,
    device: Device = None,
    dtype: Annotated[DType, typer.Option(help="Data type of the models.")] = DType.float32,
) -> None:
    """Open a page to drop recordings on: pictures, sounds and sliders, and the microphone live."""
    with bad_input_exits():
        check_number("--max-duration", max_duration, 1e-3, math.inf)
        check_number("--max-file", max_file, 1e-3, 1e6)
        locate(model)
        if painter is None and style is not None:
            raise ValueError("--style is for --painter; avgas models draw in the style that they learnt.")
        if painter is not None:
            check_sources(painter)
            check_style(style or DEFAULT_STYLE)
        pipe = load_pipeline(model, device, dtype)
        drawing = None if painter is None else load_text_to_image(painter, device, dtype)

        from ..demo.hearing import Listener
        from ..demo.serving import served

        try:
            with served(Listener(pipe, drawing, style, max_duration), host, port, share, max_file) as url:
                typer.echo(printable(f"{url} - Ctrl-C ends it."))
                threading.Event().wait()
        except KeyboardInterrupt:
            typer.echo("")
