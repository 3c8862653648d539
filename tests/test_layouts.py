"""Every layout gives the same clips and labels as a stream, whole, prepared, and to training."""

import io
import textwrap

import numpy as np
import PIL.Image
import pytest
import soundfile
import train_separator
import training_runs as runs
from dataset_layouts import (
    LAYOUTS,
    class_folders,
    esc50,
    folder_per_clip,
    make_sound,
    parquet_with_pictures,
    prepare,
    splits_of,
)
from datasets import Dataset
from hub_server import run_hub, run_python
from tiny import tiny_components, tiny_separator

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.data.builder import ClipDataset
from avgas_pipeline.data.clips import load_clips
from avgas_pipeline.data.layouts.columns import ColumnMap
from avgas_pipeline.data.layouts.detect import find_layout, read_layout
from avgas_pipeline.data.report import read_report


# Those whose clips all have pictures.
WITH_PICTURES = {"folder per clip", "Parquet with video", "Parquet with pictures", "WebDataset"}


@pytest.fixture(scope="module", params=LAYOUTS)
def written(request, tmp_path_factory):
    """Name, folder, expected labels by id, columns. Read-only by convention."""
    write_layout, layout, columns = LAYOUTS[request.param]
    folder = tmp_path_factory.mktemp("layout") / "data"
    folder.mkdir()
    expected = write_layout(folder)
    assert find_layout(folder) == layout
    return request.param, folder, expected, columns


def test_as_a_stream(written):
    name, folder, expected, columns = written
    builder = ClipDataset(data_dir=str(folder), columns=ColumnMap.parse(columns))
    rows = [row for split in splits_of(folder, columns) for row in builder.as_streaming_dataset(split)]
    assert {row["id"]: row["labels"] for row in rows} == expected and len(rows) == len(expected)
    assert not builder.skipped.counts
    for row in rows:
        samples, rate = soundfile.read(io.BytesIO(row["audio"]))
        assert rate == 16000 and row["duration"] == pytest.approx(len(samples) / rate) and row["duration"] > 1.9
        assert row["label"] == row["labels"][0]
        if name in WITH_PICTURES:
            assert max(PIL.Image.open(io.BytesIO(row["image"])).size) <= 256


def test_whole_for_training(written):
    name, folder, expected, columns = written
    found = {}
    for split in splits_of(folder, columns):
        clips, pictures = load_clips(folder, split, columns=columns)
        assert pictures is None and ("image" in clips.column_names) == (name in WITH_PICTURES)
        found |= dict(zip(clips["id"], clips["labels"], strict=True))
    assert found == expected


def test_prepared(written, tmp_path):
    _, folder, expected, columns = written
    found = {}
    for kind in ("parquet", "webdataset"):
        result = prepare(folder, tmp_path / kind, columns, "--workers", "1", "--format", kind)
        assert result.exit_code == 0 and "nothing skipped" in result.stdout, result.output
    for split in splits_of(folder, columns):
        clips, _ = load_clips(tmp_path / "parquet", split)
        found |= dict(zip(clips["id"], clips["labels"], strict=True))
    assert found == expected
    # Which is read as any other WebDataset.
    again = [load_clips(tmp_path / "webdataset", split)[0] for split in splits_of(folder, columns)]
    assert {
        name: labels for clips in again for name, labels in zip(clips["id"], clips["labels"], strict=True)
    } == expected


def test_a_clip_that_can_not_be_read_is_named(tmp_path):
    folder = tmp_path / "data"
    class_folders(folder)
    (folder / "dog barking/broken.wav").write_bytes(b"RIFF nothing")
    (folder / "dog barking/short.wav").write_bytes(make_sound(0, seconds=0.2))
    result = prepare(folder, tmp_path / "out", None, "--workers", "1")
    assert result.exit_code == 0 and "2 skipped: broken 1, too short 1" in result.stdout
    named = {entry["clip"]: entry["reason"] for entry in read_report(tmp_path / "out/report.jsonl")}
    assert named == {"dog barking/broken": "broken", "dog barking/short": "too short"}


def test_a_damaged_archive_and_a_missing_file(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "clips.zip").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"clips\.zip: can't be read"):
        read_layout(folder)
    folder_per_clip(tmp_path / "clips")
    gone = tmp_path / "clips/video/a_b_c_d_e_f_000120/video.mp4"
    gone.unlink()
    result = prepare(tmp_path / "clips", tmp_path / "out", None, "--workers", "1")
    assert result.exit_code == 0 and "1 skipped: missing 1" in result.stdout
    (entry,) = read_report(tmp_path / "out/report.jsonl")
    assert entry["detail"] == f"missing ({gone})"


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("label=nothing", "has no column 'nothing'"),
        ("labels", "has to be like"),
        ("colour=what", "'colour' is none of"),
        ("missing.yaml", r"missing\.yaml: can't be read"),
        (None, "which column has the labels"),
        ("labels=what", "neither sound nor video"),
    ],
)
def test_columns_that_do_not_fit(tmp_path, columns, words):
    parquet_with_pictures(tmp_path / "data")
    with pytest.raises(ValueError, match=words):
        load_clips(tmp_path / "data", columns=columns)


@pytest.mark.parametrize("columns", [{"labels": "what"}, "label=what", ColumnMap(labels="what")])
def test_columns_as_python_has_them_and_what_is_skipped_is_told(tmp_path, columns):
    (tmp_path / "a.wav").write_bytes(make_sound(1))
    (tmp_path / "metadata.csv").write_text("file_name,what\na.wav,dog barking\ngone.wav,cat meowing\n")
    builder = ClipDataset(data_dir=str(tmp_path), columns=columns)
    with pytest.warns(UserWarning, match="1 skipped: missing 1"):
        rows = list(builder.as_streaming_dataset("train"))
    assert [(row["label"], row["split"]) for row in rows] == [("dog barking", "train")]


def test_columns_from_a_file(tmp_path):
    expected = parquet_with_pictures(tmp_path / "data")
    (tmp_path / "columns.yaml").write_text("id: name\naudio: sound\nimage: photo\nlabel: what\n")
    clips, _ = load_clips(tmp_path / "data", columns=str(tmp_path / "columns.yaml"))
    assert dict(zip(clips["id"], clips["labels"], strict=True)) == expected


def test_a_layout_that_does_not_fit(tmp_path):
    esc50(tmp_path / "data")
    with pytest.raises(ValueError, match="layout has to be one of vggsound, metadata"):
        read_layout(tmp_path / "data", "esc")
    result = prepare(tmp_path / "data", tmp_path / "out", None, "--layout", "fsd50k")
    assert result.exit_code == 2 and "FSD50K.ground_truth" in result.output and "Traceback" not in result.output
    with pytest.raises(ValueError, match="has no split 'test', but 'train'"):
        load_clips(tmp_path / "data", "test")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").write_text("nothing")
    with pytest.raises(ValueError, match="holds no sounds or videos"):
        load_clips(tmp_path / "empty")


def test_nothing_outside_of_the_folder_is_read(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (tmp_path / "secret.wav").write_bytes(make_sound(0))
    (folder / "metadata.csv").write_text("file_name,label\n../secret.wav,dog\n")
    with pytest.raises(ValueError, match="is outside of"):
        read_layout(folder)


@pytest.mark.slow
def test_training_learns_from_it(written, tmp_path):
    _, folder, expected, columns = written
    labels = sorted({label for names in expected.values() for label in names})
    components = tiny_components() | {"separator": tiny_separator(id2label=dict(enumerate(labels)))}
    AVGASPipeline(**components).save_pretrained(tmp_path / "untrained")
    settings = {
        **runs.mixture_settings(tmp_path, tmp_path / "run", {}),
        "dataset": folder,
        "dataset_split": splits_of(folder, columns)[-1],
        "dataset_columns": columns,
        "num_sources": "1 1",
        "validation_fraction": 0.0,
    }
    runs.run(train_separator.main, settings)
    losses = runs.curve(tmp_path / "run", "loss")
    assert len(losses) == 20 and all(np.isfinite(list(losses.values())))


def test_from_a_hub(tmp_path):
    expected = parquet_with_pictures(tmp_path / "hub/user/clips")
    code = """
        from avgas_pipeline.data.clips import load_clips
        clips, _ = load_clips("user/clips", columns="id=name,audio=sound,image=photo,label=what")
        print(sorted(zip(clips["id"], clips["label"])))
    """
    with run_hub(tmp_path / "hub") as url:
        said = run_python(textwrap.dedent(code), tmp_path, url)
    assert said.strip() == str(sorted((name, labels[0]) for name, labels in expected.items()))


@pytest.mark.parametrize("split", ["../../escape", "a/b", "two words"])
def test_a_split_that_could_name_another_file(tmp_path, split):
    writers = {"metadata": metadata_with_split, "fsd50k": fsd50k_with_split, "table": table_with_split}
    for name, write_layout in writers.items():
        write_layout(tmp_path / name, split)
        result = prepare(tmp_path / name, tmp_path / "out", None, "--workers", "1")
        assert result.exit_code == 2 and "can't name a split" in result.output, name
    assert not (tmp_path / "out").exists()


def metadata_with_split(folder, split):
    folder.mkdir()
    (folder / "a.wav").write_bytes(make_sound(0))
    (folder / "metadata.csv").write_text(f"file_name,label,split\na.wav,dog,{split}\n")


def fsd50k_with_split(folder, split):
    (folder / "FSD50K.ground_truth").mkdir(parents=True)
    (folder / "FSD50K.ground_truth/dev.csv").write_text(f"fname,labels,mids,split\n1,Bark,/m/05tny_,{split}\n")


def table_with_split(folder, split):
    folder.mkdir()
    Dataset.from_dict({"audio": [make_sound(0)], "label": ["dog"], "split": [split]}).to_parquet(
        folder / "train.parquet"
    )


@pytest.mark.parametrize("start", ["soon", "1e999", "nan", "-3"])
def test_a_start_that_is_none(tmp_path, start):
    (tmp_path / "a.wav").write_bytes(make_sound(0))
    (tmp_path / "metadata.csv").write_text(f"file_name,id,label,start\na.wav,a_b_c_d_e_f,dog,{start}\n")
    with pytest.raises(ValueError, match="can't start at"):
        read_layout(tmp_path)
