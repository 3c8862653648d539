"""A clip that stands in several rows of the annotations is one clip with all their labels, however it is read."""

import json

import pytest
from datasets import load_dataset
from test_cli import fails_with_one_line
from test_prepare import prepare
from vggsound_tree import GOOD, write_shards

from avgas_pipeline.data.annotations import ClipEntry, merge_labels, read_vggsound
from avgas_pipeline.data.builder import VGGSound
from avgas_pipeline.data.clips import load_clips
from avgas_pipeline.data.layouts.vggsound import vggsound_layout
from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.data.prepare import PrepareSettings
from avgas_pipeline.data.prepare import prepare as prepare_in_python


FIRST, SECOND, THIRD, *_ = GOOD
ROWS = [(FIRST, "thunder"), (SECOND, "dog barking"), (FIRST, "cat meowing"), (FIRST, "thunder"), (THIRD, "sailing")]
EXPECTED = {FIRST: ["thunder", "cat meowing"], SECOND: ["dog barking"], THIRD: ["sailing"]}


@pytest.fixture(params=["folder", "archives"])
def data(request, clips, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    chosen = {name: clips[name] for name in EXPECTED}
    if request.param == "folder":
        for name, content in chosen.items():
            (folder / f"{name}.mp4").write_bytes(content)
    else:
        write_shards(folder, chosen)
    rows = [f"{name[:11]},{int(name[12:])},{label},train\n" for name, label in ROWS]
    (folder / "vggsound.csv").write_text("".join(rows))
    return folder


def test_all_ways_give_the_same_rows(data, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    streamed = list(VGGSound(data_dir=str(data)).as_streaming_dataset("train"))
    assert {row["id"]: row["labels"] for row in streamed} == EXPECTED and len(streamed) == 3
    assert prepare(data, tmp_path / "parquet").exit_code == 0
    for clips in (load_clips(data)[0], load_clips(tmp_path / "parquet")[0]):
        assert sorted(clips, key=lambda row: row["id"]) == sorted(streamed, key=lambda row: row["id"])
        # Where a clip counts for one label, it is its first.
        sampler = MixtureSampler(clips, num_sources=1, duration_s=1.0, target="collage")
        assert sampler.labels == ["dog barking", "sailing", "thunder"]
    assert prepare(data, tmp_path / "web", "--format", "webdataset").exit_code == 0
    web = load_dataset(str(tmp_path / "web"), split="train", cache_dir=tmp_path / "cache")
    assert {row["json"]["id"]: row["json"]["labels"] for row in web} == EXPECTED and len(web) == 3
    reports = [(tmp_path / out / "report.jsonl").read_text() for out in ("parquet", "web")]
    assert not any("duplicate" in report for report in reports)


def test_entries_given_in_python_are_merged_too(data, tmp_path):
    entries = [ClipEntry(name, (label,), "train") for name, label in ROWS]
    streamed = VGGSound(data_dir=str(data), entries=entries).as_streaming_dataset("train")
    assert {row["id"]: row["labels"] for row in streamed} == EXPECTED
    prepare_in_python(vggsound_layout(data, entries), PrepareSettings(), tmp_path / "out", num_workers=1)
    done = [json.loads(path.read_text())["written"] for path in (tmp_path / "out/done").glob("*.json")]
    assert sorted(name for part in done for names in part.values() for name in names) == sorted(EXPECTED)


def test_a_clip_in_two_splits_is_refused(data, tmp_path):
    with (data / "vggsound.csv").open("a") as file:
        file.write(f"{FIRST[:11]},{int(FIRST[12:])},sailing,test\n")
    words = ("vggsound.csv, line 6", FIRST, "'test'", "'train'")
    fails_with_one_line(prepare(data, tmp_path / "out"), *words)
    with pytest.raises(ValueError, match="in the split"):
        merge_labels([ClipEntry("a", ("x",), "train"), ClipEntry("a", ("y",), "val")])


def test_a_row_without_split_is_one_of_the_training_split(tmp_path):
    (tmp_path / "v.csv").write_text("zzzzzzzzzzz,0,thunder,\nzzzzzzzzzzz,0,sailing,train\n")
    (entry,) = read_vggsound(tmp_path / "v.csv")
    assert entry.labels == ("thunder", "sailing")
