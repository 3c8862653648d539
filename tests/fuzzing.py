"""Damage at random, and what came of it: tried, refused with a clear error, or wrong."""

import json
import shutil
import tarfile
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import torch
from sounds import tone, write_audio
from tiny import tiny_audio
from vggsound_tree import add, make_clip

from avgas_pipeline import AVGASPipeline, load_audio
from avgas_pipeline.data.archives import read_shard
from avgas_pipeline.data.report import SkipReport


CLEAR = (ValueError, FileNotFoundError)
# Long enough for every fault to name its file and its cause, and no traceback.
_LONGEST_MESSAGE = 2000


@dataclass
class Tally:
    """How many tries of each kind were refused, and those that went wrong, in words."""

    tried: Counter = field(default_factory=Counter)
    refused: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def attempt(self, kind: str, seed: int, try_it: Callable[[], str | None]) -> None:
        """Counts a try, which says what is wrong, and may raise a clear error."""
        self.tried[kind] += 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fault = try_it()
        except CLEAR as error:
            self.refused[kind] += 1
            fault = None if 0 < len(str(error)) < _LONGEST_MESSAGE else f"message of {len(str(error))} characters"
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
        if fault:
            self.wrong.append(f"{kind}, seed {seed}: {fault}")

    def __str__(self) -> str:
        lines = [f"{kind:<24}{count:8} tried {self.refused[kind]:8} refused" for kind, count in self.tried.items()]
        return "\n".join([*lines, f"{len(self.wrong)} wrong", *self.wrong])


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """Data with bytes changed, cut out, doubled, zeroed or inserted."""
    damaged = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        start = int(rng.integers(0, max(len(damaged), 1)))
        stop = start + int(rng.integers(1, max(min(len(damaged) // 4, 4096), 2)))
        match rng.integers(0, 6):
            case 0:
                for place in rng.integers(0, max(len(damaged), 1), rng.integers(1, 40)):
                    if place < len(damaged):
                        damaged[place] = int(rng.integers(256))
            case 1:
                del damaged[start:stop]
            case 2:
                damaged[start:start] = damaged[start:stop]
            case 3:
                damaged[start:stop] = bytes(len(damaged[start:stop]))
            case 4:
                damaged[start:start] = rng.bytes(stop - start)
            case _:
                del damaged[start:]
    return bytes(damaged)


def recordings(folder: Path) -> list[bytes]:
    """Whole files of many formats."""
    paths = [
        write_audio(folder / "x.mp3", tone(1.0), 44100, "libmp3lame"),
        write_audio(folder / "x.m4a", tone(1.0), 44100, "aac", "ipod"),
        write_audio(folder / "x.mkv", tone(1.0, 48000), 48000, "libopus", picture_codec="mpeg4"),
        write_audio(folder / "x.ts", tone(1.0, 48000), 48000, "aac", "mpegts"),
        write_audio(folder / "x.ogg", tone(1.0, 48000), 48000, "libopus"),
        write_audio(folder / "x.flac", tone(1.0), 44100, "flac"),
    ]
    stereo = np.stack([tone(1.0), -tone(1.0)], axis=1)
    for kind in ("WAV", "AIFF", "AU", "CAF"):
        soundfile.write(folder / f"x.{kind}", stereo, 44100, format=kind, subtype="PCM_16")
        paths.append(folder / f"x.{kind}")
    return [path.read_bytes() for path in paths] + [make_clip(1, seconds=1.0)]


def try_recording(files: Sequence[bytes], rng: np.random.Generator) -> str | None:
    """Loads a damaged file; samples that are not samples are wrong."""
    data = files[rng.integers(len(files))]
    # Two files in one, as a recorder that was restarted leaves them.
    data += files[rng.integers(len(files))] if rng.random() < 0.2 else b""
    return _fault_of(load_audio(damage(data, rng)))


def try_samples(rng: np.random.Generator) -> str | None:
    """Loads samples of any type and shape."""
    dtype = rng.choice(["f2", "f4", ">f4", "f8", "u1", "i2", ">i2", "i4", "i8", "u2", "?", "c8"])
    shape = tuple(rng.integers(0, 3000 if rng.random() < 0.5 else 20, rng.integers(0, 4)))
    if np.prod(shape, dtype=float) > 1e6:
        shape = shape[:2]
    samples = (rng.standard_normal(shape) * 10.0 ** rng.uniform(-6, 6)).astype(dtype)
    if samples.dtype.kind == "f" and samples.size and rng.random() < 0.1:
        samples.flat[0] = rng.choice([np.nan, np.inf])
    rate = [None, 0, 1, 8000, 16000, 22050.5, 44100, 10**9][rng.integers(8)]
    audio = (rate, samples) if rng.random() < 0.2 and rate is not None else samples
    with np.errstate(all="ignore"):
        return _fault_of(load_audio(audio, None if isinstance(audio, tuple) else rate))


def archive(folder: Path) -> bytes:
    """A tar of clips."""
    path = folder / "clips.tar"
    with tarfile.open(path, "w") as file:
        for number in range(3):
            add(file, f"video/clipclip{number:03d}_000001.mp4", bytes(1000 * (number + 1)))
    return path.read_bytes()


def try_archive(folder: Path, data: bytes, rng: np.random.Generator) -> str | None:
    """Reads a damaged archive; clips that were not in it are wrong, and so is more than it holds."""
    path = folder / "damaged.tar"
    path.write_bytes(damage(data, rng))
    names = {f"clipclip{number:03d}_000001" for number in range(3)}
    skipped = SkipReport()
    found = list(read_shard(str(path), names, skipped))
    if any(name not in names for name, _ in found):
        return "a clip that was not asked for"
    if sum(len(content) for _, content in found) > path.stat().st_size:
        return "more than the archive holds"
    if not found and not skipped.counts:
        raise ValueError("nothing found")
    return None


def try_checkpoint(checkpoint: Path, folder: Path, rng: np.random.Generator) -> str | None:
    """Loads a checkpoint with one damaged file; a pipeline that draws something not finite is wrong."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(checkpoint, folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "README.md")
    path = files[rng.integers(len(files))]
    if path.suffix == ".json" and rng.random() < 0.7:
        path.write_text(_spoiled_json(json.loads(path.read_text()), rng))
    elif path.suffix == ".safetensors" and rng.random() < 0.5:
        # The header, which says what is where.
        data = path.read_bytes()
        length = 8 + int.from_bytes(data[:8], "little")
        path.write_bytes(damage(data[:length], rng) + data[length:])
    else:
        path.write_bytes(damage(path.read_bytes(), rng))
    pipe = AVGASPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    audio, rate = tiny_audio()
    out = pipe(
        audio, rate, num_sources=1, num_inference_steps=1, output_type="np", generator=torch.Generator().manual_seed(0)
    )
    return None if np.isfinite(out.images).all() else "a picture of NaN"


def _spoiled_json(value: dict | list, rng: np.random.Generator) -> str:
    """One value of a JSON object replaced by one that does not belong there."""
    junk = [None, [], {}, "", "x" * 300, "\ud800", -1, 0, 1e999, 10**9, 10**30, True, [[]] * 3, {"a": {"b": []}}]
    if isinstance(value, dict) and value:
        key = list(value)[rng.integers(len(value))]
        if rng.random() < 0.2:
            del value[key]
        else:
            value[key] = junk[rng.integers(len(junk))]
    else:
        value = junk[rng.integers(len(junk))]
    return json.dumps(value)


def _fault_of(waveform: np.ndarray) -> str | None:
    if waveform.dtype != np.float32 or waveform.ndim != 1 or not waveform.size:
        return f"{waveform.dtype} of shape {waveform.shape}"
    if not np.isfinite(waveform).all() or np.abs(waveform).max() > 1:
        return "samples out of range"
    return None
