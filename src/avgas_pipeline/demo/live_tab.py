"""The tab in which the microphone is drawn again and again."""

from typing import Any

import gradio as gr
import numpy as np

from . import cards
from .hearing import Listener
from .live_window import LiveWindow
from .words import plain


# Seconds between two blocks of the microphone, and between two pictures at least.
BLOCK_S, PICTURE_S = 0.5, 0.05
# After which listening ends by itself.
LIMIT_S = 600
# Visitors that may use their microphones at a time.
LISTENERS = 32
LISTENING = "Listening."
# A page that nobody sees does not listen.
STOP_WHEN_HIDDEN = """() => {
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) document.querySelector("#live-microphone button.stop-button")?.click();
  });
}"""


def live_tab(listener: Listener, together: dict[str, Any]) -> None:
    """
    Build it.

    Args:
        listener ([`Listener`]): Hears and draws.
        together (`dict`): How events that use the pipeline wait for each other.
    """

    def hear(block: tuple[int, np.ndarray] | None, window: LiveWindow | None) -> LiveWindow:
        window = window or LiveWindow(listener)
        if block is not None:
            window.add(*block)
        return window

    def draw(window: LiveWindow | None) -> str:
        if window is None:
            return cards.message(LISTENING)
        try:
            image, sources = window.draw(seed=0)
        except ValueError as error:
            return cards.message(plain(error, "microphone"))
        if image is None:
            return cards.message(LISTENING)
        names = [source.name for source in sources if source.is_drawn]
        rate = f"{window.pictures_per_second():.1f} pictures a second"
        return cards.gallery([image], names) + cards.message(f"{', '.join(names)} ({rate})", is_said=False)

    gr.Markdown("What the microphone hears, drawn again and again. It stops when this page is hidden.")
    microphone = gr.Audio(
        sources=["microphone"], streaming=True, type="numpy", label="Microphone", elem_id="live-microphone"
    )
    shown = gr.HTML(elem_id="live")
    window = gr.State(None)
    # Apart from what is recorded, so that no sound is lost while a picture is drawn.
    timer = gr.Timer(PICTURE_S, active=False)
    microphone.start_recording(lambda: (gr.Timer(active=True), None), None, [timer, window], show_progress="hidden")
    microphone.stop_recording(lambda: gr.Timer(active=False), None, timer, show_progress="hidden")
    microphone.stream(
        hear,
        [microphone, window],
        window,
        stream_every=BLOCK_S,
        time_limit=LIMIT_S,
        show_progress="hidden",
        concurrency_limit=LISTENERS,
    )
    timer.tick(draw, window, shown, show_progress="hidden", **together)
