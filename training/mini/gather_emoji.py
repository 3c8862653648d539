"""
Write emoji of no label, for `train_autoencoder.py --extra_pictures`: an autoencoder needs more pictures than labels
have.

    pip install resvg-py
    python training/mini/gather_emoji.py runs/packages --output runs/emoji.parquet --exclude reserved.txt

From the sets of Iconify and the 3-D emoji that `gather_pictures.py` fetches, so many of each at random. Flags, keys,
letters and further skin tones are left out, and what `--exclude` names: a file with a package and a path a line,
separated by "|".
"""

import argparse
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from datasets import Dataset
from gather_pictures import NPM, encode, folder_of, open_picture, package_of, read_icons, trim
from packages import IN_FILE
from tqdm import tqdm

from avgas_pipeline.files import atomic_path


COUNTS = {
    "@iconify-json/noto": 900,
    "@lobehub/fluent-emoji-3d": 900,
    "@iconify-json/twemoji": 500,
    "@iconify-json/fluent-emoji": 500,
    "@iconify-json/fluent-emoji-flat": 400,
    "@iconify-json/openmoji": 400,
    "@iconify-json/emojione": 300,
    "@iconify-json/streamline-emojis": 300,
    "@iconify-json/noto-v1": 300,
    "@iconify-json/fxemoji": 200,
}
LEFT_OUT = re.compile(r"flag|keycap|skin-tone|letter|^assets/(00|1f1)|1f3f[b-f]")


def paths_of(folder: Path) -> list[str]:
    """Pictures of a package, as `path` names them."""
    icons = folder / "icons.json"
    if icons.exists():
        return [f"{icons.name}{IN_FILE}{name}" for name in read_icons(icons)["icons"]]
    return sorted(f"assets/{path.name}" for path in (folder / "assets").glob("*.webp"))


def pictures(packages: Path, excluded: set[str], seed: int) -> Iterator[dict]:
    """Rows with `label`, `source_group` and `image`; what can't be drawn is passed over."""
    for name, count in COUNTS.items():
        row = {"package": f"{NPM}{name}", "version": "", "tint": ""}
        paths = [path for path in paths_of(folder_of(package_of(row), packages)) if not LEFT_OUT.search(path)]
        paths = [path for path in paths if f"{row['package']}|{path}" not in excluded]
        random.Random(seed).shuffle(paths)
        for path in tqdm(paths[:count], desc=name, unit="picture"):
            try:
                image = encode(trim(open_picture({**row, "path": path}, packages)))
            except ValueError:
                continue
            yield {"label": "emoji", "source_group": f"{name} {path}", "image": image}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, help="Folder of unpacked packages, as gather_pictures.py leaves it.")
    parser.add_argument("--output", type=Path, required=True, help="The Parquet file that is written.")
    parser.add_argument("--exclude", type=Path, help="File of pictures that are not to be used.")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        excluded = set(args.exclude.read_text(encoding="utf-8").splitlines()) if args.exclude else set()
        rows = list(pictures(args.packages, excluded, args.seed))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    with atomic_path(args.output) as path:
        Dataset.from_list(rows).to_parquet(str(path))
    print(f"{args.output}: {len(rows)} pictures")


if __name__ == "__main__":
    main()
