"""`avgas study`: a local page on which people compare two systems' images of what they hear, blind."""

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import PIL.Image
import soundfile
from starlette.middleware import Middleware

from ..files import atomic_path
from ..web.page_guard import PageGuard
from .image_folder import ImageFolderSystem
from .ratings import CHOICES, RATINGS, Comparison, Pair, Rating, RatingFile, pairs_for
from .report import read_report
from .soundscapes import MANIFEST, EvaluationSet, load_evaluation_set


QUESTION = "Which picture shows better what you hear?"
# Side of the images on the page, in pixels.
SHOWN_SIZE = 448
# Of a rater's name, in characters.
LONGEST_NAME = 100
_BUTTONS = {"left": "The left one", "right": "The right one", "equal": "Can't tell"}


class Study:
    """
    Two systems of one report, and the ratings people give.

    Args:
        out (`Path`): The report's folder.
        against (`str`, *optional*): The system to compare the first with; by default the second.
        num_pairs (`int`, defaults to 40): Shown to each rater.
        data (`str`, *optional*): The dataset, if it is not where it was.

    Raises:
        FileNotFoundError: If there is no report or no images.
        ValueError: If the report has no such system.
    """

    def __init__(self, out: Path, against: str | None = None, num_pairs: int = 40, data: str | None = None) -> None:
        self.comparison = Comparison.of_report(out, against)
        self.ours, self.theirs = self.comparison.ours, self.comparison.theirs
        self.num_pairs = num_pairs
        self.ratings = RatingFile(out / RATINGS)
        # Found out now if it is damaged, and not by a rater.
        self.ratings.read()
        self.report = read_report(out)
        described = self.report["data"]
        manifest = out / MANIFEST if (out / MANIFEST).exists() else None
        self.dataset: EvaluationSet = load_evaluation_set(
            data or described["data"],
            out,
            manifest,
            described.get("split", "test"),
            image_size=described["image_size"],
        )
        if self.dataset.describe()["sha256"] != described["sha256"]:
            raise ValueError(f"{out}: the data are not those that were evaluated any more.")
        self._images = {name: self._open_images(out, name) for name in (self.ours, self.theirs)}
        # gradio writes pictures and sounds that it is given as arrays anew each time, while others read the same file.
        self._shown = tempfile.TemporaryDirectory(prefix="avgas-study-")
        self._folder = Path(self._shown.name)

    def pairs(self, rater: str) -> list[Pair]:
        """All pairs a rater is shown, in order."""
        return pairs_for(rater, self.ours, self.theirs, len(self.dataset), self.num_pairs)

    def remaining(self, rater: str) -> list[Pair]:
        """Those the rater has not rated."""
        given = self.comparison.relevant(self.ratings.read())
        rated = {rating.number for rating in given if rating.rater == rater}
        return [pair for pair in self.pairs(rater) if pair.number not in rated]

    def rate(self, rater: str, pair: Pair, choice: str) -> None:
        """Note a rating."""
        self.ratings.add(Rating(rater, pair.number, pair.left, pair.right, choice, self.comparison.drawings))

    def sound(self, pair: Pair) -> Path:
        """A file with what is heard, a WAV of 16 bits."""
        path = self._folder / f"{pair.number}/sound.wav"
        if not path.exists():
            soundscape = self.dataset[pair.number]
            with atomic_path(path) as partial:
                soundfile.write(partial, soundscape.waveform, soundscape.sampling_rate, "PCM_16")
        return path

    def images(self, pair: Pair) -> tuple[Path, Path]:
        """
        Files of the left and right one, both with the detail of the smaller one, so that resolution tells nothing of
        the system; nor does a file's name.
        """
        folders = [self._folder / f"{pair.number}/{int(name == self.ours)}" for name in (pair.left, pair.right)]
        paths = [folder / "picture.png" for folder in folders]
        if not all(path.exists() for path in paths):
            images = [self._images[name].drawing(pair.number).mixed for name in (pair.left, pair.right)]
            native = min(image.width for image in images)
            for image, path in zip(images, paths, strict=True):
                small = image.resize((native, native), PIL.Image.Resampling.LANCZOS)
                with atomic_path(path) as partial:
                    small.resize((SHOWN_SIZE, SHOWN_SIZE), PIL.Image.Resampling.BICUBIC).save(partial)
        return paths[0], paths[1]

    def _open_images(self, out: Path, name: str) -> ImageFolderSystem:
        folder = self.report["systems"][name].get("images", out / "systems" / name)
        images = ImageFolderSystem(name, folder, len(self.dataset))
        if images.drawing(0).mixed is None:
            raise ValueError(f"{out}: {name} has no mixed images to show.")
        return images


@contextmanager
def served(study: Study, host: str, port: int) -> Iterator[str]:
    """The page of a study, served on an address; gives its URL."""
    page = build_page(study)
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            footer_links=[],
            app_kwargs={"middleware": [Middleware(PageGuard, host=host)]},
        )
        yield url
    finally:
        page.close()


def build_page(study: Study) -> gr.Blocks:
    """The page: one pair at a time, with its sound; images carry no trace of who drew them."""

    def show(rater: str) -> list[Any]:
        remaining = study.remaining(rater)
        total = len(study.pairs(rater))
        progress = f"Pair {total - len(remaining) + 1} of {total}" if remaining else "That was all. Thank you!"
        rating = gr.update(visible=bool(remaining))
        if not remaining:
            return [None, progress, gr.update(visible=False, value=None), None, None, rating]
        left, right = study.images(remaining[0])
        sound = gr.update(visible=True, value=study.sound(remaining[0]))
        return [remaining[0].number, progress, sound, left, right, rating]

    def begin(name: str | None) -> list[Any]:
        rater = (name or "").strip() or uuid.uuid4().hex[:8]
        if len(rater) > LONGEST_NAME:
            raise gr.Error(f"A name has at most {LONGEST_NAME} characters.", print_exception=False)
        return [rater, gr.update(visible=False), gr.update(visible=True), *show(rater)]

    def rate(rater: str, number: int | None, choice: str) -> list[Any]:
        pair = next((pair for pair in study.remaining(rater) if pair.number == number), None)
        if pair is not None:
            study.rate(rater, pair, choice)
        return show(rater)

    with gr.Blocks(title="Which picture?", analytics_enabled=False) as page:
        rater = gr.State("")
        # A component, not a state: a second click sends the number of the pair that was seen, not of the next one.
        number = gr.Number(visible=False, precision=0)
        with gr.Column() as welcome:
            gr.Markdown(f"## {QUESTION}\nListen to a short recording, look at two pictures of it, and choose.")
            name = gr.Textbox(
                label="Your name or a nickname (come back with it to go on)",
                max_length=LONGEST_NAME,
                elem_id="rater",
            )
            start = gr.Button("Begin", variant="primary", elem_id="begin")
        with gr.Column(visible=False) as comparison:
            progress = gr.Markdown(elem_id="progress")
            audio = gr.Audio(label="Listen", interactive=False, buttons=[], elem_id="sound")
            with gr.Row():
                left = gr.Image(label="Left", interactive=False, buttons=[], elem_id="left")
                right = gr.Image(label="Right", interactive=False, buttons=[], elem_id="right")
            with gr.Column() as question:
                gr.Markdown(f"### {QUESTION}")
                with gr.Row():
                    buttons = {choice: gr.Button(_BUTTONS[choice], elem_id=f"choose-{choice}") for choice in CHOICES}
        shown = [number, progress, audio, left, right, question]
        start.click(begin, name, [rater, welcome, comparison, *shown], api_name="begin")
        for choice, button in buttons.items():
            given = gr.State(choice)
            button.click(rate, [rater, number, given], shown, api_name=f"choose_{choice}")
    return page
