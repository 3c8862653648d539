"""The tab in which a recording is heard and drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from ..layout import MOST_PLACED
from . import cards
from .hearing import MOST_CARDS, Heard, Listener, Sampling
from .kept import Kept, Uploads
from .words import plain


# Seconds after which what was heard is forgotten.
KEPT_S = 3600
LARGEST_SEED = 2**31 - 1
UNHEARD = "Record something or choose a file first."
SAVED = "Saved as one ZIP file."
FORGOTTEN = "This recording is not kept any more. Press “Show me” once more."
# In the browser itself, before whoever is quick presses the button.
NEITHER = "() => [null, null]"
# A button that can't be seen, which gives the browser the file.
FETCH = "() => document.querySelector('#archive, #archive a, #archive button').click()"


def recording_tab(
    listener: Listener, examples: dict[str, Path], kept: Kept[Heard], uploads: Uploads, together: dict[str, Any]
) -> None:
    """
    Build it.

    Args:
        listener ([`Listener`]): Hears and draws.
        examples (`dict[str, Path]`): Recordings to try, by name.
        kept ([`Kept`]): What was heard, of all visitors.
        uploads ([`Uploads`]): Likewise.
        together (`dict`): How events that use the pipeline wait for each other.
    """

    def hear(
        recording: str | None,
        file: str | None,
        example: str | None,
        negative: str | None,
        request: gr.Request,
        *sampling: float | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        path = recording or file or (str(examples[example]) if example in examples else None)
        if path is None:
            return _nothing(UNHEARD)
        name = example if path not in (recording, file) else Path(path).name
        kept.welcome(request.session_hash)
        uploads.add(request.session_hash, recording, file, negative)
        progress(0.1, desc="Listening and drawing")
        try:
            heard = listener.hear(path, name, _sampling(*sampling), negative, uploads.folder)
        except (OSError, ValueError) as error:
            return _nothing(plain(error, name, listener.max_duration_s))
        kept.put(request.session_hash, heard)
        if heard.is_closed:
            return _nothing(FORGOTTEN)
        found = ", ".join(cards.said(source) for source in heard.sources)
        more = len(heard.sources) - MOST_CARDS
        text = f"Heard: {found}." + (f" The last {more} have no card." if more > 0 else "")
        return [heard, cards.message(text), _mixed(heard), *_card_updates(heard)]

    def redraw(heard: Heard | None, *controls: Any) -> list[Any]:
        unchanged = [gr.skip()] * MOST_CARDS
        if heard is None:
            # Nothing has been heard yet: what moves holds for what comes.
            return [gr.skip(), gr.skip(), gr.skip(), *unchanged]
        if heard.is_closed:
            return [None, cards.message(FORGOTTEN, is_error=True), gr.skip(), *unchanged]
        sampling, controls = controls[:4], controls[4:]
        try:
            is_new = listener.draw(heard, _weights(heard, controls), _sampling(*sampling))
        except ValueError as error:
            text = plain(error, heard.name, listener.max_duration_s)
            return [gr.skip(), cards.message(text, is_error=True), gr.skip(), *unchanged]
        # Given back, it is kept for another hour.
        return [heard, cards.message("Drawn again."), _mixed(heard), *(_card_htmls(heard) if is_new else unchanged)]

    def archive(heard: Heard | None) -> list[Any]:
        if heard is None or heard.is_closed:
            return [cards.message(FORGOTTEN, is_error=True), gr.skip()]
        try:
            return [cards.message(SAVED), gr.update(value=str(heard.archive()))]
        except (OSError, ValueError) as error:
            text = plain(error, heard.name, listener.max_duration_s)
            return [cards.message(text, is_error=True), gr.skip()]

    def note(path: str | None, request: gr.Request) -> None:
        # What is never heard goes with the visitor, too.
        uploads.add(request.session_hash, path)

    def plan_film(
        heard: Heard | None,
        *sampling: float | None,
        progress: gr.Progress = gr.Progress(track_tqdm=True),  # noqa: B008
    ) -> str:
        if heard is None or heard.is_closed:
            return cards.message(UNHEARD if heard is None else FORGOTTEN, is_error=True)
        progress(0.0, desc="Drawing the scenes")
        try:
            listener.plan_film(heard, _sampling(*sampling))
        except (OSError, ValueError) as error:
            return cards.message(plain(error, heard.name, listener.max_duration_s), is_error=True)
        return cards.message("The scenes are drawn.")

    def write_film(
        heard: Heard | None,
        progress: gr.Progress = gr.Progress(track_tqdm=True),  # noqa: B008
    ) -> list[Any]:
        if heard is None or heard.planned is None:
            # Why is said already.
            return [gr.skip()] * 3
        progress(0.0, desc="Making the film")
        try:
            files = [str(path) for path in listener.film(heard)]
        except (OSError, ValueError) as error:
            text = plain(error, heard.name, listener.max_duration_s)
            return [cards.message(text, is_error=True), gr.skip(), gr.skip()]
        if heard.is_closed:
            return [cards.message(FORGOTTEN, is_error=True), gr.skip(), gr.skip()]
        return [
            cards.message("The film is below the sounds."),
            gr.update(value=files[0], visible=True),
            gr.update(value=files, visible=True),
        ]

    draws_itself = listener.painter is None
    heard = gr.State(None, time_to_live=KEPT_S, delete_callback=lambda value: value and value.close())
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            recording = gr.Audio(
                sources=["upload", "microphone"], type="filepath", label="Recording", elem_id="recording"
            )
            file = gr.File(label="… or a video", file_types=["video"], type="filepath", elem_id="video", height=110)
            example = gr.Dropdown(
                list(examples), value=None, label="… or an example", elem_id="example", visible=bool(examples)
            )
            go = gr.Button("Show me", variant="primary", elem_id="go")
            with gr.Accordion("More", open=False):
                sampling = _sampling_controls(listener)
                negative = gr.Audio(
                    sources=["upload", "microphone"],
                    type="filepath",
                    label="A sound that should not show",
                    visible=draws_itself,
                )
        with gr.Column(scale=2, min_width=300):
            status = gr.HTML(elem_id="status")
            mixed = gr.HTML(elem_id="mixed")
            with gr.Row():
                download = gr.Button("Download all (ZIP)", visible=False, elem_id="download")
                fetched = gr.DownloadButton("The ZIP file", elem_id="archive", elem_classes="avgas-unseen")
                film_button = gr.Button("Make a film (all sounds, equally large)", visible=False, elem_id="make-film")
    boxes, htmls, weights, mutes = [], [], [], []
    with gr.Row(equal_height=False):
        for number in range(MOST_CARDS):
            with gr.Column(visible=False, min_width=240, elem_classes="avgas-card") as box:
                boxes.append(box)
                htmls.append(gr.HTML(elem_id=f"card-{number}"))
                weights.append(
                    gr.Slider(0.25, 2, value=1, step=0.05, label="How much it shows", elem_id=f"weight-{number}")
                )
                mutes.append(gr.Checkbox(label="Mute", elem_id=f"mute-{number}"))
    film = gr.Video(label="Film", visible=False, elem_id="film", height=560)
    film_files = gr.File(label="Film, captions and storyboard", visible=False, elem_id="film-files")
    overview = gr.HTML(elem_id="overview")

    def summary(heard: Heard | None) -> list[Any]:
        if heard is None or heard.is_closed:
            return ["", gr.update(visible=False), gr.update(visible=False)]
        picture = cards.picture(heard.overview(), f"Overview of {heard.name}", "overview.png")
        return [picture, gr.update(visible=True), gr.update(visible=draws_itself)]

    # The overview takes longer than the picture, so it comes after it.
    after = {
        "fn": summary,
        "inputs": [heard],
        "outputs": [overview, download, film_button],
        "show_progress": "hidden",
        **together,
    }
    all_cards = [part for parts in zip(boxes, htmls, weights, mutes, strict=True) for part in parts]
    go.click(
        hear,
        [recording, file, example, negative, *sampling],
        [heard, status, mixed, *all_cards],
        api_name="hear",
        show_progress_on=[status],
        **together,
    ).then(**after)
    # What was made of the recording before.
    go.click(lambda: [gr.update(value=None, visible=False)] * 2, None, [film, film_files], show_progress="hidden")
    # The one that was chosen last is heard.
    for chosen, event in ((recording, recording.input), (file, file.upload), (example, example.input)):
        others = [part for part in (recording, file, example) if part is not chosen]
        event(None, None, others, js=NEITHER)
    for part, event in ((recording, recording.input), (file, file.upload), (negative, negative.input)):
        event(note, [part], None, show_progress="hidden")
    # By pointer and by key, and not where the page itself sets a value.
    for part in (*weights, *mutes, *sampling):
        part.input(
            redraw,
            [heard, *sampling, *weights, *mutes],
            [heard, status, mixed, *htmls],
            show_progress="hidden",
            trigger_mode="always_last",
            **together,
        ).then(**after)
    download.click(archive, [heard], [status, fetched], show_progress_on=[status], **together).success(None, js=FETCH)
    film_button.click(
        plan_film, [heard, *sampling], [status], api_name="plan_film", show_progress_on=[status], **together
    ).then(
        write_film,
        [heard],
        [status, film, film_files],
        api_name="film",
        show_progress_on=[status],
        # Others are heard and drawn meanwhile.
        concurrency_limit=1,
        concurrency_id="film",
    )


def _sampling_controls(listener: Listener) -> list[gr.components.Component]:
    """Seed, steps, guidance and number of mixed pictures."""
    has_steps = listener.default_steps is not None
    return [
        gr.Slider(0, LARGEST_SEED, value=0, step=1, label="Seed: same seed, same pictures"),
        gr.Slider(1, 50, value=listener.default_steps or 10, step=1, label="Denoising steps", visible=has_steps),
        gr.Slider(1, 10, value=listener.default_guidance or 1, step=0.5, label="Guidance", visible=has_steps),
        gr.Slider(1, 4, value=1, step=1, label="Mixed pictures"),
    ]


def _sampling(seed: float, steps: float | None, guidance: float | None, count: float) -> Sampling:
    return Sampling(int(seed), None if steps is None else int(steps), guidance, int(count))


def _weights(heard: Heard, controls: Sequence[Any]) -> list[float]:
    """Of a recording's sources, by sliders and boxes: those without a card as they are."""
    weights, mutes = controls[:MOST_CARDS], controls[MOST_CARDS:]
    shown = [0.0 if mute else float(weight) for weight, mute in zip(weights, mutes, strict=True)]
    shown = (shown + [1.0] * len(heard.sources))[: len(heard.sources)]
    # Sounds that are not drawn do not count.
    is_any = any(weight > 0 for source, weight in zip(heard.sources, shown, strict=True) if source.is_drawn)
    return shown if is_any else [0.0] * len(shown)


def _mixed(heard: Heard) -> str:
    drawn = zip(heard.sources, heard.weights, strict=True)
    names = [source.name for source, weight in drawn if weight > 0 and source.is_drawn]
    return cards.gallery(heard.images, names[:MOST_PLACED])


def _card_htmls(heard: Heard) -> list[str]:
    htmls = [cards.card(source, number, heard.sampling_rate) for number, source in enumerate(heard.sources)]
    return (htmls + [""] * MOST_CARDS)[:MOST_CARDS]


def _card_updates(heard: Heard | None) -> list[Any]:
    """Of all cards' parts: box, HTML, weight and mute."""
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


def _nothing(text: str) -> list[Any]:
    return [None, cards.message(text, is_error=True), "", *_card_updates(None)]
