import io
import json
import shutil
import tarfile
import textwrap

import av
import numpy as np
import PIL.Image
import pytest
from datasets.distributed import split_dataset_by_node
from hub_server import run_python
from torch.utils.data import DataLoader
from vggsound_tree import BAD, GOOD, add, make_clip, write_csv

from avgas_pipeline.audio.loading import load_audio
from avgas_pipeline.data.annotations import (
    ClipEntry,
    parse_clip_name,
    read_audioset_strong,
    read_best_moments,
    read_llp,
    read_vggsound,
    read_vggsounder,
)
from avgas_pipeline.data.builder import VGGSound
from avgas_pipeline.data.clips import load_clips
from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.data.report import SkipReport, read_report
from avgas_pipeline.loaders.sounds import VGGSOUND_LABELS


def reasons(path):
    return {entry["clip"]: entry["reason"] for entry in read_report(path)}


def stream(data_dir, **config):
    builder = VGGSound(data_dir=str(data_dir), **config)
    return {
        example["id"]: example for split in ("train", "test") for example in builder.as_streaming_dataset(split)
    }, builder


# -- loading --------------------------------------------------------------------------------------------------------


def test_folder_and_shards_give_the_same_examples(folder, shards):
    from_folder, _ = stream(folder)
    from_shards, _ = stream(shards)
    assert set(from_folder) == set(from_shards) == set(GOOD)
    for name, (label, split) in GOOD.items():
        example = from_folder[name]
        assert example == from_shards[name]
        assert (example["label"], example["labels"], example["split"]) == (label, [label], split)
        assert example["label_index"] == VGGSOUND_LABELS.index(label)


def test_examples_hold_sound_and_a_frame(folder):
    for example in stream(folder)[0].values():
        waveform = load_audio(example["audio"])
        assert abs(len(waveform) / 16000 - 3.0) < 0.1 and example["duration"] == pytest.approx(len(waveform) / 16000)
        image = PIL.Image.open(io.BytesIO(example["image"]))
        assert image.format == "JPEG" and image.size == (96, 64)
        # The middle, not the black beginning.
        assert 1.0 < example["frame_s"] < 2.0 and np.asarray(image).std() > 20


def test_every_skipped_clip_is_named_with_its_reason(folder, shards, tmp_path):
    _, builder = stream(folder, report=str(tmp_path / "folder.jsonl"))
    assert reasons(tmp_path / "folder.jsonl") == BAD
    assert str(builder.skipped) == (
        "8 skipped: broken 2, missing 1, no picture 1, no sound 1, silent 1, still picture 1, too short 1"
    )
    stream(shards, report=str(tmp_path / "shards.jsonl"))
    found = reasons(tmp_path / "shards.jsonl")
    assert found.pop("../../escape/zzzzzzzzzzz_000000.mp4") == "unsafe path"
    assert found.pop("vggsound_01.tar.gz") == "damaged shard"
    # A stream can't know what is missing in the part that was lost.
    assert found == {name: reason for name, reason in BAD.items() if reason != "missing"}


def test_prepared_data_equals_the_stream(folder, tmp_path):
    builder = VGGSound(data_dir=str(folder), cache_dir=str(tmp_path))
    builder.download_and_prepare()
    streamed, _ = stream(folder)
    for split in ("train", "test"):
        prepared = builder.as_dataset(split)
        assert {row["id"]: row for row in prepared} == {n: e for n, e in streamed.items() if e["split"] == split}


def test_best_moments_choose_the_frame(folder, tmp_path):
    moments = {"a_b_c_d_e_f_120000_130000": [22, *range(9)], "zzzzzzzzzzz_0_10000": [2, 27, *range(8)]}
    (tmp_path / "moments.json").write_text(json.dumps(moments))
    examples, _ = stream(folder, moments=str(tmp_path / "moments.json"))
    assert examples["a_b_c_d_e_f_000120"]["frame_s"] == pytest.approx(2.2, abs=0.05)
    # Moment 2 is in the black beginning.
    assert examples["zzzzzzzzzzz_000000"]["frame_s"] == pytest.approx(2.7, abs=0.05)
    plain, _ = stream(folder)
    assert plain["0bC_ef-hij__000030"] == examples["0bC_ef-hij__000030"]


def test_other_annotations_through_the_same_interface(folder):
    entries = [
        ClipEntry("zzzzzzzzzzz_000000", ("cat meowing", "thunder"), "test"),
        ClipEntry("a_b_c_d_e_f_000120", ("Speech", "Dog"), "test"),
    ]
    builder = VGGSound(data_dir=str(folder), entries=entries)
    examples = {example["id"]: example for example in builder.as_streaming_dataset("test")}
    assert examples["zzzzzzzzzzz_000000"]["labels"] == ["cat meowing", "thunder"]
    assert examples["a_b_c_d_e_f_000120"]["label_index"] == -1


def test_clips_make_mixtures_with_their_own_frames(folder, tmp_path):
    builder = VGGSound(data_dir=str(folder), cache_dir=str(tmp_path))
    builder.download_and_prepare()
    mixture = MixtureSampler(builder.as_dataset("train"), num_sources=2, target="collage").sample(0)
    assert len(mixture.stems) == 2 and mixture.image.size == (128, 128)


@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_nodes_and_workers_see_every_clip_once(kind, request):
    data = VGGSound(data_dir=str(request.getfixturevalue(kind))).as_streaming_dataset("train")
    expected = sorted(name for name, (_, split) in GOOD.items() if split == "train")
    seen = [row["id"] for rank in range(2) for row in split_dataset_by_node(data, rank, 2)]
    assert sorted(seen) == expected
    loader = DataLoader(data, num_workers=2, batch_size=None)
    assert sorted(row["id"] for row in loader) == expected


@pytest.mark.parametrize("damage", ["between", "header", "overwritten"])
def test_damaged_headers_end_a_shard_with_a_report(damage, clips, tmp_path):
    write_csv(tmp_path)
    path = tmp_path / "vggsound_00.tar"
    with tarfile.open(path, "w") as archive:
        add(archive, "a_b_c_d_e_f_000120.mp4", clips["a_b_c_d_e_f_000120"])
        second = archive.offset
        add(archive, "0bC_ef-hij__000030.mp4", clips["0bC_ef-hij__000030"])
    data = bytearray(path.read_bytes())
    if damage == "overwritten":
        data[second : second + 512] = b"\xff" * 512
    path.write_bytes(data if damage == "overwritten" else data[: second + (100 if damage == "header" else 0)])
    examples, builder = stream(tmp_path)
    assert set(examples) == {"a_b_c_d_e_f_000120"}
    assert builder.skipped.counts["damaged shard"] >= 1


def test_a_film_that_does_not_say_how_long_it_is(tmp_path):
    from avgas_pipeline.data.video import read_video_clip

    plain, live = io.BytesIO(make_clip(3)), tmp_path / "live.mkv"
    with av.open(plain) as source, av.open(str(live), "w", format="matroska", options={"live": "1"}) as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    assert read_video_clip(live).frame_s > 1.0


@pytest.mark.slow
def test_streaming_keeps_memory_flat(tmp_path):
    one = make_clip(0)
    names = [f"{number:011d}_000000" for number in range(2000)]
    with tarfile.open(tmp_path / "vggsound_00.tar.gz", "w:gz", compresslevel=1) as archive:
        for name in names:
            add(archive, f"video/{name}.mp4", one)
    (tmp_path / "vggsound.csv").write_text("".join(f"{name[:11]},0,thunder,train\n" for name in names))
    script = textwrap.dedent(f"""
        import resource
        from avgas_pipeline.data.builder import VGGSound
        rows = iter(VGGSound(data_dir={str(tmp_path)!r}).as_streaming_dataset("train"))
        for _ in range(50):
            next(rows)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        count = 50 + sum(1 for _ in rows)
        print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """)
    count, growth_kib = map(int, run_python(script, tmp_path).split())
    assert count == 2000
    assert growth_kib < 300 * 1024


def test_videos_beside_an_archive(clips, tmp_path):
    """One of them is in both."""
    write_csv(tmp_path)
    for name in ("a_b_c_d_e_f_000120", "0bC_ef-hij__000030"):
        (tmp_path / f"{name}.mp4").write_bytes(clips[name])
    with tarfile.open(tmp_path / "more.tar", "w") as archive:
        for name in ("__9O4XZOge4_000030", "a_b_c_d_e_f_000120"):
            add(archive, f"{name}.mp4", clips[name])
    (tmp_path / "stray.tar.gz").write_bytes(b"junk")
    builder = VGGSound(data_dir=str(tmp_path))
    found = [row["id"] for row in builder.as_streaming_dataset("train")]
    assert sorted(found) == sorted(name for name, (_, split) in GOOD.items() if split == "train")
    assert builder.skipped.counts == {"damaged shard": 1}


@pytest.mark.parametrize("is_archive", [False, True])
def test_files_named_as_audiosets_segments(clips, tmp_path, is_archive):
    entries = [ClipEntry(name, ("dog barking",), "test") for name in ("a_b_c_d_e_f_000120", "zzzzzzzzzzz_000000")]
    # The last one begins at 1000 s, and no second 1 is asked for.
    names = ("a_b_c_d_e_f_120000", "zzzzzzzzzzz_0", "zzzzzzzzzzz_1000")
    content = clips["a_b_c_d_e_f_000120"]
    if is_archive:
        with tarfile.open(tmp_path / "segments.tar", "w") as archive:
            for name in names:
                add(archive, f"{name}.mp4", content)
    else:
        for name in names:
            (tmp_path / f"{name}.mp4").write_bytes(content)
    rows = VGGSound(data_dir=str(tmp_path), entries=entries).as_streaming_dataset("test")
    assert sorted(row["id"] for row in rows) == [entry.id for entry in entries]


def test_bad_folders_and_tables(tmp_path):
    with pytest.raises(ValueError, match="data_dir"):
        VGGSound().as_streaming_dataset("train")
    with pytest.raises(FileNotFoundError):
        VGGSound(data_dir=str(tmp_path / "gone")).as_streaming_dataset("train")


# -- annotations ----------------------------------------------------------------------------------------------------


def test_clip_names_of_every_spelling():
    for name in ("---g-f_I2yQ_000001", "---g-f_I2yQ_1", "---g-f_I2yQ_1_11", "---g-f_I2yQ_1000_11000"):
        assert parse_clip_name(name) == "---g-f_I2yQ_000001"
    assert parse_clip_name("a_b_c_d_e_f_000120") == "a_b_c_d_e_f_000120"
    for name in ("holiday", "---g-f_I2yQ", "tooshort_000001", "---g-f_I2yQ_00000x"):
        assert parse_clip_name(name) is None


def test_vggsound_csv_with_and_without_header(tmp_path):
    plain = read_vggsound(write_csv(tmp_path))
    assert plain == read_vggsound(write_csv(tmp_path, header=True))
    assert len(plain) == len(GOOD) + len(BAD)
    assert ClipEntry("__9O4XZOge4_000030", ("female speech, woman speaking",), "train") in plain


def test_vggsound_test_csv(tmp_path):
    (tmp_path / "test.csv").write_text("---g-f_I2yQ_000001.mp4,people marching\n")
    assert read_vggsound(tmp_path / "test.csv") == [ClipEntry("---g-f_I2yQ_000001", ("people marching",), None)]


def test_bad_csv_lines_are_named(tmp_path):
    for line, message in {
        "---g-f_I2yQ,1,unicorn singing,test": "none of VGGSound's labels",
        "---g-f_I2yQ,soon,thunder,test": "not a clip",
        "---g-f_I2yQ": "not a clip",
        "bad,1,thunder,test": "not the name",
        "zzzzzzzzzzz,0.5,thunder,train": "starts at 0.5 s, and before at 0 s",
    }.items():
        (tmp_path / "x.csv").write_text(f"zzzzzzzzzzz,0,thunder,train\n{line}\n")
        with pytest.raises(ValueError, match=rf"x\.csv, line 2.*{message}"):
            read_vggsound(tmp_path / "x.csv")


def test_both_shapes_of_best_moments(tmp_path):
    frames = [47, 46, 45, 23, 42, 9, 44, 56, 27, 17]
    moments = {"9fhhMaXTraI_44000_54000": frames}
    boxes = {"9fhhMaXTraI_44000_54000": [12, 30, 200, 180]}
    for content in (moments, [boxes, moments]):
        (tmp_path / "m.json").write_text(json.dumps(content))
        assert read_best_moments(tmp_path / "m.json") == {"9fhhMaXTraI_000044": [frame / 10 for frame in frames]}
    (tmp_path / "m.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="no best moments"):
        read_best_moments(tmp_path / "m.json")


VGGSOUNDER = """video_id,label,modality,background_music,static_image,voice_over
---g-f_I2yQ_000001,people marching,AV,False,False,False
---g-f_I2yQ_000001,orchestra,A,False,False,False
---g-f_I2yQ_000001,people crowd,AV,False,False,False
zzzzzzzzzzz_000000,cat meowing,AV,True,False,False
zzzzzzzzzzz_000000,thunder,AV,True,False,False
a_b_c_d_e_f_000120,dog barking,AV,False,False,False
"""


def test_vggsounder_with_its_flags(tmp_path):
    (tmp_path / "v.csv").write_text(VGGSOUNDER)
    both = read_vggsounder(tmp_path / "v.csv", min_labels=2)
    assert {entry.id: entry.labels for entry in both} == {
        "---g-f_I2yQ_000001": ("people marching", "people crowd"),
        "zzzzzzzzzzz_000000": ("cat meowing", "thunder"),
    }
    calm = read_vggsounder(tmp_path / "v.csv", min_labels=2, background_music=False)
    assert [entry.id for entry in calm] == ["---g-f_I2yQ_000001"]
    audible = read_vggsounder(tmp_path / "v.csv", modalities=("A", "AV"))
    assert read_vggsounder(tmp_path / "v.csv", modalities="AV") == read_vggsounder(tmp_path / "v.csv")
    with pytest.raises(ValueError, match="modalities"):
        read_vggsounder(tmp_path / "v.csv", modalities=("X",))
    assert len(audible) == 3 and audible[0].labels == ("people marching", "orchestra", "people crowd")
    (tmp_path / "v.csv").write_text("video_id,label\nx,y\n")
    with pytest.raises(ValueError, match="line 1: needs the columns"):
        read_vggsounder(tmp_path / "v.csv")


def test_vggsounder_says_what_it_leaves_out_and_what_else_is_heard(tmp_path):
    flags = ["TRUE,false,0", "1,0,0", "False,FALSE,0"]
    rows = [VGGSOUNDER.splitlines()[0]]
    for name, flag in zip(("aaaaaaaaaaa_000000", "bbbbbbbbbbb_000000", "ccccccccccc_000000"), flags, strict=True):
        rows += [f"{name},{label},{modality},{flag}" for label, modality in LABELS]
    rows += ["ddddddddddd_000000,thunder,V,0,0,0", "no clip,thunder,AV,0,0,0", "no clip,raining,AV,0,0,0"]
    (tmp_path / "v.csv").write_text("\n".join(rows) + "\n")
    left_out = SkipReport()
    (entry,) = read_vggsounder(tmp_path / "v.csv", background_music=False, left_out=left_out)
    assert entry.id == "ccccccccccc_000000" and entry.labels == ("dog barking", "thunder")
    assert entry.also_heard == ("raining",)
    assert left_out.counts == {
        "flagged background_music": 2,
        "fewer than 1 labels": 1,
        "not the name of a clip": 1,
    }
    for cell, words in (("V,yes,0,0", "background_music has to be true or false"), ("B,0,0,0", "modality has to be")):
        (tmp_path / "v.csv").write_text("\n".join([*rows, f"eeeeeeeeeee_000000,thunder,{cell}"]))
        with pytest.raises(ValueError, match=rf"v\.csv, line {len(rows) + 1}: {words}"):
            read_vggsounder(tmp_path / "v.csv")


LABELS = (("dog barking", "AV"), ("raining", "A"), ("thunder", "AV"), ("wind noise", "V"))


def test_llp_and_audioset_strong(tmp_path):
    (tmp_path / "llp.csv").write_text("filename\tevent_labels\nBjCEufrlXm4_20_30\tSpeech,Dog\n")
    assert read_llp(tmp_path / "llp.csv", "test") == [ClipEntry("BjCEufrlXm4_000020", ("Speech", "Dog"), "test")]
    (tmp_path / "strong.tsv").write_text(
        "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
        "s9d-2nhuJCQ_30000\t2.6\t3.0\t/m/05zppz\n"
        "s9d-2nhuJCQ_30000\t4.0\t5.0\t/m/0bt9lr\n"
        "s9d-2nhuJCQ_30000\t6.0\t7.0\t/m/0bt9lr\n"
    )
    (tmp_path / "names.tsv").write_text("/m/05zppz\tMale speech, man speaking\n/m/0bt9lr\tDog\n")
    (entry,) = read_audioset_strong(tmp_path / "strong.tsv", tmp_path / "names.tsv")
    assert entry == ClipEntry("s9d-2nhuJCQ_000030", ("Male speech, man speaking", "Dog"), "eval")
    with pytest.raises(ValueError, match="needs the columns"):
        read_llp(tmp_path / "strong.tsv")
    for read, header in ((read_llp, "filename\tevent_labels"), (read_audioset_strong, "segment_id\tlabel")):
        (tmp_path / "other.tsv").write_text(f"{header}\nno clip\tDog\nno clip\tCat\n")
        left_out = SkipReport()
        assert read(tmp_path / "other.tsv", left_out=left_out) == []
        assert left_out.counts == {"not the name of a clip": 1}


@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_training_reads_it_whole(kind, request, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    clips, pictures = load_clips(request.getfixturevalue(kind))
    assert pictures is None
    assert sorted(clips["id"]) == sorted(name for name, (_, split) in GOOD.items() if split == "train")
    mixture = MixtureSampler(clips, duration_s=2.0, target="collage").sample(0)
    assert mixture.waveform.shape == (32000,)
    assert mixture.image.size == (128, 128)


def test_training_notices_that_the_folder_changed(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    shutil.copytree(folder, tmp_path / "data")
    before = load_clips(tmp_path / "data")[0]["id"]
    next((tmp_path / "data").rglob(f"*{before[0]}*")).unlink()
    assert sorted(load_clips(tmp_path / "data")[0]["id"]) == sorted(before[1:])
