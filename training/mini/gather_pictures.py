"""
Write the pictures of soundscapes-mini from the packages that they are in.

    pip install resvg-py
    python training/mini/gather_pictures.py runs/packages --dataset data/soundscapes-mini

`pictures.csv` names the pictures of every label, by what their makers called them, looked at row by row. Packages of
Debian and npm that are not in the folder yet are fetched with `apt-get download` and `npm pack`, 1 GB in all. Objects
are trimmed to their outline and drawn 256 pixels large. Rewrites `images/{train,test}.parquet` in the dataset.
"""

import argparse
import csv
import functools
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import PIL.Image
import resvg_py
from datasets import Dataset
from packages import IN_FILE, fetch, folder_of
from qt_resources import read_resources
from tqdm import tqdm

from avgas_pipeline.files import atomic_path


TABLE = Path(__file__).with_name("pictures.csv")
# Drawn for this project; they lie beside the table.
OWN = "avgas-drawings"
COLUMNS = ("id", "label", "split", "source_group", "family", "package", "version", "path", "license")
SIDE = 256
# Round the object, as a share of the side.
MARGIN = 0.03
# Drawings are drawn this much larger, so that trimming leaves enough pixels.
OVERSIZE = 2
# What is fainter is no part of the object's outline, of 255.
FAINTEST = 16
NPM = "npm:"
# Between two pictures of a package that are drawn in one, and how large these are there.
AND = " + "
FIRST_SHARE, SECOND_SHARE = 0.8, 0.45


def package_of(row: dict[str, str]) -> dict[str, str]:
    """The row of `packages.fetch` for a picture: npm's packages have a prefix here."""
    npm = row["package"].startswith(NPM)
    return {
        "registry": "npm" if npm else "debian",
        "package": row["package"].removeprefix(NPM),
        "version": row["version"],
    }


@functools.cache
def read_icons(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


read_resources = functools.cache(read_resources)


def icon(icons: dict, name: str) -> str:
    """
    An icon of a set of Iconify as SVG.

    Raises:
        KeyError: If the set has none of this name.
    """
    entry = icons["icons"][name]
    left, top = entry.get("left", icons.get("left", 0)), entry.get("top", icons.get("top", 0))
    width = entry.get("width", icons.get("width", 16))
    height = entry.get("height", icons.get("height", 16))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f' viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{entry["body"]}</svg>'
    )


def draw_svg(svg: str) -> PIL.Image.Image:
    png = resvg_py.svg_to_bytes(svg_string=svg, width=OVERSIZE * SIDE, skip_system_fonts=True)
    return PIL.Image.open(io.BytesIO(bytes(png)))


def open_picture(row: dict[str, str], packages: Path) -> PIL.Image.Image:
    """
    The picture of a row as it is in its package, or two of one package in one: the second small in the corner.

    Raises:
        ValueError: If it is not there or can't be read.
    """
    folder = TABLE.parent if row["package"] == OWN else folder_of(package_of(row), packages)
    try:
        first, *others = [open_file(folder, path) for path in row["path"].split(AND)]
        if not others:
            return tint(first, row["tint"])
        (second,) = others
        return beside(tint(first, row["tint"]), second)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{row['package']}: {row['path']} can't be read ({error}).") from None


def open_file(folder: Path, path: str) -> PIL.Image.Image:
    outer, _, inner = path.partition(IN_FILE)
    if outer.endswith(".json"):
        return draw_svg(icon(read_icons(folder / outer), inner))
    content = read_resources(folder / outer)[inner] if inner else (folder / outer).read_bytes()
    if (inner or outer).endswith(".svg"):
        return draw_svg(content.decode("utf-8", "replace"))
    return PIL.Image.open(io.BytesIO(content)).convert("RGBA")


def tint(picture: PIL.Image.Image, colour: str | None) -> PIL.Image.Image:
    """A picture of one colour in another, `#rrggbb`."""
    if not colour:
        return picture
    tinted = PIL.Image.new("RGBA", picture.size, colour)
    tinted.putalpha(picture.convert("RGBA").getchannel("A"))
    return tinted


def beside(first: PIL.Image.Image, second: PIL.Image.Image) -> PIL.Image.Image:
    """What makes a sound, large, and what sound it makes, small in the upper right corner."""
    side = OVERSIZE * SIDE
    square = PIL.Image.new("RGBA", (side, side))
    for picture, share, right, bottom in ((first, FIRST_SHARE, False, True), (second, SECOND_SHARE, True, False)):
        part = trim(picture).resize((round(share * side),) * 2, PIL.Image.Resampling.LANCZOS)
        square.alpha_composite(part, (right * (side - part.width), bottom * (side - part.height)))
    return square


def trim(picture: PIL.Image.Image) -> PIL.Image.Image:
    """
    An object cut to its outline, in the middle of a transparent square.

    Raises:
        ValueError: If there is nothing in the picture.
    """
    picture = picture.convert("RGBA")
    box = picture.getchannel("A").point(lambda alpha: 255 if alpha >= FAINTEST else 0).getbbox()
    if box is None:
        raise ValueError("the picture is empty")
    # Premultiplied, so that transparent pixels lend no colour to the edges.
    picture = picture.crop(box).convert("RGBa")
    room = SIDE * (1 - 2 * MARGIN)
    scale = room / max(picture.size)
    size = tuple(max(round(side * scale), 1) for side in picture.size)
    picture = picture.resize(size, PIL.Image.Resampling.LANCZOS).convert("RGBA")
    square = PIL.Image.new("RGBA", (SIDE, SIDE))
    square.paste(picture, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return square


def encode(picture: PIL.Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=80, alpha_quality=90, method=4)
    return file.getvalue()


def pictures(rows: Sequence[dict[str, str]], packages: Path) -> Iterator[dict]:
    """The dataset's rows."""
    for row in tqdm(rows, unit="picture"):
        try:
            image = encode(trim(open_picture(row, packages)))
        except ValueError as error:
            raise ValueError(f"{row['id']}: {error}") from None
        yield {**{name: row[name] for name in COLUMNS}, "image": image}


def read_table(path: Path = TABLE) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, help="Folder of unpacked packages; missing ones are fetched into it.")
    parser.add_argument("--dataset", type=Path, required=True, help="The dataset whose pictures are written.")
    args = parser.parse_args(argv)
    rows = read_table()
    try:
        args.packages.mkdir(parents=True, exist_ok=True)
        for package in {tuple(package_of(row).items()) for row in rows if row["package"] != OWN}:
            if not folder_of(dict(package), args.packages).is_dir():
                fetch(dict(package), args.packages)
        drawn = list(pictures(rows, args.packages))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    for split in ("train", "test"):
        chosen = [row for row in drawn if row["split"] == split]
        with atomic_path(args.dataset / "images" / f"{split}.parquet") as path:
            Dataset.from_list(chosen).to_parquet(str(path))
        print(f"{split}: {len(chosen)} pictures of {len({row['label'] for row in chosen})} labels")


if __name__ == "__main__":
    main()
