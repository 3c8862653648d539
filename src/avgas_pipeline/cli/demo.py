"""`avgas demo`: a page in the browser."""

import math
import threading
from typing import Annotated

import typer

from ..loaders.folders import DEFAULT_CHECKPOINT, locate
from ..printable import printable
from .checks import bad_input_exits, check_number, check_painter
from .models import load_pipeline, load_text_to_image
from .options import Device, DType, MaxDuration, Painter, Style


def demo(
    model: Annotated[str, typer.Option(help="Checkpoint: a folder or a Hub repository.")] = DEFAULT_CHECKPOINT,
    painter: Painter = None,
    style: Style = None,
    host: Annotated[str, typer.Option(help="Address to serve on; 0.0.0.0 for the whole network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to serve on; 0 for one that is free.")] = 7860,
    share: Annotated[bool, typer.Option("--share", help="Ask gradio for a public address, too.")] = False,
    max_file: Annotated[float, typer.Option(help="Largest file accepted, in megabytes.")] = 100.0,
    max_duration: MaxDuration = 600.0,
    device: Device = None,
    dtype: Annotated[DType, typer.Option(help="Data type of the models.")] = DType.float32,
) -> None:
    """Open a page to drop recordings on: pictures, sounds and sliders, and the microphone live."""
    with bad_input_exits():
        check_number("--max-duration", max_duration, 1e-3, math.inf)
        check_number("--max-file", max_file, 1e-3, 1e6)
        locate(model)
        check_painter(painter, style)
        pipe = load_pipeline(model, device, dtype)
        drawing = None if painter is None else load_text_to_image(painter, device, dtype)

        from ..demo.hearing import Listener
        from ..demo.serving import AddressError, find_examples, served

        try:
            with served(
                Listener(pipe, drawing, style, max_duration), find_examples(), host, port, share, max_file
            ) as url:
                typer.echo(printable(f"{url} - Ctrl-C ends it."))
                threading.Event().wait()
        except AddressError as error:
            raise ValueError(f"--host {host} --port {port}: can't be had ({error.strerror}).") from None
        except KeyboardInterrupt:
            typer.echo("")
