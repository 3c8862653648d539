"""The page: what is on it, and what happens when something is pressed."""

from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from . import cards
from .hearing import MOST_CARDS, Heard, Listener, LiveWindow, Sampling


TITLE = "See what a soundscape sounds like"
CSS = Path(__file__).with_name("page.css")
# The page stops listening when it is hidden.
STOP_WHEN_HIDDEN = """() => {
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) document.querySelector("#live-microphone button.stop-button")?.click();
  });
}"""
# Seconds between two blocks of the microphone, and after which listening ends by itself.
LIVE_EVERY_S, LIVE_LIMIT_S = 0.4, 600
# Seconds between two looks for files that nobody needs, and how old these are.
CLEAN_EVERY_S, CLEAN_AGE_S = 600, 3600
LARGEST_SEED = 2**31 - 1
LISTENING = "Listening."


def build_page(listener: Listener, examples: dict[str, Path]) -> gr.Blocks:
    """
    The page.

    Args:
        listener ([`Listener`]): Hears and draws.
        examples (`dict[str, Path]`): Recordings to try, by name.
    """

    def sampling_of(seed: float, steps: float | None, guidance: float | None, count: float) -> Sampling:
        return Sampling(int(seed), None if steps is None else int(steps), guidance, int(count))

    def mixed_of(heard: Heard) -> str:
        names = [source.name for source, weight in zip(heard.sources, heard.weights, strict=True) if weight > 0]
        return cards.gallery(heard.images, names)

    def summary(heard: Heard | None) -> list[Any]:
        if heard is None:
            return ["", gr.update(visible=False)]
        overview = cards.picture(heard.overview(), f"Overview of {heard.name}", "overview.png")
        return [overview, gr.update(value=str(heard.archive()), visible=True)]

    def card_updates(heard: Heard | None) -> list[Any]:
        updates: list[Any] = []
        for number in range(MOST_CARDS):
            source = heard.sources[number] if heard is not None and number < len(heard.sources) else None
            if source is None:
                updates += [gr.update(visible=False), "", gr.update(value=1.0), gr.update(value=False)]
                continue
            updates += [
                gr.update(visible=True),
                cards.card(source, number, heard.sampling_rate),
                gr.update(value=1.0, label=f"How much {source.name} shows", interactive=source.is_drawn),
                gr.update(value=False, label=f"Mute {source.name}", interactive=source.is_drawn),
            ]
        return updates

    def nothing(text: str) -> list[Any]:
        return [None, cards.message(text, is_error=True), "", *card_updates(None)]

    def hear(
        recording: str | None,
        file: str | None,
        example: str | None,
        negative: str | None,
        seed: float,
        steps: float | None,
        guidance: float | None,
        count: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        path = recording or file or (str(examples[example]) if example in examples else None)
        if path is None:
            return nothing("Record something, choose a file, or take an example first.")
        name = example if path not in (recording, file) else Path(path).name
        progress(0.1, desc="Listening")
        try:
            heard = listener.hear(path, name, sampling_of(seed, steps, guidance, count), negative)
        except (OSError, ValueError) as error:
            return nothing(plain(error, name))
        progress(0.9, desc="Drawing")
        found = ", ".join(source.name for source in heard.sources)
        more = len(heard.sources) - MOST_CARDS
        text = f"Heard: {found}." + (f" The last {more} have no card." if more > 0 else "")
        return [heard, cards.message(text), mixed_of(heard), *card_updates(heard)]

    def redraw(
        heard: Heard | None,
        seed: float,
        steps: float | None,
        guidance: float | None,
        count: float,
        *controls: Any,
    ) -> list[Any]:
        if heard is None:
            return [gr.skip(), gr.skip()]
        weights, mutes = controls[:MOST_CARDS], controls[MOST_CARDS:]
        shown = [0.0 if mute else float(weight) for weight, mute in zip(weights, mutes, strict=True)]
        shown = (shown + [1.0] * len(heard.sources))[: len(heard.sources)]
        try:
            listener.draw(heard, shown, sampling_of(seed, steps, guidance, count))
        except ValueError as error:
            return [cards.message(plain(error, heard.name), is_error=True), gr.skip()]
        return [cards.message("Drawn again."), mixed_of(heard)]

    def live(block: tuple[int, np.ndarray] | None, window: LiveWindow | None, seed: float) -> list[Any]:
        window = window or LiveWindow(listener)
        if block is None:
            return [gr.skip(), window]
        window.add(*block)
        try:
            image, sources = window.draw(int(seed))
        except ValueError as error:
            return [cards.message(plain(error, "microphone")), window]
        if image is None:
            return [cards.message(LISTENING), window]
        names = [source.name for source in sources if source.is_drawn]
        rate = f"{window.pictures_per_second():.1f} pictures a second"
        return [cards.gallery([image], names) + cards.message(f"{', '.join(names)} ({rate})"), window]

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(CLEAN_EVERY_S, CLEAN_AGE_S)) as page:
        heard = gr.State(None, time_to_live=CLEAN_AGE_S, delete_callback=lambda value: value and value.close())
        gr.Markdown(f"# {TITLE}\nGive it a recording: it finds the sounds in it, and draws them.")
        with gr.Tab("A recording"):
            with gr.Row():
                with gr.Column(scale=1, min_width=300):
                    recording = gr.Audio(
                        sources=["upload", "microphone"], type="filepath", label="Recording", elem_id="recording"
                    )
                    file = gr.File(label="… or a video", file_types=["video"], type="filepath", elem_id="video")
                    example = gr.Dropdown(
                        list(examples), value=None, label="… or an example", elem_id="example", visible=bool(examples)
                    )
                    go = gr.Button("Show me", variant="primary", elem_id="go")
                    with gr.Accordion("More", open=False):
                        seed = gr.Slider(0, LARGEST_SEED, value=0, step=1, label="Seed: same seed, same pictures")
                        has_steps = listener.default_steps is not None
                        steps = gr.Slider(
                            1,
                            50,
                            value=listener.default_steps or 10,
                            step=1,
                            label="Denoising steps",
                            visible=has_steps,
                        )
                        guidance = gr.Slider(
                            1, 10, value=listener.default_guidance or 1, step=0.5, label="Guidance", visible=has_steps
                        )
                        count = gr.Slider(1, 4, value=1, step=1, label="Mixed pictures")
                        negative = gr.Audio(
                            sources=["upload", "microphone"],
                            type="filepath",
                            label="A sound that should not show",
                            visible=has_steps,
                        )
                with gr.Column(scale=2, min_width=300):
                    status = gr.HTML(elem_id="status")
                    mixed = gr.HTML(elem_id="mixed")
                    download = gr.DownloadButton("Download all (ZIP)", visible=False, elem_id="download")
            boxes, htmls, weights, mutes = [], [], [], []
            with gr.Row(equal_height=False):
                for number in range(MOST_CARDS):
                    with gr.Column(visible=False, min_width=240, elem_classes="avgas-card") as box:
                        boxes.append(box)
                        htmls.append(gr.HTML(elem_id=f"card-{number}"))
                        weights.append(
                            gr.Slider(
                                0.25, 2, value=1, step=0.05, label="How much it shows", elem_id=f"weight-{number}"
                            )
                        )
                        mutes.append(gr.Checkbox(label="Mute", elem_id=f"mute-{number}"))
            overview = gr.HTML(elem_id="overview")
        with gr.Tab("Live", visible=listener.painter is None):
            gr.Markdown("What the microphone hears, drawn again and again. It stops when this page is hidden.")
            microphone = gr.Audio(
                sources=["microphone"], streaming=True, type="numpy", label="Microphone", elem_id="live-microphone"
            )
            shown = gr.HTML(elem_id="live")
            window = gr.State(None)

        sampling = [seed, steps, guidance, count]
        all_cards = [part for parts in zip(boxes, htmls, weights, mutes, strict=True) for part in parts]
        together = {"concurrency_limit": 1, "concurrency_id": "pipeline"}
        # The overview and the archive take longer than the picture, so they come after it.
        after = {
            "fn": summary,
            "inputs": [heard],
            "outputs": [overview, download],
            "show_progress": "hidden",
            **together,
        }
        go.click(
            hear,
            [recording, file, example, negative, *sampling],
            [heard, status, mixed, *all_cards],
            api_name="hear",
            show_progress_on=[status],
            **together,
        ).then(**after)
        controls = [heard, *sampling, *weights, *mutes]
        # By pointer and by key, and not where the page itself sets a value.
        for part in (*weights, *mutes, seed, count):
            part.input(
                redraw, controls, [status, mixed], show_progress="hidden", trigger_mode="always_last", **together
            ).then(**after)
        microphone.stream(
            live,
            [microphone, window, seed],
            [shown, window],
            stream_every=LIVE_EVERY_S,
            time_limit=LIVE_LIMIT_S,
            show_progress="hidden",
            **together,
        )
        page.load(None, js=STOP_WHEN_HIDDEN)
    return page


def plain(error: Exception, name: str) -> str:
    """What went wrong, in the visitor's words."""
    text = str(error)
    if "silent" in text:
        return f"{name}: this recording is silent."
    if "no sound that the model knows" in text:
        return f"{name}: nothing is heard in it that the model knows."
    if "weight of 0" in text:
        return "Every sound is muted, so nothing is left to draw."
    return text.removeprefix("Soundscape 0: ")
