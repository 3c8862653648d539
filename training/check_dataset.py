"""
Check a dataset in the shape of soundscapes-mini (`audio/{train,test}.parquet`, `images/{train,test}.parquet`): splits,
labels, licences, sounds and pictures. Prints every fault and exits with 1 if there is one.

    python training/check_dataset.py data/soundscapes-mini --sheet out/sheet.png
"""

import argparse
import hashlib
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import torch
from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetsError
from tqdm import tqdm

from avgas_pipeline.audio.loading import load_audio
from avgas_pipeline.audio.loudness import active_rms
from avgas_pipeline.audio.spectrogram import relative_log_mel, stft
from avgas_pipeline.data.scenes import open_picture
from avgas_pipeline.data.tables import check_columns
from avgas_pipeline.files import atomic_path
from avgas_pipeline.loaders.sounds import VGGSOUND_LABELS


SPLITS = ("train", "test")
# The columns that are checked.
KINDS = {
    "audio": ("id", "label", "split", "source_group", "license", "audio", "duration"),
    "images": ("id", "label", "split", "source_group", "license", "image"),
}
RATE = 16000
SHORTEST_S, LONGEST_S = 0.1, 15.0
# Active RMS of a sound, in dB of full scale.
QUIETEST_DB, LOUDEST_DB = -45.0, -3.0
DURATION_TOLERANCE_S = 0.05
# Share of a picture's area that its object covers.
LEAST_COVERAGE = 0.02
# Different pictures of a label, counted by source group.
LEAST_DESIGNS = 5


def load_table(dataset: Path, kind: str, split: str) -> Dataset:
    """
    One file of the dataset.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If it is no Parquet file, or lacks a column.
    """
    path = dataset / kind / f"{split}.parquet"
    try:
        table = load_dataset("parquet", data_files={split: str(path)}, split=split)
        check_columns(table, *KINDS[kind])
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file.") from None
    except (DatasetsError, ValueError) as error:
        raise ValueError(f"{path}: {error.__cause__ or error}") from None
    return table


def check_tables(tables: dict[str, dict[str, Dataset]]) -> Iterator[str]:
    """Faults that show without opening a sound or picture: splits, ids, labels, licences."""
    for kind, splits in tables.items():
        groups: dict[str, set[str]] = defaultdict(set)
        ids = Counter()
        for split, table in splits.items():
            for row in table.remove_columns("audio" if kind == "audio" else "image"):
                groups[row["source_group"]].add(split)
                ids[row["id"]] += 1
                if row["split"] != split:
                    yield f"{kind}: {row['id']} says split {row['split']!r} but is in {split!r}"
                if row["label"] not in VGGSOUND_LABELS:
                    yield f"{kind}: {row['id']} has label {row['label']!r}, which is none of VGGSound's"
                if not row["license"]:
                    yield f"{kind}: {row['id']} has no license"
        for group, found in sorted(groups.items()):
            if len(found) > 1:
                yield f"{kind}: source group {group!r} is in {' and '.join(sorted(found))}"
        for name, count in ids.items():
            if count > 1:
                yield f"{kind}: id {name!r} stands {count} times"
    yield from check_labels(tables)


def check_labels(tables: dict[str, dict[str, Dataset]]) -> Iterator[str]:
    """Labels that a split lacks, labels of sounds without a picture, and labels of few designs."""
    found = {kind: {split: set(table["label"]) for split, table in splits.items()} for kind, splits in tables.items()}
    sounds = set.union(*found["audio"].values())
    # Pictures may be of more labels than sounds.
    needed = {"audio": sounds, "images": sounds.union(*found["images"].values())}
    for kind, splits in found.items():
        for split, labels in splits.items():
            for label in sorted(needed[kind] - labels):
                yield f"{kind}: label {label!r} is missing in {split!r}"
    designs: dict[str, set[str]] = defaultdict(set)
    for table in tables["images"].values():
        for label, group in zip(table["label"], table["source_group"], strict=True):
            designs[label].add(group)
    for label, groups in sorted(designs.items()):
        if len(groups) < LEAST_DESIGNS:
            yield f"images: label {label!r} has {len(groups)} designs"


def check_sound(row: dict[str, Any]) -> Iterator[str]:
    """Faults of one sound."""
    try:
        waveform = load_audio(row["audio"], target_sampling_rate=RATE)
    # Damaged files make decoders raise nearly anything.
    except Exception as error:
        yield f"audio: {row['id']} can't be read ({error!r})"
        return
    seconds = len(waveform) / RATE
    if not SHORTEST_S <= seconds <= LONGEST_S:
        yield f"audio: {row['id']} is {seconds:.2f} s long"
    duration = math.nan if row["duration"] is None else row["duration"]
    # NaN is near nothing.
    if not abs(seconds - duration) <= DURATION_TOLERANCE_S:
        yield f"audio: {row['id']} is {seconds:.2f} s long, but `duration` says {duration:.2f} s"
    level = active_rms(waveform, RATE)
    level_db = 20 * math.log10(level) if level else -math.inf
    if level_db == -math.inf or np.abs(waveform).max() < 1e-3:
        yield f"audio: {row['id']} is silent"
    elif not QUIETEST_DB <= level_db <= LOUDEST_DB:
        yield f"audio: {row['id']} has a level of {level_db:.1f} dB"


def check_picture(row: dict[str, Any]) -> Iterator[str]:
    """Faults of one picture."""
    try:
        picture = open_picture(row["image"])
        picture.load()
    except Exception as error:
        yield f"images: {row['id']} can't be read ({error!r})"
        return
    if picture.mode != "RGBA":
        yield f"images: {row['id']} has no transparency ({picture.mode})"
        return
    coverage = float((np.asarray(picture.getchannel("A")) > 127).mean())
    if coverage < LEAST_COVERAGE:
        yield f"images: {row['id']} is empty ({100 * coverage:.1f} % covered)"


def check_contents(tables: dict[str, dict[str, Dataset]]) -> Iterator[str]:
    """Faults of every sound and picture, and the same bytes in both splits."""
    for kind, column, check in (("audio", "audio", check_sound), ("images", "image", check_picture)):
        seen: dict[str, tuple[str, str]] = {}
        for split, table in tables[kind].items():
            for row in tqdm(table, desc=f"{kind} {split}", disable=None):
                yield from check(row)
                digest = hashlib.sha256(row[column]).hexdigest()
                other_split, other = seen.setdefault(digest, (split, row["id"]))
                if other_split != split:
                    yield f"{kind}: {row['id']} in {split!r} is the same as {other} in {other_split!r}"


def draw_sheet(tables: dict[str, dict[str, Dataset]], path: Path) -> None:
    """One row per label: spectrograms of two training and one test sound, pictures of both splits."""
    cell, name_width, num_pictures = 64, 190, 8
    labels = sorted(set(tables["audio"]["train"]["label"]))
    width = name_width + 3 * 2 * cell + 2 * num_pictures * cell
    sheet = PIL.Image.new("RGB", (width, len(labels) * (cell + 4)), "white")
    draw = PIL.ImageDraw.Draw(sheet)
    rows = {(kind, split): _rows_by_label(table) for kind, splits in tables.items() for split, table in splits.items()}
    for number, label in enumerate(labels):
        top = number * (cell + 4)
        draw.text((4, top + cell // 2 - 6), label, fill="black")
        sounds = rows["audio", "train"][label][:2] + rows["audio", "test"][label][:1]
        for position, row in enumerate(sounds):
            sheet.paste(_spectrogram(row, 2 * cell - 4, cell), (name_width + position * 2 * cell, top))
        pictures = rows["images", "train"][label][:num_pictures] + rows["images", "test"][label][:num_pictures]
        for position, row in enumerate(pictures):
            picture = open_picture(row["image"]).convert("RGBA")
            picture.thumbnail((cell - 4, cell - 4))
            sheet.paste(picture, (name_width + 6 * cell + position * cell, top), picture)
    with atomic_path(path) as partial:
        sheet.save(partial)


def _rows_by_label(table: Dataset) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    groups = set()
    for row in table:
        # One of each recording or picture says most.
        if row["source_group"] not in groups:
            groups.add(row["source_group"])
            rows[row["label"]].append(row)
    return rows


def _spectrogram(row: dict[str, Any], width: int, height: int) -> PIL.Image.Image:
    waveform = torch.from_numpy(load_audio(row["audio"], target_sampling_rate=RATE))
    levels = relative_log_mel(stft(waveform, 1024, 128), RATE, height).numpy()[::-1]
    return PIL.Image.fromarray(np.uint8(255 * levels)).resize((width, height))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="folder of the dataset")
    parser.add_argument("--sheet", type=Path, help="draw a contact sheet to this file")
    arguments = parser.parse_args(argv)
    if not arguments.dataset.is_dir():
        parser.error(f"{arguments.dataset}: no such folder")
    try:
        tables = {kind: {split: load_table(arguments.dataset, kind, split) for split in SPLITS} for kind in KINDS}
    except (ValueError, OSError) as error:
        parser.error(" ".join(str(error).split()))
    faults = [*check_tables(tables), *check_contents(tables)]
    for fault in faults:
        print(fault)
    if arguments.sheet and not faults:
        draw_sheet(tables, arguments.sheet)
        print(f"contact sheet: {arguments.sheet}")
    counts = ", ".join(f"{len(table)} {kind} {split}" for kind, tab in tables.items() for split, table in tab.items())
    print(f"{counts}: {len(faults)} faults" if faults else f"{counts}: no faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
