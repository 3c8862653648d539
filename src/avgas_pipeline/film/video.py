"""Frames of a film, and their way into an MP4 file."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from av.container import Flags
from tqdm.auto import tqdm

from .scenes import Scene
from .sound import RATE


FRAME_RATE = 24
FRAME_S = Fraction(1, FRAME_RATE)
# A picture's side and the height of the captions below it, in pixels.
SIDE, BAND = 768, 96
# Of captions: what is left free on both sides, and sizes of the font, in pixels.
MARGIN, FONT_SIZES = 20, (34, 30, 26, 22, 18, 15)
ELLIPSIS = "…"
# Of a caption, more than the band holds of the narrowest ones: measuring long texts takes seconds.
MOST_CHARACTERS = 1000
# The number of threads changes the bytes.
ENCODER = {"crf": "18", "preset": "veryfast", "threads": "4"}
# One picture fades into the next for so long, in seconds.
FADE_S = 0.5
BACKGROUND, INK, QUIET = "#111417", "#f4f4f2", "#9aa0a6"
NOTHING_HEARD = "no sound is recognised"


def draw_frame(picture: PIL.Image.Image | None, text: str) -> PIL.Image.Image:
    """A picture with its caption below, 768x864 pixels; without text, one that says that no sound is recognised."""
    frame = PIL.Image.new("RGB", (SIDE, SIDE + BAND), BACKGROUND)
    if picture is not None:
        scale = SIDE / max(picture.size)
        size = tuple(round(side * scale) for side in picture.size)
        resized = picture.convert("RGB").resize(size, PIL.Image.Resampling.LANCZOS)
        frame.paste(resized, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    draw = PIL.ImageDraw.Draw(frame)
    _write(draw, text or NOTHING_HEARD, INK if text else QUIET)
    return frame


def _write(draw: PIL.ImageDraw.ImageDraw, text: str, colour: str) -> None:
    lines, font = fit_caption(text)
    height = sum(font.getmetrics())
    top = SIDE + (BAND - len(lines) * height) // 2
    for number, line in enumerate(lines):
        draw.text(((SIDE - font.getlength(line)) // 2, top + number * height), line, fill=colour, font=font)


def fit_caption(text: str) -> tuple[list[str], PIL.ImageFont.FreeTypeFont]:
    """
    Lines and their font, as large as fits in the band; with an ellipsis where what would be too small to read is left
    out. Lines break between sources, if that is enough, and else between words.
    """
    text = text[:MOST_CHARACTERS]
    words = text.split()
    sources = text.replace("] [", "]\n[").split("\n")
    for size in FONT_SIZES:
        font = PIL.ImageFont.load_default(size)
        most = (BAND - MARGIN // 2) // sum(font.getmetrics())
        for parts in (sources, words):
            lines = _wrap(parts, font)
            if len(lines) <= most and all(font.getlength(line) <= SIDE - 2 * MARGIN for line in lines):
                return lines, font
    rest = len(lines) > most
    lines = [_shorten(line, font, rest and number == most - 1) for number, line in enumerate(lines[:most])]
    return lines, font


def _wrap(parts: Sequence[str], font: PIL.ImageFont.FreeTypeFont) -> list[str]:
    """Lines with as many of the parts as they have room for, and one at least."""
    lines = [""]
    for part in parts:
        longer = f"{lines[-1]} {part}".strip()
        if lines[-1] and font.getlength(longer) > SIDE - 2 * MARGIN:
            lines.append(part)
        else:
            lines[-1] = longer
    return lines


def _shorten(line: str, font: PIL.ImageFont.FreeTypeFont, is_more_left_out: bool) -> str:
    """A line that fits, with an ellipsis at its end if it has to be cut, or more is left out after it."""
    most = SIDE - 2 * MARGIN
    if not is_more_left_out and font.getlength(line) <= most:
        return line
    while line and font.getlength(line + ELLIPSIS) > most:
        line = line[:-1]
    return line.rstrip() + ELLIPSIS


def write_film(
    path: Path,
    scenes: Sequence[Scene],
    still: Callable[[int], PIL.Image.Image],
    sound: Iterator[av.AudioFrame],
    metadata: Mapping[str, str],
) -> None:
    """
    Write H.264 and AAC in MP4: the same stills and sound give the same bytes.

    Args:
        path (`Path`): The file.
        scenes (`Sequence[Scene]`): When each still is shown.
        still (`Callable[[int], PIL.Image.Image]`): The frame of each scene, by its number.
        sound (`Iterator[av.AudioFrame]`): At 48 kHz, in stereo, as long as the scenes.
        metadata (`Mapping[str, str]`): The file's.
    """
    num_frames = max(round(scenes[-1].end_s * FRAME_RATE), 1)
    # FFmpeg would take a relative name with a colon for an address.
    with av.open(str(path.absolute()), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        container.flags |= Flags.bitexact.value
        container.metadata.update(metadata)
        video = container.add_stream("libx264", rate=FRAME_RATE, options=ENCODER)
        video.width, video.height, video.pix_fmt = SIDE, SIDE + BAND, "yuv420p"
        audio = container.add_stream("aac", rate=RATE, layout="stereo", bit_rate=160_000)
        written_s = 0.0
        for number, frame in enumerate(tqdm(_frames(scenes, still, num_frames), total=num_frames, desc="film")):
            frame.pts, frame.time_base = number, FRAME_S
            container.mux(video.encode(frame))
            # Sound keeps up, so that neither waits in memory for the other.
            while written_s < (number + 1) / FRAME_RATE:
                block = next(sound, None)
                if block is None:
                    break
                written_s = (block.pts + block.samples) / RATE
                container.mux(audio.encode(block))
        container.mux(video.encode(None))
        for block in sound:
            container.mux(audio.encode(block))
        container.mux(audio.encode(None))


def _frames(
    scenes: Sequence[Scene], still: Callable[[int], PIL.Image.Image], num_frames: int
) -> Iterator[av.VideoFrame]:
    """Every frame of the film: stills, the next fading in around the moment at which its scene begins."""
    half = FADE_S / 2
    shown, now, after = 0, still(0), None
    frame = _encodable(now)
    for number in range(num_frames):
        time_s = number / FRAME_RATE
        while shown + 1 < len(scenes) and time_s >= scenes[shown].end_s + half:
            shown += 1
            now, after = after or still(shown), None
            frame = _encodable(now)
        if shown + 1 < len(scenes) and time_s > scenes[shown].end_s - half:
            after = after or still(shown + 1)
            yield _encodable(PIL.Image.blend(now, after, (time_s - scenes[shown].end_s + half) / FADE_S))
        else:
            yield frame


def _encodable(image: PIL.Image.Image) -> av.VideoFrame:
    return av.VideoFrame.from_image(image).reformat(format="yuv420p")
