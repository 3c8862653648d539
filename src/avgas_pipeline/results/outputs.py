"""Writing what the pipeline made of one recording: all files, or none."""

import io
import json
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import soundfile

from ..audio.original import PlainTrack, plain_track
from ..files import atomic_files
from ..pipeline_output import AVGASPipelineOutput, SoundSource
from ..version import VERSION
from .overview import draw_overview
from .stems import REST, save_stems


INDEX = "sources.json"
# Beside it, where activities have more values than this, about five minutes of two sources.
ACTIVITY, LONGEST_ACTIVITY = "activity.npz", 40_000
# Of a label in a file name, which may have 255 bytes with its numbers and suffix.
_LONGEST_SLUG = 100


def save_results(
    output: AVGASPipelineOutput,
    waveform: np.ndarray,
    sampling_rate: int,
    output_dir: str | os.PathLike,
    title: str | None = None,
    settings: dict[str, Any] | None = None,
    id2label: Mapping[int, str] | None = None,
    weights: Sequence[float] | None = None,
    recording: PlainTrack | None = None,
) -> list[Path]:
    """
    Write the pipeline's output for one soundscape: `mixed.png`, `source-<n>-<label>.png` and `.wav`, `sources.json`
    and `overview.png`. With several images per prompt, `-<k>` is added to the names of pictures. Activities of long
    recordings go into `activity.npz`.

    Everything is written into a temporary folder first, and moved when all of it is there, `sources.json` last. What
    an earlier call wrote for sources that are not there any more is removed.

    Args:
        output ([`AVGASPipelineOutput`]): Of one soundscape, with `output_type="pil"`.
        waveform (`np.ndarray` of shape `(samples,)`): The soundscape, mono.
        sampling_rate (`int`): Its rate, in Hz.
        output_dir (`str` or `os.PathLike`): Folder to write to; made if missing.
        title (`str`, *optional*): Title of the overview.
        settings (`dict`, *optional*): How the pictures were made, for `sources.json`.
        id2label (`Mapping[int, str]`, *optional*): The model's labels, for what else sounds may be.
        weights (`Sequence[float]`, *optional*): Of the sources in the mixed image, 1 if not given.
        recording ([`~avgas_pipeline.audio.original.PlainTrack`], *optional*): The soundscape's file: separated audio
            then has its rate and channels, and `rest.wav` is what the sources leave, so that all add up to it.

    Returns:
        `list[Path]`: The files.

    Raises:
        ValueError: If images are no PIL images.
        OSError: If they can't be written; then none is.
    """
    _check_images(output)
    output_dir = Path(output_dir)
    with atomic_files(output_dir, INDEX, _listed) as folder:
        sources, weights = output.sources[0], weights or [1.0] * len(output.sources[0])
        mixed = _save_images(folder, "mixed", output.images)
        entries, activities = [], {}
        for number, (source, weight) in enumerate(zip(sources, weights, strict=True), start=1):
            entry, activity = _save_source(folder, number, source, id2label or {}, recording is None)
            entries.append({**entry, "weight": weight})
            activities |= activity
        report = {
            "version": VERSION,
            **(settings or {}),
            "duration_s": len(waveform) / sampling_rate,
            "sampling_rate": sampling_rate,
            "mixed": mixed,
            "sources": entries,
        }
        if recording is not None and any(source.audio is not None for source in sources):
            report["rest"] = REST
            save_stems(folder, recording, sources, [entry.get("audio") for entry in entries])
        _save_index(folder, report, activities)
        overview = draw_overview(waveform, sampling_rate, output.images, sources, title, id2label, weights)
        overview.save(folder / "overview.png")
        names = sorted(file.name for file in folder.iterdir())
    return [output_dir / name for name in names]


def save_output(
    output: AVGASPipelineOutput, output_dir: str | os.PathLike, recording: str | os.PathLike | None = None
) -> list[Path]:
    """As of [`AVGASPipelineOutput.save`]."""
    _check_images(output)
    if len(output.sources) == 1:
        waveform, rate = _soundscape(output, 0)
        track = plain_track(recording, duration_s=len(waveform) / rate)
        return save_results(output, waveform, rate, output_dir, recording=track)
    if recording is not None:
        raise ValueError("`recording` is one file, and the output is of several soundscapes.")
    return [
        file
        for number in range(len(output.sources))
        for file in save_results(_one(output, number), *_soundscape(output, number), Path(output_dir, str(number)))
    ]


def output_overview(output: AVGASPipelineOutput, number: int = 0, title: str | None = None) -> PIL.Image.Image:
    """As of [`AVGASPipelineOutput.overview`]."""
    _check_images(output)
    one = _one(output, number)
    return draw_overview(*_soundscape(output, number), one.images, one.sources[0], title)


def _one(output: AVGASPipelineOutput, number: int) -> AVGASPipelineOutput:
    """The part of one soundscape."""
    count = len(output.images) // len(output.sources)
    return AVGASPipelineOutput(output.images[number * count : (number + 1) * count], [output.sources[number]])


def _soundscape(output: AVGASPipelineOutput, number: int) -> tuple[np.ndarray, int]:
    """A recording as it was heard, and its rate."""
    source = output.sources[number][0]
    if source.soundscape is None:
        raise ValueError(
            "The recording is not known: only embeddings were given, or it was encoded with `return_audio=False`."
        )
    return source.soundscape, source.sampling_rate


def _check_images(output: AVGASPipelineOutput) -> None:
    if not isinstance(output.images, list):
        raise ValueError("Only PIL images can be saved or shown: draw with `output_type='pil'`.")


def _save_source(
    folder: Path, number: int, source: SoundSource, id2label: Mapping[int, str], with_audio: bool
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Writes a source's pictures and sound; gives its entry in the index, and its activity by its name there."""
    stem = f"source-{number}-{slug(source.name)}"
    entry: dict[str, Any] = {
        "label": source.label,
        "certainty": round(source.certainty, 6),
        "score": round(source.score, 6),
        "label_score": round(source.label_score, 6),
        "images": _save_images(folder, stem, source.images),
    }
    if source.prompt is not None:
        entry["prompt"] = source.prompt
    if (source.is_unknown or source.is_doubtful) and id2label:
        entry["nearest"] = {label: round(prob, 6) for label, prob in source.nearest(id2label).items()}
    if source.audio is not None:
        entry["audio"] = f"{stem}.wav"
        if with_audio:
            _save_audio(folder / entry["audio"], source)
    if source.activity is None:
        return entry, {}
    entry["activity_hop_s"] = source.activity_hop_s
    entry["activity"] = f"source-{number}"
    return entry, {entry["activity"]: source.activity}


def _save_index(folder: Path, report: dict[str, Any], activities: Mapping[str, np.ndarray]) -> None:
    """Writes the index: an activity in one line, or its name in `activity.npz` where all would be too long to read."""
    is_long = sum(map(len, activities.values())) > LONGEST_ACTIVITY
    lines = {name: json.dumps([round(float(value), 4) for value in values]) for name, values in activities.items()}
    if is_long:
        np.savez_compressed(
            folder / ACTIVITY, **{name: values.astype("float16") for name, values in activities.items()}
        )
    text = json.dumps(report, indent=2, ensure_ascii=False)
    for name, line in lines.items():
        said = json.dumps(f"{ACTIVITY}:{name}") if is_long else line
        text = text.replace(f'"activity": "{name}"', f'"activity": {said}')
    # JSON writes what is not UTF-8 in a file's name with a backslash, too.
    (folder / INDEX).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def _save_images(folder: Path, stem: str, images: list) -> list[str]:
    names = [f"{stem}.png"] if len(images) == 1 else [f"{stem}-{number}.png" for number in range(1, len(images) + 1)]
    for name, image in zip(names, images, strict=True):
        image.save(folder / name)
    return names


def _listed(index: Path) -> set[str]:
    """Names of the files that the `sources.json` of an earlier call lists; none if it is damaged."""
    try:
        # Names that are not UTF-8 stand in it, too, which `read_json` refuses.
        report = json.loads(index.read_bytes())
        names = [*report["mixed"]]
        for source in report["sources"]:
            names += [*source["images"], *([source["audio"]] if "audio" in source else [])]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return set()
    own = {name for name in names if isinstance(name, str) and re.fullmatch(r"(mixed|source-)[a-z0-9.-]*", name)}
    return own | {ACTIVITY, REST}


def _save_audio(path: Path, source: SoundSource) -> None:
    # soundfile does not report a full disk, a plain write does.
    buffer = io.BytesIO()
    soundfile.write(buffer, source.audio, source.sampling_rate, format="WAV", subtype="PCM_16")
    path.write_bytes(buffer.getvalue())


def slug(text: str) -> str:
    """A label as part of a file name: "female speech, woman speaking" becomes "female-speech-woman-speaking"."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_text.lower()).strip("-")[:_LONGEST_SLUG].rstrip("-") or "source"
