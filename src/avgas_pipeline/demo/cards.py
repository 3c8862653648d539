"""Pictures, sounds and activity as HTML: with words for those who can't see, and everything in the page itself."""

import html
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import PIL.Image

from ..pipeline_output import SoundSource
from ..results.html import picture_html, player_html
from ..results.outputs import slug


# Points of an activity's curve.
POINTS = 160
# Okabe and Ito's colours, as in the overview.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555", "#8C564B")


def picture(image: PIL.Image.Image, description: str, name: str) -> str:
    """A picture with its description, and a button that saves it under a name."""
    shown = picture_html(image, description)
    return f'<figure class="avgas-figure">{shown}{_save_button("picture", name)}</figure>'


def gallery(images: Sequence[PIL.Image.Image], names: Sequence[str]) -> str:
    """The mixed pictures."""
    shown = " and ".join(names) if names else "nothing"
    parts = [picture(image, f"Drawing of {shown}", f"mixed-{number}.png") for number, image in enumerate(images, 1)]
    return f'<div class="avgas-gallery">{"".join(parts)}</div>'


def card(source: SoundSource, number: int, sampling_rate: int) -> str:
    """A source: picture, label, score, activity and sound."""
    name = html.escape(said(source))
    parts = [f'<h2 class="avgas-label" style="border-color:{COLOURS[number % len(COLOURS)]}">{name}</h2>']
    if len(source.images):
        parts.append(picture(source.images[0], f"Drawing of {source.name}", f"{slug(source.name)}.png"))
    else:
        why = "it is no sound that the model knows" if source.is_unknown else "it should not show"
        parts.append(f'<p class="avgas-none">Not drawn: {why}.</p>')
    parts.append(f'<p class="avgas-score">{certainty(source)}</p>')
    if source.activity is not None:
        parts.append(activity(source, COLOURS[number % len(COLOURS)]))
    if source.audio is not None:
        rate = source.sampling_rate or sampling_rate
        parts.append(player(source.audio, rate, f"{source.name}, alone", f"{slug(source.name)}.mp3"))
    return "".join(parts)


def said(source: SoundSource) -> str:
    """A source's name, with a "perhaps" where it is rather wrong than right."""
    return f"{'perhaps ' * source.is_doubtful}{source.name}"


def certainty(source: SoundSource) -> str:
    """How sure the name is, in words."""
    if source.label is None:
        return f"Something is there ({source.score:.0%} sure), which the model does not know."
    return f"{'only ' * source.is_doubtful}{source.certainty:.0%} sure"


def activity(source: SoundSource, colour: str) -> str:
    """When a source is heard, as a curve from the recording's start to its end."""
    edges = np.linspace(0, len(source.activity), POINTS + 1).astype(int)
    values = [source.activity[start : max(end, start + 1)].max(initial=0.0) for start, end in pairwise(edges)]
    points = " ".join(f"{number},{1 - float(value):.3f}" for number, value in enumerate(values))
    return (
        f'<svg class="avgas-activity" role="img" aria-label="When {html.escape(source.name)} is heard"'
        f' viewBox="0 0 {POINTS - 1} 1" preserveAspectRatio="none">'
        f'<polygon points="0,1 {points} {POINTS - 1},1" fill="{colour}"></polygon></svg>'
    )


def player(samples: np.ndarray, sampling_rate: int, label: str, name: str) -> str:
    """A player of a sound, and a button that saves it under a name."""
    return player_html(samples, sampling_rate, label) + _save_button("sound", name)


def message(text: str, is_error: bool = False, is_said: bool = True) -> str:
    """A line that screen readers say at once, unless it changes all the time."""
    role = f' role="{"alert" if is_error else "status"}"' if is_said else ""
    return f'<p class="avgas-message"{role}>{html.escape(text)}</p>'


def _save_button(what: str, name: str) -> str:
    """Saves the element before it."""
    name = html.escape(name)
    return f'<button type="button" class="avgas-save" data-name="{name}" aria-label="Save {name}">Save {what}</button>'
