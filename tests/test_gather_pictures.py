"""Pictures are drawn from packages as they lie there, and those of the dataset are what the scripts draw."""

import json
import struct
import sys
import zlib

import numpy as np
import PIL.Image
import pytest
from datasets import Dataset
from training_runs import TRAINING

from avgas_pipeline.data.scenes import open_picture
from avgas_pipeline.data.soundscapes_mini import find_soundscapes_mini, load_soundscapes_mini


sys.path.insert(0, str(TRAINING / "mini"))
import gather_emoji
import gather_pictures
import qt_resources


SQUARE = '<path fill="#f00" d="M2 4h12v8H2z"/>'


def rcc(files: dict[str, bytes], flags: int = 0) -> bytes:
    """A resource file of version 2, all files in the folder `a`."""
    names, contents = b"", b""
    header = 20

    def name(text: str) -> int:
        nonlocal names
        offset = len(names)
        names += struct.pack(">HI", len(text), 0) + text.encode("utf-16-be")
        return offset

    def node(offset: int, flags: int, first: int, second: int) -> bytes:
        return struct.pack(">IHIIQ", offset, flags, first, second, 0)

    nodes = node(0, 2, 1, 1) + node(name("a"), 2, len(files), 2)
    for path, content in files.items():
        # Territory and language in one number of four bytes, as the first one of a file's.
        nodes += node(name(path), flags, 0, len(contents))
        stored = struct.pack(">I", len(content)) + zlib.compress(content) if flags & 1 else content
        contents += struct.pack(">I", len(stored)) + stored
    tree = header
    data = tree + len(nodes)
    return struct.pack(">4s4I", b"qres", 2, tree, data, data + len(contents)) + nodes + contents + names


@pytest.mark.parametrize("flags", [0, 1])
def test_qt_resources(tmp_path, flags):
    files = {"dog.svg": b"<svg/>", "Größe.png": bytes(range(256))}
    path = tmp_path / "pictures.rcc"
    path.write_bytes(rcc(files, flags))
    assert qt_resources.read_resources(path) == {f"a/{name}": content for name, content in files.items()}


def test_other_files_are_no_resources(tmp_path):
    path = tmp_path / "pictures.rcc"
    path.write_bytes(b"RIFF" + bytes(40))
    with pytest.raises(ValueError, match="not a Qt resource file"):
        qt_resources.read_resources(path)
    path.write_bytes(rcc({"dog.svg": b"<svg/>"}, flags=4))
    with pytest.raises(ValueError, match=r"a/dog\.svg is compressed"):
        qt_resources.read_resources(path)


@pytest.fixture
def packages(tmp_path):
    """A set of icons, pictures and resources, as they lie in packages."""
    icons = {"width": 16, "height": 16, "icons": {"dog": {"body": SQUARE}, "flag-of": {"body": SQUARE}}}
    for name in ("noto", "twemoji"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "icons.json").write_text(json.dumps(icons))
    folder = tmp_path / "fluent-emoji-3d" / "assets"
    folder.mkdir(parents=True)
    PIL.Image.new("RGBA", (8, 16), (0, 255, 0, 255)).save(folder / "1f415.webp", lossless=True)
    (tmp_path / "game").mkdir()
    picture = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">{SQUARE}</svg>'
    (tmp_path / "game" / "pictures.rcc").write_bytes(rcc({"dog.svg": picture.encode()}))
    return tmp_path


def drawn(packages, package, path, tint=""):
    row = {"package": package, "version": "1", "path": path, "tint": tint}
    return np.asarray(gather_pictures.trim(gather_pictures.open_picture(row, packages)))


@pytest.mark.parametrize(
    ("package", "path"),
    [("npm:@iconify-json/noto", "icons.json::dog"), ("game", "pictures.rcc::a/dog.svg")],
)
def test_a_drawing_is_trimmed_and_in_the_middle(packages, package, path):
    picture = drawn(packages, package, path)
    assert picture.shape == (256, 256, 4)
    rows, columns = np.nonzero(picture[..., 3] > 128)
    assert (columns.min(), columns.max()) == pytest.approx((8, 247), abs=1)
    assert (rows.min(), rows.max()) == pytest.approx((48, 207), abs=2)
    assert tuple(picture[128, 128]) == (255, 0, 0, 255)
    assert tuple(drawn(packages, package, path, "#00ff00")[128, 128]) == (0, 255, 0, 255)


def test_two_pictures_are_drawn_in_one(packages):
    package = "npm:@lobehub/fluent-emoji-3d"
    picture = drawn(packages, package, "assets/1f415.webp + assets/1f415.webp")
    assert tuple(picture[200, 100])[:3] == (0, 255, 0)
    # The second is in the upper right corner, and nothing below it.
    assert picture[20:100, 200:, 3].max() == 255 and picture[200, 240, 3] == 0


@pytest.mark.parametrize(
    ("package", "path"),
    [
        ("npm:@iconify-json/noto", "icons.json::cat"),
        ("npm:@lobehub/fluent-emoji-3d", "assets/1f416.webp"),
        ("game", "pictures.rcc::a/cat.svg"),
    ],
)
def test_a_picture_that_is_not_there(packages, package, path):
    with pytest.raises(ValueError, match=r"can't be read"):
        drawn(packages, package, path)


def test_the_datasets_own_drawings_are_what_is_drawn(tmp_path):
    rows = [row for row in gather_pictures.read_table() if row["package"] == gather_pictures.OWN][::25]
    pictures = [load_soundscapes_mini(find_soundscapes_mini(), split)[1] for split in ("train", "test")]
    kept = {name: image for table in pictures for name, image in zip(table["id"], table["image"], strict=True)}
    for row, made in zip(rows, gather_pictures.pictures(rows, tmp_path), strict=True):
        got = open_picture(made["image"]).convert("RGBA")
        expected = open_picture(kept[row["id"]]).convert("RGBA")
        assert np.array_equal(np.asarray(got)[..., 3], np.asarray(expected)[..., 3]), row["id"]
        assert np.abs(np.asarray(got, np.int16) - np.asarray(expected, np.int16)).max() <= 2, row["id"]


def test_emoji_of_no_label(packages, monkeypatch, capsys):
    counts = {"@iconify-json/noto": 5, "@iconify-json/twemoji": 5, "@lobehub/fluent-emoji-3d": 5}
    monkeypatch.setattr(gather_emoji, "COUNTS", counts)
    (packages / "reserved.txt").write_text("npm:@iconify-json/twemoji|icons.json::dog\n")
    out = packages / "emoji.parquet"
    gather_emoji.main([str(packages), "--output", str(out), "--exclude", str(packages / "reserved.txt")])
    assert f"{out}: 2 pictures" in capsys.readouterr().out
    groups = Dataset.from_parquet(str(out))["source_group"]
    assert sorted(groups) == ["@iconify-json/noto icons.json::dog", "@lobehub/fluent-emoji-3d assets/1f415.webp"]
