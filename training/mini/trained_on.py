"""
Which recordings of Freesound avgas-mini was trained on, for benchmarks that have some of them.

    python training/mini/trained_on.py src/avgas_pipeline/checkpoints/avgas-mini

It is read from the tables of its sounds, and from soundscapes-mini, and written to the checkpoint's folder.
"""

import argparse
import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from avgas_pipeline.data.soundscapes_mini import load_soundscapes_mini
from avgas_pipeline.files import write_text
from avgas_pipeline.loaders.trained_on import TRAINED_ON


ROOT = Path(__file__).parents[2]
TABLES = tuple(ROOT / "model_card" / name for name in ("more_sounds.csv", "unlabelled_sounds.csv"))
DATA = ROOT / "data/soundscapes-mini"
# Where a row names a recording by its number: an address, a clip of ESC-50, and a file as Freesound names it.
NAMES = {
    "source_url": re.compile(r"freesound:(\d+)"),
    "id": re.compile(r"/esc50-\d+-(\d+)-"),
    "path": re.compile(r"(?:^|/)(\d+)__[^/]+__[^/]+$"),
}


def freesound_ids(rows: Iterable[Mapping[str, Any]]) -> list[int]:
    """The numbers of the recordings that rows of sounds name, sorted, each once."""
    found = (pattern.search(row.get(column) or "") for row in rows for column, pattern in NAMES.items())
    return sorted({int(match[1]) for match in found if match})


def note(folder: Path, tables: Sequence[Path] = TABLES, data: Path = DATA) -> int:
    """
    Write `trained_on.json` into a checkpoint's folder.

    Args:
        folder (`Path`): The checkpoint's.
        tables (`Sequence[Path]`): CSV files of sounds.
        data (`Path`): soundscapes-mini, whose training split counts.

    Returns:
        `int`: How many recordings it names.
    """
    rows: list[Mapping[str, Any]] = list(load_soundscapes_mini(data, "train")[0].remove_columns("audio"))
    for table in tables:
        with table.open(encoding="utf-8", newline="") as file:
            rows += csv.DictReader(file)
    ids = freesound_ids(rows)
    write_text(folder / TRAINED_ON, json.dumps({"freesound": ids}) + "\n")
    return len(ids)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="folder of the checkpoint")
    args = parser.parse_args(argv)
    if not args.checkpoint.is_dir():
        parser.error(f"{args.checkpoint}: no such folder.")
    print(f"{args.checkpoint / TRAINED_ON}: {note(args.checkpoint)} recordings of Freesound")


if __name__ == "__main__":
    main()
