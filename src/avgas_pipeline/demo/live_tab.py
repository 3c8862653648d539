"""The tab in which the microphone is drawn again and again."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import soundfile

from . import cards
from .hearing import Listener
from .kept import Kept, Uploads, remove_upload
from .live_window import LIMIT_S, LiveWindow
from .words import plain


# Seconds between two blocks of the microphone, and between two pictures at least.
BLOCK_S, PICTURE_S = 0.1, 0.05
# Of a block that is read: a browser that is busy sends several in one.
LONGEST_BLOCK_S, LARGEST_BLOCK_BYTES, HIGHEST_RATE = 10.0, 4 << 20, 192_000
# What it may hold: samples that are as large as their file says.
WAV_FORMATS, WAV_SUBTYPES = ("WAV", "WAVEX"), ("PCM_16", "PCM_24", "PCM_32", "FLOAT")
# Visitors that may use their microphones at a time.
LISTENERS = 32
LISTENING = "Listening."
OVER = "Listening has ended by itself. Record again to go on."
# A page that nobody sees does not listen, nor one that has listened for long enough.
STOP = """() => {
  const stop = () => document.querySelector("#live-microphone button.stop-button")?.click();
  document.addEventListener("visibilitychange", () => { if (document.hidden) stop(); });
  setInterval(() => {
    const over = document.querySelector("#live .avgas-over");
    if (!over) return;
    over.classList.remove("avgas-over");
    stop();
  }, 500);
}"""


def live_tab(listener: Listener, kept: Kept[LiveWindow], uploads: Uploads, together: dict[str, Any]) -> None:
    """
    Build it.

    Args:
        listener ([`Listener`]): Hears and draws.
        kept ([`Kept`]): What microphones heard last, of all visitors.
        uploads ([`Uploads`]): Likewise.
        together (`dict`): How events that use the pipeline wait for each other.
    """

    def start(request: gr.Request) -> tuple[Any, ...]:
        window = LiveWindow(listener)
        kept.welcome(request.session_hash)
        kept.put(request.session_hash, window)
        return gr.Timer(active=True), window, cards.message(LISTENING), ""

    def stop(window: LiveWindow | None) -> Any:
        if window is not None:
            window.close()
        uploads.sweep_soon()
        return gr.Timer(active=False)

    def hear(path: str | None, window: LiveWindow | None) -> None:
        if path is None:
            return
        if window is not None:
            # Blocks of the same samples have the same name, and the first may be gone already.
            with suppress(OSError, ValueError, soundfile.SoundFileError):
                window.add(*read_block(path))
        # A visitor's voice is not kept.
        remove_upload(Path(path))

    def draw(window: LiveWindow | None) -> tuple[Any, Any, Any]:
        if window is not None and window.is_over:
            window.close()
            return cards.message(OVER), '<div class="avgas-over"></div>', gr.Timer(active=False)
        if window is None or not window.is_news:
            return gr.skip(), gr.skip(), gr.skip()
        try:
            image, sources = window.draw(seed=0)
        except ValueError as error:
            return _said(window, plain(error, "microphone", LIMIT_S)), "", gr.skip()
        if image is None:
            return gr.skip(), gr.skip(), gr.skip()
        names = [source.name for source in sources if source.is_drawn]
        rate = f"{window.pictures_per_second():.1f} pictures a second"
        shown = cards.gallery([image], names) + cards.message(rate, is_said=False)
        return _said(window, *names), shown, gr.skip()

    gr.Markdown("What the microphone hears, drawn again and again. It stops when this page is hidden.")
    microphone = gr.Audio(
        sources=["microphone"],
        streaming=True,
        type="filepath",
        label="Microphone",
        elem_id="live-microphone",
        # Drawing it takes a browser as long as a picture takes here.
        waveform_options=gr.WaveformOptions(show_recording_waveform=False),
    )
    said = gr.HTML(elem_id="live-said")
    shown = gr.HTML(elem_id="live")
    window = gr.State(None)
    # Apart from what is recorded, so that no sound is lost while a picture is drawn.
    timer = gr.Timer(PICTURE_S, active=False)
    microphone.start_recording(start, None, [timer, window, said, shown], show_progress="hidden")
    microphone.stop_recording(stop, window, timer, show_progress="hidden")
    microphone.stream(
        hear,
        [microphone, window],
        None,
        stream_every=BLOCK_S,
        time_limit=LIMIT_S,
        show_progress="hidden",
        concurrency_limit=LISTENERS,
    )
    timer.tick(draw, window, [said, shown, timer], show_progress="hidden", **together)


def _said(window: LiveWindow, *names: str) -> Any:
    """What screen readers say: only what is new, in whatever order."""
    if window.said == {*names}:
        return gr.skip()
    window.said = {*names}
    return cards.message(", ".join(names))


def read_block(path: str) -> tuple[int, np.ndarray]:
    """
    Rate in Hz and samples `(T,)`, float32, of a block of the microphone.

    Raises:
        ValueError: If it is none that a browser sends: compressed, or longer than ten seconds.
        soundfile.SoundFileError: If it can't be read.
    """
    # Before anything is decoded: a small file may hold hours.
    if os.path.getsize(path) > LARGEST_BLOCK_BYTES:
        raise ValueError("A block of the microphone is too large.")
    info = soundfile.info(path)
    if info.format not in WAV_FORMATS or info.subtype not in WAV_SUBTYPES:
        raise ValueError(f"A block of the microphone is {info.format} ({info.subtype}), not WAV.")
    if info.samplerate > HIGHEST_RATE or info.frames > LONGEST_BLOCK_S * info.samplerate:
        raise ValueError("A block of the microphone is too long.")
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return rate, samples.mean(axis=1)
