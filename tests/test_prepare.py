import json
import shutil
import subprocess
import sys
import tarfile

import forked
import pytest
from dataset_layouts import make_sound, to_parquet, write
from datasets import Audio, Value, load_dataset
from filelock import FileLock
from test_cli import fails_with_one_line
from typer.testing import CliRunner
from vggsound_tree import BAD, GOOD, add, write_folder, write_shards

from avgas_pipeline.cli import app
from avgas_pipeline.data.builder import VGGSound
from avgas_pipeline.data.cached import load_cached
from avgas_pipeline.data.layouts.vggsound import vggsound_layout
from avgas_pipeline.data.prepare import PrepareSettings
from avgas_pipeline.data.prepare import prepare as prepare_in_python
from avgas_pipeline.data.report import read_report


def prepare(data, out, *options):
    command = ["prepare", data, "--out", out, "--clips-per-shard", "3", "--workers", "2", *options]
    return CliRunner().invoke(app, list(map(str, command)))


def contents(out):
    """Everything that was written."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_mistyped_folder_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    result = CliRunner().invoke(app, ["prepare", "mydata/nowhere", "--out", str(tmp_path / "shards")])
    assert result.exit_code == 2 and "Traceback" not in result.output
    assert "mydata/nowhere: is no folder here" in result.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared")
    result = prepare(folder, out)
    assert result.exit_code == 0, result.output
    return out


def streamed(folder):
    builder = VGGSound(data_dir=str(folder))
    return {row["id"]: row for split in ("train", "test") for row in builder.as_streaming_dataset(split)}


def test_parquet_shards_hold_what_the_stream_gives(folder, prepared):
    loaded = load_dataset(str(prepared))
    assert set(loaded) == {"train", "test"}
    assert {row["id"]: row for table in loaded.values() for row in table} == streamed(folder)


def test_webdataset_shards_hold_what_the_stream_gives(folder, tmp_path):
    assert prepare(folder, tmp_path, "--format", "webdataset").exit_code == 0
    loaded = load_dataset(str(tmp_path))
    rows = {row["__key__"].removeprefix("clip_"): row for table in loaded.values() for row in table}
    expected = streamed(folder)
    assert set(rows) == set(GOOD)
    for name, row in rows.items():
        assert row["jpg"] == expected[name]["image"]
        assert row["flac"] == expected[name]["audio"]
        assert row["json"]["labels"] == expected[name]["labels"]


def test_archives_give_the_same_examples_as_the_folder(prepared, shards, tmp_path):
    assert prepare(shards, tmp_path).exit_code == 0
    tables = [load_dataset(str(path)) for path in (prepared, tmp_path)]
    first, second = ({row["id"]: row for table in loaded.values() for row in table} for loaded in tables)
    assert first == second


def test_report_names_what_was_skipped(prepared, shards, tmp_path):
    assert {entry["clip"]: entry["reason"] for entry in read_report(prepared / "report.jsonl")} == BAD
    result = prepare(shards, tmp_path)
    assert "damaged shard 1" in result.output and "unsafe path 1" in result.output


def test_a_second_run_does_nothing_again(folder, tmp_path):
    prepare(folder, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")}
    first = contents(tmp_path)
    assert prepare(folder, tmp_path).exit_code == 0
    assert contents(tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")} == before


@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_killed_and_run_again_gives_the_same_bytes(kind, request, tmp_path):
    data = request.getfixturevalue(kind)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert prepare(data, whole).exit_code == 0
    command = [sys.executable, "-m", "avgas_pipeline", "prepare", data, "--out", killed]
    command += ["--clips-per-shard", "3", "--workers", "1"]
    forked.kill_once(command, lambda: list(killed.glob("done/[!.]*.json")))
    finished = [path.stem for path in killed.glob("done/[!.]*.json")]
    assert finished and not (killed / "report.jsonl").exists()
    stamps = {path: path.stat().st_mtime_ns for name in finished for path in killed.glob(f"*-{name}.parquet")}
    # What a process leaves that was killed in the middle of a write, or just before the end of one.
    (killed / ".partial-1-train-00000-00000.parquet").write_bytes(b"half")
    (killed / f"done/.partial-2-{finished[0]}.json").write_bytes((killed / f"done/{finished[0]}.json").read_bytes())

    result = prepare(data, killed)
    assert result.exit_code == 0, result.output

    assert contents(killed) == contents(whole)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_other_data_in_the_same_folder_is_refused(clips, tmp_path):
    data = write_folder(tmp_path, clips)
    out = tmp_path / "out"
    assert prepare(data, out).exit_code == 0
    (data / "vggsound.csv").write_text((data / "vggsound.csv").read_text().replace("dog barking", "cat meowing"))
    fails_with_one_line(prepare(data, out), "other settings or data (inputs)")


def test_clips_in_two_archives_and_in_none_are_reported(clips, tmp_path):
    shards = write_shards(tmp_path / "data", clips)
    (shards / "vggsound_00.tar.gz").rename(shards / "vggsound_00b.tar.gz")
    (shards / "vggsound_01.tar.gz").unlink()
    (shards / "vggsound_00a.tar.gz").write_bytes((shards / "vggsound_00b.tar.gz").read_bytes())
    assert prepare(shards, tmp_path / "out").exit_code == 0
    report = {entry["clip"]: entry["reason"] for entry in read_report(tmp_path / "out/report.jsonl")}
    assert report["a_b_c_d_e_f_000120"] == "duplicate" and report["missing0000_000010"] == "missing"


def test_one_clip_counts_once_whatever_archives_it_is_in(clips, tmp_path):
    """In one of them it is broken, in two it is good."""
    shards = write_shards(tmp_path / "data", clips)
    good = (shards / "vggsound_00.tar.gz").read_bytes()
    (shards / "vggsound_00b.tar.gz").write_bytes(good)
    with tarfile.open(shards / "a.tar", "w") as archive:
        add(archive, "a_b_c_d_e_f_000120.mp4", b"broken")
    for kind in ("parquet", "webdataset"):
        out = tmp_path / kind
        assert prepare(shards, out, "--format", kind).exit_code == 0
        rows = [row for split in ("train", "test") for row in load_cached(out, split=split)]
        ids = [row["id"] if kind == "parquet" else row["json"]["id"] for row in rows]
        assert sorted(ids) == sorted(GOOD)
        told = [(entry["clip"], entry["reason"]) for entry in read_report(out / "report.jsonl")]
        assert ("a_b_c_d_e_f_000120", "duplicate") in told and ("a_b_c_d_e_f_000120", "broken") not in told
        first = contents(out)
        assert prepare(shards, out, "--format", kind).exit_code == 0 and contents(out) == first


def test_a_broken_clip_is_told_though_a_good_one_has_its_id(tmp_path):
    folder = tmp_path / "data"
    for split, content in (("train", make_sound(1)), ("test", b"RIFF nothing")):
        write(folder / split / "1.wav", content)
        write(folder / split / "metadata.csv", "file_name,id,label\n1.wav,same,dog\n")
    assert "1 skipped: broken 1" in prepare(folder, tmp_path / "metadata").output
    features = {"id": Value("string"), "audio": Audio(), "label": Value("string")}
    media = [{"bytes": content, "path": "a.wav"} for content in (make_sound(1), b"RIFF nothing")]
    to_parquet({"id": ["same"] * 2, "audio": media, "label": ["dog"] * 2}, features, tmp_path / "rows/train.parquet")
    # Whose second row is another clip.
    assert "1 skipped: duplicate 1" in prepare(tmp_path / "rows", tmp_path / "table").output


def test_two_runs_at_once_do_not_meet(folder, tmp_path):
    with FileLock(tmp_path / ".lock"):
        fails_with_one_line(prepare(folder, tmp_path), "another run")


@pytest.mark.slow
def test_ray_gives_the_same_bytes(folder, prepared, tmp_path):
    command = [sys.executable, "-m", "avgas_pipeline", "prepare", folder, "--out", tmp_path / "out"]
    command += ["--clips-per-shard", "3", "--engine", "ray"]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert contents(tmp_path / "out") == contents(prepared)


@pytest.mark.parametrize(("option", "choices"), [("format", ("parquet", "webdataset")), ("engine", ("local", "ray"))])
def test_unknown_choices_are_refused_with_the_known_ones(folder, tmp_path, option, choices):
    result = prepare(folder, tmp_path / "out", f"--{option}", "steam")
    assert result.exit_code == 2
    assert f"--{option}" in result.stderr and all(choice in result.stderr for choice in choices)
    settings = PrepareSettings(**({"format": "steam"} if option == "format" else {}))
    with pytest.raises(ValueError, match=f"`{option}` .*one of .*{choices[1]}"):
        prepare_in_python(
            vggsound_layout(folder), settings, tmp_path / "out", **({"engine": "steam"} if option == "engine" else {})
        )
    assert not (tmp_path / "out").exists()


def test_an_older_folder_is_gone_on_with(folder, prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "out")
    noted = json.loads((tmp_path / "out/prepare.json").read_text())
    # There were always pictures of films.
    assert noted.pop("pictures") == "film"
    (tmp_path / "out/prepare.json").write_text(json.dumps(noted))
    result = prepare(folder, tmp_path / "out")
    assert result.exit_code == 0, result.output


def test_bad_input_is_one_line(folder, prepared, tmp_path):
    out = tmp_path / "out"
    fails_with_one_line(prepare(tmp_path / "gone", out), "gone")
    fails_with_one_line(prepare(folder, prepared, "--image-size", "64"), "other settings or data (image_size)")
    (tmp_path / "bad.csv").write_text("zzzzzzzzzzz,0,unicorn singing,train\n")
    fails_with_one_line(prepare(folder, out, "--csv", tmp_path / "bad.csv"), "bad.csv, line 1", "unicorn singing")
    (tmp_path / "empty.csv").write_text("")
    fails_with_one_line(prepare(folder, out, "--csv", tmp_path / "empty.csv"), "not one annotated clip")
    assert json.loads((prepared / "prepare.json").read_text())["image_size"] == 256
