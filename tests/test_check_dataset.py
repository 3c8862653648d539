"""The dataset checker finds each fault that is planted in a copy of soundscapes-mini."""

import io

import check_dataset
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from sounds import tone

from avgas_pipeline.data.soundscapes_mini import find_soundscapes_mini


def wav(samples):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 16000, format="WAV")
    return buffer.getvalue()


def webp(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


def check(folder, *options):
    return check_dataset.main([str(folder), *map(str, options)])


def of(rows, label):
    return [row for row in rows if row["label"] == label]


@pytest.fixture(scope="module")
def small_tables():
    """Two sounds of twelve labels and splits, and pictures of six designs, at most four in a split."""
    tables = {}
    labels = sorted(set(pq.read_table(find_soundscapes_mini() / "audio/train.parquet")["label"].to_pylist()))[:12]
    for kind in ("audio", "images"):
        for split in ("train", "test"):
            rows = pq.read_table(find_soundscapes_mini() / kind / f"{split}.parquet").to_pylist()
            by_label = {}
            for row in rows:
                by_label.setdefault(row["label"], {}).setdefault(row["source_group"], row)
            count = 4 if kind == "images" and split == "train" else 2
            if kind == "images":
                tables[kind, split] = [row for label in labels for row in list(by_label[label].values())[:count]]
            else:
                tables[kind, split] = [row for label in labels for row in of(rows, label)[:count]]
    return tables


def write(tables, folder):
    for (kind, split), rows in tables.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / kind / f"{split}.parquet")
    return folder


def test_a_sound_dataset_passes_and_gets_a_sheet(small_tables, tmp_path, capsys):
    folder = write(small_tables, tmp_path / "data")
    assert check(folder, "--sheet", tmp_path / "sheet.png") == 0
    assert "no faults" in capsys.readouterr().out
    assert PIL.Image.open(tmp_path / "sheet.png").height == 12 * 68


def test_every_planted_fault_is_found(small_tables, tmp_path, capsys):
    tables = {key: [dict(row) for row in rows] for key, rows in small_tables.items()}
    sounds, pictures = tables["audio", "train"], tables["images", "train"]
    sounds[0] |= {"audio": wav(np.zeros(16000, np.float32)), "duration": 1.0}
    sounds[1] |= {"audio": b"not a sound"}
    sounds[2] |= {"audio": wav(tone(0.02, 16000)), "duration": 0.02}
    sounds[3] |= {"duration": sounds[3]["duration"] + 2.0}
    sounds[4] |= {"audio": wav(tone(1.0, 16000, level=0.004)), "duration": 1.0}
    sounds[5] |= {"label": "unicorn singing"}
    sounds[6] |= {"license": ""}
    sounds[7] |= {"id": sounds[8]["id"]}
    sounds[9] |= {"split": "test"}
    sounds[10] |= {"source_group": tables["audio", "test"][3]["source_group"]}
    sounds[11] |= {"audio": tables["audio", "test"][5]["audio"], "duration": tables["audio", "test"][5]["duration"]}
    pictures[0] |= {"image": webp(PIL.Image.new("RGBA", (64, 64)))}
    pictures[1] |= {"image": webp(PIL.Image.new("RGB", (64, 64), "red"))}
    pictures[2] |= {"image": b"not a picture"}
    pictures[3] |= {"source_group": tables["images", "test"][3]["source_group"]}
    few, last = sorted({row["label"] for row in pictures})[-2:]
    for row in of(pictures, few):
        row["source_group"] = of(pictures, few)[0]["source_group"]
    designs = 1 + len({row["source_group"] for row in of(tables["images", "test"], few)})
    tables["images", "test"] = [row for row in tables["images", "test"] if row["label"] != last]

    assert check(write(tables, tmp_path / "data")) == 1

    printed = capsys.readouterr().out
    for fault in (
        f"{sounds[0]['id']} is silent",
        f"{sounds[1]['id']} can't be read",
        f"{sounds[2]['id']} is 0.02 s long",
        f"{sounds[3]['id']} is",
        f"{sounds[4]['id']} has a level of",
        "'unicorn singing', which is none of VGGSound's",
        f"{sounds[6]['id']} has no license",
        f"id {sounds[8]['id']!r} stands 2 times",
        f"{sounds[9]['id']} says split 'test'",
        f"source group {sounds[10]['source_group']!r} is in test and train",
        f"{tables['audio', 'test'][5]['id']} in 'test' is the same as {sounds[11]['id']}",
        f"{pictures[0]['id']} is empty",
        f"{pictures[1]['id']} has no transparency",
        f"{pictures[2]['id']} can't be read",
        f"source group {pictures[3]['source_group']!r} is in test and train",
        f"images: label {last!r} is missing in 'test'",
        f"images: label {few!r} has {designs} designs",
    ):
        assert fault in printed, fault


def test_a_missing_folder_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        check(tmp_path / "gone")
    assert stopped.value.code == 2 and "no such folder" in capsys.readouterr().err
