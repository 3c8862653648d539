"""The page, served: on this machine alone unless asked otherwise, and never more than it needs."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from ..web.page_guard import PageGuard
from .hearing import Listener
from .page import CSS, build_page


# Of a request that is no upload: a block of the microphone is the largest.
MAX_BODY_BYTES = 4 << 20
# Visitors that wait.
QUEUE = 64
MEGABYTE = 1_000_000
# The visitor's own font, so that none is fetched from elsewhere; labels with the contrast that WCAG asks for.
THEME = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]).set(
    block_label_text_color="*neutral_800",
    block_label_text_color_dark="*neutral_100",
    block_title_text_color="*neutral_800",
    block_title_text_color_dark="*neutral_100",
    block_label_background_fill="transparent",
    block_label_background_fill_dark="transparent",
    block_title_background_fill="transparent",
    block_title_background_fill_dark="transparent",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_hover_dark="*primary_800",
)
# Of the repository in which the package lies, or else of a copy of it in which the command was started.
EXAMPLES, EXAMPLES_HERE = Path(__file__).parents[3] / "examples", Path("examples")
# One of its examples, so that no other folder is taken for it.
FIRST_EXAMPLE = "mixture-dog-bird.flac"
EXAMPLE_SUFFIXES = (".flac", ".ogg", ".wav")


class AddressError(OSError):
    """An address at which nothing can be served."""


def find_examples(folder: Path | None = None) -> dict[str, Path]:
    """Recordings in a folder, by name: those of the repository if not given, and none where it is not there."""
    if folder is None:
        folder = EXAMPLES if (EXAMPLES / FIRST_EXAMPLE).exists() else EXAMPLES_HERE
        if not (folder / FIRST_EXAMPLE).exists():
            return {}
    found = [path for path in sorted(folder.glob("*")) if path.suffix in EXAMPLE_SUFFIXES]
    return {path.stem: path.resolve() for path in found}


@contextmanager
def served(
    listener: Listener,
    examples: dict[str, Path],
    host: str = "127.0.0.1",
    port: int = 7860,
    share: bool = False,
    max_file_mb: float = 100.0,
    any_host: bool = False,
) -> Iterator[str]:
    """
    Serve the page while the block runs; gives its URL.

    Args:
        listener ([`Listener`]): Hears and draws.
        examples (`dict[str, Path]`): Recordings to try, by name.
        host (`str`, defaults to `"127.0.0.1"`): Address to serve on.
        port (`int`, defaults to 7860): 0 for any that is free.
        share (`bool`, defaults to `False`): Whether to ask gradio for a public address.
        max_file_mb (`float`, defaults to 100): Largest file accepted, in megabytes.
        any_host (`bool`, defaults to `False`): Whether the page has names that are not known here, as a Hub Space has.

    Raises:
        AddressError: If the address can't be had.
    """
    with _own_files() as folder:
        page = build_page(listener, examples, folder)
        page.queue(max_size=QUEUE)
        largest = round(max_file_mb * MEGABYTE)
        guard = Middleware(
            PageGuard,
            host=host,
            max_body_bytes=MAX_BODY_BYTES,
            max_upload_bytes=largest + MEGABYTE,
            any_host=any_host or share,
            refuses_addresses=True,
        )
        options = {"share": share, "max_file_size": largest, "app_kwargs": {"middleware": [guard]}}
        try:
            yield _launch(page, host, port, options)
        finally:
            page.close()


def _launch(page: gr.Blocks, host: str, port: int, options: dict[str, Any]) -> str:
    """Serve a page; gives its URL."""
    # gradio takes the next one where a port is not given.
    port = free_port(host, port)
    look = {"footer_links": [], "css_paths": [CSS], "theme": THEME}
    try:
        _, url, shared = page.launch(
            server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, **look, **options
        )
    except OSError:
        # Another program may have been quicker.
        free_port(host, port)
        raise
    return shared or url


def free_port(host: str, port: int) -> int:
    """
    The port itself if it is free, or one that is, for 0.

    Raises:
        AddressError: If the address can't be had.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as found:
            # A page that has just ended is in nobody's way.
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
            found.bind(address)
            return found.getsockname()[1]
    except OSError as error:
        raise AddressError(error.errno, error.strerror or str(error)) from None


@contextmanager
def _own_files() -> Iterator[Path]:
    """Uploads and results lie in a folder of their own, which goes when the page does."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    with tempfile.TemporaryDirectory(prefix="avgas-page-", dir=before) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            yield Path(folder)
        finally:
            os.environ.pop("GRADIO_TEMP_DIR")
            if before is not None:
                os.environ["GRADIO_TEMP_DIR"] = before
