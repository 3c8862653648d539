"""The page: its tabs, and what holds for all of it."""

from pathlib import Path

import gradio as gr

from .hearing import Heard, Listener
from .kept import Kept, Uploads
from .live_tab import STOP, live_tab
from .live_window import LiveWindow
from .recording_tab import KEPT_S, recording_tab


TITLE = "See what a soundscape sounds like"
CSS = Path(__file__).with_name("page.css")
# Seconds between two looks for files that nobody needs.
CLEAN_EVERY_S = 600
# Recordings that are kept, of all visitors together.
MOST_KEPT = 32
# Microphones, whose last seconds have a megabyte.
MOST_WINDOWS = 128
# Saves the picture or sound before a button.
SAVE = """() => {
  document.addEventListener("click", (event) => {
    const button = event.target.closest(".avgas-save");
    if (!button) return;
    const link = document.createElement("a");
    link.href = button.previousElementSibling.src;
    link.download = button.dataset.name;
    link.click();
  });
}"""


def build_page(listener: Listener, examples: dict[str, Path], folder: Path) -> gr.Blocks:
    """
    The page.

    Args:
        listener ([`Listener`]): Hears and draws.
        examples (`dict[str, Path]`): Recordings to try, by name.
        folder (`Path`): Where uploads and results lie.
    """
    kept: Kept[Heard] = Kept(MOST_KEPT)
    windows: Kept[LiveWindow] = Kept(MOST_WINDOWS)
    uploads = Uploads(folder)

    def leave(request: gr.Request) -> None:
        kept.forget(request.session_hash)
        windows.forget(request.session_hash)
        uploads.forget(request.session_hash)

    # The pipeline does one thing after another.
    together = {"concurrency_limit": 1, "concurrency_id": "pipeline"}
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(CLEAN_EVERY_S, KEPT_S)) as page:
        gr.Markdown(f"# {TITLE}\nGive it a recording: it finds the sounds in it, and draws them.")
        with gr.Tab("A recording"):
            recording_tab(listener, examples, kept, uploads, together)
        with gr.Tab("Live", visible=listener.painter is None):
            live_tab(listener, windows, uploads, together)
        page.load(None, js=STOP)
        page.load(None, js=SAVE)
        page.unload(leave)
    return page
