"""Data sets that can't be used are refused with their names, and never mistaken for others."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from dataset_layouts import make_sound
from dataset_layouts import write as write_file
from datasets import Dataset
from evaluation_data import fails, run
from typer.testing import CliRunner
from vggsound_tree import make_clip

from avgas_pipeline.cli.checks import bad_input_exits
from avgas_pipeline.data.clips import load_clips
from avgas_pipeline.data.layouts.detect import read_layout
from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.data.prepare import PrepareSettings, prepare
from avgas_pipeline.data.soundscapes_mini import load_soundscapes_mini


CARD = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: train-*.parquet\n---\n"
CARD_OF_TWO = """---
configs:
- config_name: audio
  data_files:
  - split: train
    path: audio/train.parquet
- config_name: images
  data_files:
  - split: train
    path: images/train.parquet
---
"""


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def write(folder, **columns):
    """Shards of one row, as they are used; the source group says that they are."""
    folder.mkdir(parents=True, exist_ok=True)
    row = {"id": "a", "label": "thunder", "source_group": "a", "audio": b"sound", **columns}
    row = {name: value for name, value in row.items() if value is not Ellipsis}
    pq.write_table(pa.Table.from_pylist([row]), folder / "train-00000-00000.parquet")
    (folder / "README.md").write_text(CARD)
    return folder


def test_folders_of_the_same_name_are_told_apart(tmp_path):
    first, second = (write(tmp_path / name / "shards", id=name) for name in ("one", "two"))
    assert [load_clips(folder)[0]["id"][0] for folder in (first, second)] == ["one", "two"]
    write(first, id="three")
    assert load_clips(first)[0]["id"][0] == "three"


def test_data_sets_of_two_parts_are_told_apart_too(tmp_path):
    for name in ("one", "two"):
        for part in ("audio", "images"):
            folder = tmp_path / name / "mini" / part
            folder.mkdir(parents=True)
            row = {"id": name, "label": "thunder", "audio": b"", "image": b""}
            pq.write_table(pa.Table.from_pylist([row]), folder / "train.parquet")
        (tmp_path / name / "mini/README.md").write_text(CARD_OF_TWO)
        for read in (load_clips, load_soundscapes_mini):
            assert [table["id"][0] for table in read(tmp_path / name / "mini", "train")] == [name, name]


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        ({"label": ...}, "which column has the labels?"),
        ({"id": ...}, "not one clip is of use (1 skipped: broken 1)"),
        ({"audio": ...}, "neither sound nor video"),
        ({"label": 3}, "row 0 has 'label' 3, which is no text"),
        ({"id": None}, "row 0 has 'id' None, which is no text"),
        ({"label": ["thunder"]}, "which is no text"),
        ({"id": float("nan")}, "which is no text"),
    ],
)
def test_columns_that_are_missing_or_no_text(columns, word, tmp_path):
    data = write(tmp_path / "shards", **columns)
    with pytest.raises(ValueError, match="shards: ") as error:
        load_clips(data)
    assert word in str(error.value)


def test_the_command_names_the_data(tmp_path):
    def evaluate(split="train"):
        options = {"data": data, "split": split, "manifest": None, "judge": None, "model": "avgas-mini"}
        return run(tmp_path, tmp_path / "out", "--no-draw", **options)

    data = write(tmp_path / "shards", label=...)
    fails(evaluate(), data, "which column has the labels?")
    data = write(tmp_path / "one split")
    fails(evaluate("validation"), data, "validation")
    (data / "train-00000-00000.parquet").write_bytes(b"PAR1" + bytes(100))
    fails(evaluate(), data, "can't be read", "Parquet")
    data = tmp_path / "videos"
    data.mkdir()
    (data / "vggsound.csv").write_text("zzzzzzzzzzz,0,thundr,train\n")
    fails(evaluate(), data / "vggsound.csv, line 1", "'thundr'")


def test_tables_in_python_are_checked_too():
    sound = {"array": np.ones(16000, np.float32), "sampling_rate": 16000}
    for row in ({"id": "a", "audio": sound}, {"id": "a", "label": None, "audio": sound}):
        with pytest.raises(ValueError, match="'label'"):
            MixtureSampler([row], num_sources=1)
    with pytest.raises(ValueError, match="no clips or pictures"):
        MixtureSampler([])


def test_a_dead_link_in_a_folder_is_no_data(folder, tmp_path):
    data = shutil.copytree(folder, tmp_path / "data")
    (data / "notes.txt").symlink_to(tmp_path / "gone")
    assert len(load_clips(data)[0]) == 3


def test_sounds_alone_have_no_pictures_when_prepared(tmp_path):
    for label in ("dog", "cat"):
        for seed in range(2):
            write_file(tmp_path / f"data/{label}/{seed}.wav", make_sound(seed))
    prepare(read_layout(tmp_path / "data"), PrepareSettings(), tmp_path / "shards", num_workers=1)
    clips, pictures = load_clips(tmp_path / "shards")
    assert pictures is None and "image" not in clips.column_names
    assert MixtureSampler(clips, num_sources=2, target="collage").sample(0).image is None


def test_each_id_once_of_shards(tmp_path):
    rows = [{"id": name, "label": "thunder", "source_group": "a", "audio": b""} for name in "aba"]
    (tmp_path / "shards").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "shards/train.parquet")
    with pytest.warns(UserWarning, match="shards: 1 skipped: duplicate 1"):
        assert load_clips(tmp_path / "shards")[0]["id"] == ["a", "b"]


def test_a_table_of_others_is_no_shard(tmp_path):
    rows = {"id": ["a", "b"], "label": ["dog;cat", "cow"], "split": ["train", "test"]}
    (tmp_path / "data").mkdir()
    Dataset.from_dict({**rows, "audio": [make_sound(0), make_sound(1)]}).to_parquet(tmp_path / "data/train.parquet")
    (train,), (test,) = (load_clips(tmp_path / "data", split)[0] for split in ("train", "test"))
    assert (train["id"], train["labels"]) == ("a", ["dog", "cat"]) and test["id"] == "b"


def test_what_is_skipped_is_told_each_time_and_by_the_commands(tmp_path):
    write_file(tmp_path / "data/dog/a.wav", make_sound(0))
    write_file(tmp_path / "data/dog/b.wav", b"junk")
    write_file(tmp_path / "data/dog/c.mp4", make_clip(0))
    app = typer.Typer()

    @app.command()
    def command():
        with bad_input_exits():
            load_clips(tmp_path / "data")

    for _ in range(2):
        said = CliRunner().invoke(app).stderr
        assert f"avgas: warning: {tmp_path / 'data'}: 1 skipped: broken 1." in said
        assert "1 of 2 clips have no picture, so none is used." in said
