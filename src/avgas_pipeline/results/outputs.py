"""Writing what the pipeline made of one recording: all files, or none."""

import io
import json
import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from ..files import atomic_files
from ..pipeline_output import AVGASPipelineOutput, SoundSource
from .overview import draw_overview


_INDEX = "sources.json"
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
) -> list[Path]:
    """
    Write the pipeline's output for one soundscape: `mixed.png`, `source-<n>-<label>.png` and `.wav`, `sources.json`
    and `overview.png`. With several images per prompt, `-<k>` is added to the names of pictures.

    Everything is written into a temporary folder first, and moved when all of it is there, `sources.json` last. What
    an earlier call wrote for sources that are not there any more is removed.

    Args:
        output ([`AVGASPipelineOutput`]): Of one soundscape, with `output_type="pil"`.
        waveform (`np.ndarray` of shape `(samples,)`): The soundscape, mono.
        sampling_rate (`int`): Its rate, in Hz.
        output_dir (`str` or `os.PathLike`): Folder to write to; made if missing.
        title (`str`, *optional*): Title of the overview.
        settings (`dict`, *optional*): How the pictures were made, for `sources.json`.
        id2label (`Mapping[int, str]`, *optional*): The model's labels, for what unknown sounds are most like.

    Returns:
        `list[Path]`: The files.

    Raises:
        OSError: If they can't be written; then none is.
    """
    output_dir = Path(output_dir)
    with atomic_files(output_dir, _INDEX, _listed) as folder:
        _write_files(folder, output, waveform, sampling_rate, title, settings or {}, id2label or {})
        names = sorted(file.name for file in folder.iterdir())
    return [output_dir / name for name in names]


def _write_files(
    folder: Path,
    output: AVGASPipelineOutput,
    waveform: np.ndarray,
    sampling_rate: int,
    title: str | None,
    settings: dict[str, Any],
    id2label: Mapping[int, str],
) -> None:
    sources = output.sources[0]
    mixed = _save_images(folder, "mixed", output.images)
    entries = []
    for number, source in enumerate(sources, start=1):
        stem = f"source-{number}-{slug(source.name)}"
        entry = {
            "label": source.label,
            "score": round(source.score, 6),
            "label_score": round(source.label_score, 6),
            "images": _save_images(folder, stem, source.images),
        }
        if source.prompt is not None:
            entry["prompt"] = source.prompt
        if source.is_unknown and id2label:
            entry["nearest"] = {label: round(prob, 6) for label, prob in source.nearest(id2label).items()}
        if source.audio is not None:
            _save_audio(folder / f"{stem}.wav", source)
            entry["audio"] = f"{stem}.wav"
        if source.activity is not None:
            entry["activity_hop_s"] = source.activity_hop_s
            entry["activity"] = [round(float(value), 4) for value in source.activity]
        entries.append(entry)
    report = {
        "duration_s": len(waveform) / sampling_rate,
        "sampling_rate": sampling_rate,
        "mixed": mixed,
        "sources": entries,
        **settings,
    }
    # JSON writes what is not UTF-8 in a file's name with a backslash, too.
    (folder / _INDEX).write_text(
        json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", errors="backslashreplace"
    )
    draw_overview(waveform, sampling_rate, output.images[0], sources, title).save(folder / "overview.png")


def _save_images(folder: Path, stem: str, images: list) -> list[str]:
    names = [f"{stem}.png"] if len(images) == 1 else [f"{stem}-{number}.png" for number in range(1, len(images) + 1)]
    for name, image in zip(names, images, strict=True):
        image.save(folder / name)
    return names


def _listed(index: Path) -> set[str]:
    """Names of the pictures and sounds that the `sources.json` of an earlier call lists; none if it is damaged."""
    try:
        # Names that are not UTF-8 stand in it, too, which `read_json` refuses.
        report = json.loads(index.read_bytes())
        names = [*report["mixed"]]
        for source in report["sources"]:
            names += [*source["images"], *([source["audio"]] if "audio" in source else [])]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return set()
    return {name for name in names if isinstance(name, str) and re.fullmatch(r"(mixed|source-)[a-z0-9.-]*", name)}


def _save_audio(path: Path, source: SoundSource) -> None:
    # soundfile does not report a full disk, a plain write does.
    buffer = io.BytesIO()
    soundfile.write(buffer, source.audio, source.sampling_rate, format="WAV", subtype="PCM_16")
    path.write_bytes(buffer.getvalue())


def slug(text: str) -> str:
    """A label as part of a file name: "female speech, woman speaking" becomes "female-speech-woman-speaking"."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_text.lower()).strip("-")[:_LONGEST_SLUG].rstrip("-") or "source"
