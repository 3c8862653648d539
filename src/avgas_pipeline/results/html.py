"""Sources and outputs as HTML: pictures with words for those who can't see, players, everything in the page itself."""

import base64
import html
import io

import numpy as np
import PIL.Image
import soundfile

from ..pipeline_output import AVGASPipelineOutput, SoundSource


def picture_html(image: PIL.Image.Image, description: str, css_class: str = "avgas-picture") -> str:
    """A picture with its description."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return (
        f'<img class="{css_class}" src="{_data("image/png", file.getvalue())}" alt="{html.escape(description)}"'
        f' width="{image.width}" height="{image.height}">'
    )


def player_html(samples: np.ndarray, sampling_rate: int, label: str, css_class: str = "avgas-player") -> str:
    """A player of a sound, MP3."""
    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1, 1), sampling_rate, format="MP3")
    source = _data("audio/mpeg", file.getvalue())
    return (
        f'<audio class="{css_class}" controls preload="metadata" aria-label="{html.escape(label)}" src="{source}">'
        "</audio>"
    )


def source_html(source: SoundSource) -> str:
    """A source for a notebook: name, certainty, first picture, player."""
    parts = [f"<b>{html.escape(source.name)}</b> {source.certainty:.2f}"]
    if isinstance(source.images, list) and source.images:
        parts.append(picture_html(source.images[0], f"Drawing of {source.name}"))
    if source.audio is not None:
        parts.append(player_html(source.audio, source.sampling_rate, f"{source.name}, alone"))
    return f"<div>{'<br>'.join(parts)}</div>"


def output_html(output: AVGASPipelineOutput) -> str:
    """An output for a notebook: mixed pictures, and the sources of every soundscape."""
    rows = []
    if isinstance(output.images, list):
        pictures = [picture_html(image, "Mixed picture") for image in output.images]
        rows.append(f"<div>{' '.join(pictures)}</div>")
    for sources in output.sources:
        cells = "".join(f'<div style="margin-right: 16px">{source_html(source)}</div>' for source in sources)
        rows.append(f'<div style="display: flex; flex-wrap: wrap">{cells}</div>')
    return "".join(rows)


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
