"""What a data set says is heeded in every layout, and what is lost of it is told."""

import io
import json
import os

import numpy as np
import PIL.Image
import pytest
import soundfile
from dataset_layouts import (
    class_folders,
    folder_per_clip,
    make_picture,
    make_sound,
    parquet_with_pictures,
    prepare,
    splits_of,
    to_parquet,
    to_tar,
    to_zip,
    write,
)
from datasets import Audio, ClassLabel, Dataset, Value
from vggsound_tree import make_clip

from avgas_pipeline.data.builder import ClipDataset
from avgas_pipeline.data.clips import load_clips
from avgas_pipeline.data.layouts.columns import ColumnMap
from avgas_pipeline.data.layouts.detect import find_layout, read_layout
from avgas_pipeline.data.report import read_report
from avgas_pipeline.data.tables import ClipTable


def read(folder, columns=None):
    """The rows of all splits, and why the others were skipped, by name."""
    mapped = ColumnMap.parse(columns)
    builder = ClipDataset(data_dir=str(folder), columns=mapped)
    rows = [row for split in splits_of(folder, columns) for row in builder.as_streaming_dataset(split)]
    return rows, {entry["clip"]: entry["reason"] for entry in builder.skipped.entries}


def labels_by_id(folder, columns=None):
    rows, skipped = read(folder, columns)
    assert not skipped and len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row["labels"] for row in rows}


def sound(name="a.wav", seed=0):
    return {"bytes": make_sound(seed), "path": name}


def test_what_systems_hide_is_no_clip(tmp_path):
    """macOS puts a file `._name` beside every file of a disk or an archive that is not its own."""
    for folder, make in (("classes", class_folders), ("clips", folder_per_clip)):
        plain = make(tmp_path / folder)
        before = labels_by_id(tmp_path / folder)
        for file in [path for path in (tmp_path / folder).rglob("*") if path.is_file()]:
            write(file.with_name(f"._{file.name}"), b"Mac OS X")
        write(tmp_path / folder / ".cache" / "dog" / "x.wav", make_sound(9))
        assert labels_by_id(tmp_path / folder) == before and len(before) == len(plain)
    members = {"dog/1.wav": make_sound(0), "__MACOSX/dog/._1.wav": b"Mac OS X", "dog/._1.wav": b"Mac OS X"}
    to_zip(tmp_path / "zip" / "train.zip", members)
    assert labels_by_id(tmp_path / "zip") == {"train/dog/1": ["dog"]}


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("file_name,label\nfield_recor_1_1.wav,dog\nfield_recor_1_2.wav,cat", ["field_recor_1_1", "field_recor_1_2"]),
        (
            "file_name,label\nrecordings1_1/rain.wav,rain\nrecordings1_1/dog.wav,dog",
            ["recordings1_1/rain", "recordings1_1/dog"],
        ),
        (
            "file_name,label\na_b_c_d_e_f_120.wav,dog\ng/zzzzzzzzzzz_7/x.wav,cat",
            ["a_b_c_d_e_f_000120", "zzzzzzzzzzz_000007"],
        ),
        ("file_name,label\na.wav,dog\na.flac,cat", ["a.wav", "a.flac"]),
        ("file_name,video_id,start,label\na.wav,x,1.2,dog\nb.wav,x,1.8,cat", ["x_000001.200", "x_000001.800"]),
        ("file_name,video_id,start,label\na.wav,x_000030,30,dog\nb.wav,x,31.0,cat", ["x_000030", "x_000031"]),
    ],
)
def test_every_clip_has_an_id_of_its_own(tmp_path, table, expected):
    write(tmp_path / "metadata.csv", table + "\n")
    for seed, row in enumerate(table.split("\n")[1:]):
        write(tmp_path / row.split(",")[0], make_sound(seed))
    assert list(labels_by_id(tmp_path)) == expected


def test_archives_have_their_names_in_ids_and_splits(tmp_path):
    for seed, name in enumerate(("train.zip", "clips-test.ZIP", "inner/more.zip")):
        to_zip(tmp_path / name, {"dog/1.wav": make_sound(seed), "cat\\1.wav": make_sound(seed + 3)})
    rows, skipped = read(tmp_path)
    assert not skipped
    assert {row["id"]: (row["label"], row["split"]) for row in rows} == {
        f"{archive}/{label}/1": (label, split)
        for archive, split in (("train", "train"), ("clips-test", "test"), ("inner/more", "train"))
        for label in ("dog", "cat")
    }


def same_id_in_metadata(folder):
    write(folder / "metadata.csv", "file_name,video_id,label\n1.wav,abc,dog\n2.wav,abc,cat\n3.wav,other,cow\n")
    for seed in (1, 2, 3):
        write(folder / f"{seed}.wav", make_sound(seed))


def same_id_in_two_shards(folder):
    features = {"video_id": Value("string"), "audio": Audio(), "label": Value("string")}
    for number, (names, labels) in enumerate(((["abc"], ["dog"]), (["abc", "other"], ["cat", "cow"]))):
        sounds = [sound(seed=1)] if number == 0 else [sound(seed=2), sound(seed=3)]
        rows = {"video_id": names, "audio": sounds, "label": labels}
        to_parquet(rows, features, folder / f"train-0000{number}-of-00002.parquet")


@pytest.mark.parametrize("write_layout", [same_id_in_metadata, same_id_in_two_shards])
@pytest.mark.parametrize("kind", ["whole", "parquet", "webdataset"])
def test_of_two_clips_with_one_id_the_second_is_skipped(tmp_path, write_layout, kind):
    folder = tmp_path / "data"
    write_layout(folder)
    if kind == "whole":
        with pytest.warns(UserWarning, match="1 skipped: duplicate 1"):
            clips, _ = load_clips(folder)
    else:
        arguments = (folder, tmp_path / "out", None, "--workers", "1", "--format", kind, "--clips-per-shard", "1")
        result = prepare(*arguments)
        assert "1 skipped: duplicate 1" in result.output and "abc" in (tmp_path / "out/report.jsonl").read_text()
        before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
        assert "1 skipped: duplicate 1" in prepare(*arguments).output
        assert {path: path.read_bytes() for path in before} == before
        clips, _ = load_clips(tmp_path / "out")
    assert dict(zip(clips["id"], clips["label"], strict=True)) == {"abc": "dog", "other": "cow"}
    waveform = ClipTable(clips, 16000).waveform("abc")
    assert np.abs(np.fft.rfft(waveform)).argmax() * 16000 / len(waveform) == pytest.approx(450, abs=1)


def test_two_tables_in_one_folder(tmp_path):
    class_folders(tmp_path)
    write(tmp_path / "metadata.csv", "file_name,label\nb.wav,dog\n")
    write(tmp_path / "metadata.jsonl", json.dumps({"file_name": "b.wav", "label": "dog"}))
    with pytest.raises(ValueError, match=r"has both metadata\.csv and metadata\.jsonl"):
        load_clips(tmp_path)


def test_no_label_in_a_table(tmp_path):
    features = {"id": Value("string"), "audio": Audio(), "label": ClassLabel(names=["bird", "cat"])}
    rows = {"id": list("abc"), "audio": [sound(seed=seed) for seed in range(3)], "label": [0, -1, None]}
    to_parquet(rows, features, tmp_path / "train.parquet")
    rows, skipped = read(tmp_path)
    assert {row["id"]: row["label"] for row in rows} == {"a": "bird"}
    assert skipped == {"train-00000-000001": "no clip", "train-00000-000002": "no clip"}
    with pytest.warns(UserWarning, match="2 skipped: no clip 2"):
        load_clips(tmp_path)


@pytest.mark.parametrize("video", [{"sound": None}, {"sound": "silence"}, {"seconds": 0.9}])
def test_a_sound_of_its_own_needs_none_in_the_video(tmp_path, video):
    write(tmp_path / "dog/a.wav", make_sound(1))
    write(tmp_path / "dog/a.mp4", make_clip(1, **video))
    ((row,), skipped) = read(tmp_path)
    assert not skipped and row["duration"] == 2.0 and row["frame_s"] is not None
    assert max(PIL.Image.open(io.BytesIO(row["image"])).size) == 96


def test_a_picture_of_its_own_needs_none_in_the_video(tmp_path):
    write(tmp_path / "a.mp4", make_clip(1, picture="still"))
    write(tmp_path / "p.png", make_picture(1))
    write(tmp_path / "metadata.csv", "file_name,label,image\na.mp4,dog,p.png\n")
    ((row,), _) = read(tmp_path)
    assert PIL.Image.open(io.BytesIO(row["image"])).size == (40, 30) and row["frame_s"] is None


def test_a_text_that_is_no_video_loses_no_sound(tmp_path):
    features = {"video": Value("string"), "audio": Audio(), "label": Value("string")}
    rows = {"video": ["dQw4w9WgXcQ", "x" * 5000], "audio": [sound(), sound(seed=1)], "label": ["dog", "cat"]}
    to_parquet(rows, features, tmp_path / "train.parquet")
    assert list(labels_by_id(tmp_path).values()) == [["dog"], ["cat"]]


def test_a_number_is_no_picture(tmp_path):
    features = {"frame": Value("int32"), "audio": Audio(), "label": Value("string")}
    rows = {"frame": [3, 4], "audio": [sound(), sound(seed=1)], "label": ["dog", "cat"]}
    to_parquet(rows, features, tmp_path / "train.parquet")
    assert list(labels_by_id(tmp_path).values()) == [["dog"], ["cat"]]


def splits_in_a_table(folder, column, values):
    features = {"id": Value("string"), "audio": Audio(), "label": Value("string"), "split": column}
    rows = {"id": ["a", "b"], "audio": [sound(), sound(seed=1)], "label": ["dog", "cat"], "split": values}
    to_parquet(rows, features, folder / "train.parquet")


def splits_of_folders(folder):
    write(folder / "metadata.csv", "file_name,id,label\ntrain/0.wav,a,dog\ntest/1.wav,b,cat\n")
    write(folder / "train/0.wav", make_sound(0))
    write(folder / "test/1.wav", make_sound(1))


def splits_in_a_later_row(folder):
    rows = [{"file_name": "a.wav", "label": "dog"}, {"file_name": "b.wav", "label": "cat", "split": "test"}]
    write(folder / "metadata.jsonl", "\n".join(map(json.dumps, rows)))
    write(folder / "a.wav", make_sound(0))
    write(folder / "b.wav", make_sound(1))


def splits_in_json(folder):
    members = {}
    for seed, (name, split) in enumerate((("a", "train"), ("b", "test"))):
        members[f"{name}.wav"] = make_sound(seed)
        members[f"{name}.json"] = json.dumps({"label": "dog", "split": split}).encode()
    to_tar(folder / "train-0.tar", members)


@pytest.mark.parametrize(
    "write_layout",
    [
        splits_of_folders,
        splits_in_a_later_row,
        splits_in_json,
        lambda folder: splits_in_a_table(folder, ClassLabel(names=["train", "test"]), [0, 1]),
        lambda folder: splits_in_a_table(folder, Value("string"), [None, "test"]),
        lambda folder: splits_in_a_table(folder, Value("string"), ["train", "test "]),
    ],
    ids=["folders", "later row", "JSON", "ClassLabel", "null", "space"],
)
def test_splits_are_found_wherever_they_are_said(tmp_path, write_layout):
    write_layout(tmp_path)
    rows, _ = read(tmp_path)
    assert {row["id"]: row["split"] or "train" for row in rows} == {"a": "train", "b": "test"}


def test_columns_that_nothing_could_heed(tmp_path):
    class_folders(tmp_path / "folders")
    with pytest.raises(ValueError, match="columns are for the layouts metadata and table; it has the layout class-fo"):
        load_clips(tmp_path / "folders", columns="split=set")
    folder_per_clip(tmp_path / "metadata")
    with pytest.raises(ValueError, match="named by 'file_name'"):
        load_clips(tmp_path / "metadata", columns="audio=text")


def test_what_is_lost_in_folders_is_told(tmp_path):
    folder = tmp_path / "data"
    for name in ("dog/a.wav", "dog/a.flac", "loose.wav"):
        write(folder / name, make_sound(0))
    write(folder / "notes.txt", "nothing")
    to_zip(folder / "dog.zip", {"1.wav": make_sound(1), "readme.txt": b""})
    write(folder / "cat/damaged.zip", b"PK nothing")
    with open(os.fsencode(folder) + b"/dog/h\xfcnd.wav", "wb") as file:
        file.write(make_sound(2))
    expected = {
        "dog/a.wav": "duplicate",
        "loose.wav": "no label",
        "dog/1.wav": "no label",
        "cat/damaged.zip": "damaged archive",
        "dog/h\\udcfcnd.wav": "name is not in UTF-8",
    }
    rows, skipped = read(folder)
    assert [row["id"] for row in rows] == ["dog/a"] and skipped == expected
    result = prepare(folder, tmp_path / "out", None, "--workers", "1")
    assert result.exit_code == 0 and "5 skipped" in result.output
    assert {entry["clip"]: entry["reason"] for entry in read_report(tmp_path / "out/report.jsonl")} == expected
    with pytest.warns(UserWarning, match="5 skipped"):
        assert load_clips(folder)[0]["id"] == ["dog/a"]


def test_kinds_of_files(tmp_path):
    samples, rate = soundfile.read(io.BytesIO(make_sound(0)))
    (tmp_path / "dog").mkdir()
    for suffix in ("aiff", "AIF", "au", "caf", "w64", "oga"):
        kind = {"AIF": "AIFF", "oga": "OGG"}.get(suffix, suffix.upper())
        soundfile.write(tmp_path / f"dog/{suffix}.{suffix}", samples, rate, format=kind)
    write(tmp_path / "dog/film.m4v", make_clip(1))
    assert set(labels_by_id(tmp_path)) == {
        f"dog/{name}" for name in ("aiff", "AIF", "au", "caf", "w64", "oga", "film")
    }


def test_webdataset_rows_without_labels(tmp_path):
    members = {}
    for number, said in enumerate([{"label": "dog"}] * 6 + [{"other": 1}, None, {"label": "cat"}]):
        members[f"c{number}.wav"] = make_sound(number)
        if said is not None:
            members[f"c{number}.json"] = json.dumps(said).encode()
    to_tar(tmp_path / "train-0.tar", members)
    rows, skipped = read(tmp_path)
    assert [row["id"] for row in rows] == [*(f"c{number}" for number in range(6)), "c8"]
    assert skipped == {"train-00000-000006": "no clip", "train-00000-000007": "no clip"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("[1]", "line 2: has to be an object, not list"),
        ("5", "line 2: has to be an object, not int"),
        ('{"file_name": "a.wav", "label": "dog", "image": 5}', "line 2: 'image' has to be a path, not int"),
        ('{"file_name": 5, "label": "dog"}', "line 2: needs a file_name"),
        ('{"file_name": "a.wav", "label": NaN}', "line 2: needs a label"),
        ('{"file_name": "a.wav", "label": "dog", "image": "../p.png"}', "line 2: .*p.png' is outside of"),
        ('{"file_name": "a.wav", "label": "dog", "image": "/etc/p.png"}', "line 2: '/etc/p.png' is outside of"),
    ],
)
def test_rows_of_metadata_that_are_none(tmp_path, row, words):
    write(tmp_path / "p.png", make_picture(0))
    folder = tmp_path / "data"
    write(folder / "a.wav", make_sound(0))
    write(folder / "metadata.jsonl", '{"file_name": "a.wav", "label": "dog"}\n' + row + "\n")
    with pytest.raises(ValueError, match=rf"metadata\.jsonl, {words}"):
        load_clips(folder)


def test_paths_in_a_table(tmp_path):
    folder = tmp_path / "data"
    write(tmp_path / "secret.wav", make_sound(0))
    write(folder / "clips/a.wav", make_sound(1))
    names = ["clips/a.wav", "../secret.wav", str(tmp_path / "secret.wav"), "gone.wav"]
    rows = Dataset.from_dict({"id": list("abcd"), "audio": names, "label": ["dog"] * 4})
    rows.to_parquet(folder / "train.parquet")
    rows, skipped = read(folder)
    assert [row["id"] for row in rows] == ["a"] and list(skipped.values()) == ["no clip"] * 3


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("['dog', 'cat']", ["dog", "cat"]),
        ("['dog' \"cat's\"]", ["dog", "cat's"]),
        ("dog; cat|dog", ["dog", "cat"]),
        ("[dog]", ["[dog]"]),
    ],
)
def test_several_labels_in_one_cell(tmp_path, cell, labels):
    write(tmp_path / "a.wav", make_sound(0))
    write(tmp_path / "metadata.jsonl", json.dumps({"file_name": "a.wav", "label": cell}))
    assert labels_by_id(tmp_path) == {"a": labels}


def test_several_rows_of_one_file_are_one_clip(tmp_path):
    write(tmp_path / "a.wav", make_sound(0))
    write(tmp_path / "metadata.csv", "file_name,label\na.wav,dog\na.wav,cat\na.wav,dog\n")
    assert labels_by_id(tmp_path) == {"a": ["dog", "cat"]}


def test_numbers_that_are_none_say_nothing(tmp_path):
    features = {"id": Value("float64"), "audio": Audio(), "label": Value("float64")}
    none = float("nan")
    rows = {"id": [none, 1.0], "audio": [sound(), sound(seed=1)], "label": [2.0, none]}
    to_parquet(rows, features, tmp_path / "train.parquet")
    rows, skipped = read(tmp_path)
    assert {row["id"]: row["label"] for row in rows} == {"train-00000-000000": "2.0"}
    assert skipped == {"train-00000-000001": "no clip"}


def test_a_corpus_without_a_label(tmp_path):
    write(tmp_path / "FSD50K.ground_truth/dev.csv", "fname,labels,mids,split\n1,,,train\n")
    with pytest.raises(ValueError, match=r"dev\.csv, line 2: needs a label"):
        read_layout(tmp_path)


def test_shards_in_the_folder_of_their_clips(tmp_path):
    class_folders(tmp_path / "folders")
    for _ in range(2):
        result = prepare(tmp_path / "folders", tmp_path / "folders/shards", None, "--workers", "1")
        assert result.exit_code == 0 and "nothing skipped" in result.stdout, result.output
    assert find_layout(tmp_path / "folders") == "class-folders"
    parquet_with_pictures(tmp_path / "table")
    columns = "id=name,audio=sound,image=photo,label=what"
    result = prepare(tmp_path / "table", tmp_path / "table/shards", columns)
    assert result.exit_code == 2 and "lies in the data" in result.output
    # Nothing else there: shards by folders of splits.
    (tmp_path / "all").mkdir()
    (tmp_path / "folders/shards").rename(tmp_path / "all/train")
    assert find_layout(tmp_path / "all") == "table"


def test_where_a_table_lies_does_not_matter(tmp_path):
    fingerprints = []
    for name in ("one", "two"):
        parquet_with_pictures(tmp_path / name)
        columns = ColumnMap.parse("id=name,audio=sound,image=photo,label=what")
        fingerprints.append([part.fingerprint() for part in read_layout(tmp_path / name, None, columns).parts])
    assert fingerprints[0] == fingerprints[1]
