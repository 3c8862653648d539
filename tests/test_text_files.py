"""Annotations and manifests that are damaged, or in another encoding: one line with the file and the line."""

import json
import re

import pytest
import soundfile
from test_cli import fails_with_one_line
from tiny import tiny_audio
from typer.testing import CliRunner

from avgas_pipeline.cli import app
from avgas_pipeline.data.annotations import (
    ClipEntry,
    read_audioset_strong,
    read_best_moments,
    read_llp,
    read_vggsound,
    read_vggsounder,
)
from avgas_pipeline.data.plans import MixturePlan, SourcePlan, read_manifest, write_manifest
from avgas_pipeline.data.report import SkipReport, read_report
from avgas_pipeline.evaluation.soundscapes import RecordingSet


ROW = "zzzzzzzzzzz,0,thunder,train\n"
MOMENTS = {"zzzzzzzzzzz_0_10000": list(range(10))}
SOURCE = SourcePlan("clip", "thunder", None, 0.0, "once", 0.0, 0.0, 1)
PLAN = MixturePlan("mixture", 1.0, [SOURCE])
LINE = json.dumps(
    {"id": "mixture", "duration_s": 1.0, "sources": [vars(SOURCE)], "scene_seed": 0, "augment": False}
).encode()
RECORDING = b'{"audio": "here.wav", "labels": ["thunder"]}'
READERS = {
    "vggsound.csv": (read_vggsound, ROW.encode()),
    "moments.json": (read_best_moments, json.dumps(MOMENTS).encode()),
    "manifest.jsonl": (read_manifest, LINE),
    "recordings.jsonl": (RecordingSet, RECORDING),
    "vggsounder.csv": (
        read_vggsounder,
        b"video_id,label,modality,background_music,static_image,voice_over\nzzzzzzzzzzz_000000,a,AV,False,False,False\n",
    ),
    "llp.csv": (read_llp, b"filename\tevent_labels\nBjCEufrlXm4_20_30\tSpeech,Dog\n"),
    "strong.tsv": (read_audioset_strong, b"segment_id\tlabel\nBjCEufrlXm4_20000\tDog\n"),
}


def refused(reader, path, content, *words):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        reader(path)
    message = str(error.value)
    message.encode()
    assert "\n" not in message and len(message) < 500
    for word in words:
        assert word in message


@pytest.fixture(params=READERS)
def file(request, tmp_path):
    soundfile.write(tmp_path / "here.wav", tiny_audio()[0], 16000)
    return (*READERS[request.param], tmp_path / request.param)


def test_a_byte_order_mark_is_no_content(file):
    reader, good, path = file
    path.write_bytes(good)
    plain = reader(path)
    path.write_bytes(b"\xef\xbb\xbf" + good.replace(b"\n", b"\r\n"))
    marked = reader(path)
    assert getattr(marked, "rows", marked) == getattr(plain, "rows", plain)


def test_other_encodings_are_refused(file):
    reader, good, path = file
    for encoding in ("utf-16", "utf-16-be", "utf-16-le", "utf-32"):
        refused(reader, path, good.decode().encode(encoding), "save it as UTF-8")
    refused(reader, path, good.rstrip() + b"\n\xff", f"line {good.rstrip().count(10) + 2}", "not in UTF-8")
    refused(reader, path, good.rstrip() + b"\n\0", f"line {good.rstrip().count(10) + 2}", "NUL")


@pytest.mark.parametrize("name", ["moments.json", "manifest.jsonl", "recordings.jsonl"])
@pytest.mark.parametrize("bad", [b"[" * 100_000, b'["\\ud800"]', b'{"a":', b"1" * 5000, b"[]", b"3", b"null"])
def test_json_that_can_not_be_used(name, bad, tmp_path):
    reader, good = READERS[name]
    soundfile.write(tmp_path / "here.wav", tiny_audio()[0], 16000)
    if name == "moments.json":
        refused(reader, tmp_path / name, bad)
    else:
        refused(reader, tmp_path / name, good + b"\n" + bad, "line 2")


@pytest.mark.parametrize(
    "row",
    [
        *(f"zzzzzzzzzzz,{start},thunder,train" for start in ("nan", "inf", "1e999", "-1", "1e300", "soon", "")),
        f"zzzzzzzzzzz_{'9' * 5000},thunder",
        f'"{"a" * 200_000}",0,thunder,train',
        '"zzzzzzzzzzz,0,thunder,train',
        "zzzzzzzzzzz,0,thunder,../train",
        "zzzzzzzzzzz",
    ],
    ids=lambda row: row[:30],
)
def test_bad_rows_of_vggsound(row, tmp_path):
    # A cell of two lines, and a blank one, so that rows and lines are counted apart.
    refused(read_vggsound, tmp_path / "v.csv", f'zzzzzzzzzzz,0,"thunder\n",train\n\n{row}\n'.encode(), "line 4")


@pytest.mark.parametrize("frame", ["NaN", "1e999", "-1", "true", '"3"', "1" + 400 * "0", "null"])
def test_bad_frame_numbers_are_named(frame, tmp_path):
    good, bad = "[0,1,2,3,4,5,6,7,8,9]", f"[0,1,2,3,4,5,6,7,8,{frame}]"
    content = f'{{"aaaaaaaaaaa_0_10000": {good}, "zzzzzzzzzzz_0_10000": {bad}}}'
    refused(read_best_moments, tmp_path / "m.json", content.encode(), "zzzzzzzzzzz_0_10000", "frame numbers")


@pytest.mark.parametrize(
    "change",
    [
        *(("gain_db", value) for value in ("NaN", "Infinity", "1e999", "1e300", "1" + 400 * "0", "true", '"3"')),
        *(("duration_s", value) for value in ("NaN", "-Infinity", "1e999", "1e9", "0", "1" + 400 * "0", "[1]")),
        *((name, value) for name in ("start_s", "offset_s") for value in ("NaN", "-1.0", "1e999", "null")),
        *((name, value) for name in ("seed", "scene_seed") for value in ("-1", "1.5", '"a"', "true")),
        *((name, value) for name in ("id", "clip", "label") for value in ("3", "null", '["a"]', '{"a": 1}')),
        ("augment", '"yes"'),
        ("picture", "3"),
        ("placement", '["once"]'),
        ("sources", '"abc"'),
        ("sources", "[null]"),
    ],
    ids=lambda change: f"{change[0]}={change[1][:12]}",
)
def test_values_that_no_mixture_has(change, tmp_path):
    name, value = change
    old = {**vars(PLAN), **vars(SOURCE), "sources": [vars(SOURCE)]}[name]
    line = LINE.replace(f'"{name}": {json.dumps(old)}'.encode(), f'"{name}": {value}'.encode(), 1)
    assert line != LINE
    refused(read_manifest, tmp_path / "m.jsonl", LINE + b"\n" + line, "line 2", "not a mixture", name)


def test_separators_of_unicode_end_no_line(tmp_path):
    plan = MixturePlan("one\u2028two\x85three", 1.0, [SOURCE])
    write_manifest([plan], tmp_path / "m.jsonl")
    assert read_manifest(tmp_path / "m.jsonl") == [plan]
    report = SkipReport(tmp_path / "report.jsonl")
    report.add("one\u2028two \udcff", "damaged shard")
    assert read_report(tmp_path / "report.jsonl")[0]["clip"] == "one\u2028two \\udcff"


def test_rows_with_missing_cells_are_named(tmp_path):
    header = b"video_id,label,modality,background_music,static_image,voice_over\n"
    refused(read_vggsounder, tmp_path / "v.csv", header + b"zzzzzzzzzzz_000000,a\n", "line 2", "2 cells")
    refused(read_llp, tmp_path / "l.csv", b"filename\tevent_labels\nBjCEufrlXm4_20_30\n", "line 2", "1 cells")
    refused(read_audioset_strong, tmp_path / "s.tsv", b"", "needs the columns")
    strong = "segment_id\tlabel\nBjCEufrlXm4_²\tDog\nBjCEufrlXm4_" + "9" * 5000 + "\tDog\nBjCEufrlXm4_20000\tDog\n"
    (tmp_path / "s.tsv").write_text(strong, encoding="utf-8")
    assert read_audioset_strong(tmp_path / "s.tsv") == [ClipEntry("BjCEufrlXm4_000020", ("Dog",), "eval")]


def test_recordings_have_to_be_files(tmp_path):
    (tmp_path / "here.wav").mkdir()
    (tmp_path / "list.jsonl").write_bytes(RECORDING)
    with pytest.raises(FileNotFoundError, match=r"line 1: .*here\.wav: no such file"):
        RecordingSet(tmp_path / "list.jsonl")


def test_the_command_ends_with_one_line(tmp_path):
    def prepare(*options):
        return CliRunner().invoke(app, ["prepare", str(tmp_path), "--out", str(tmp_path / "out"), *options])

    (tmp_path / "zzzzzzzzzzz_000000.mp4").touch()
    (tmp_path / "vggsound.csv").write_text(ROW, encoding="utf-16")
    fails_with_one_line(prepare(), "vggsound.csv: is in UTF-16")
    (tmp_path / "vggsound.csv").write_text("zzzzzzzzzzz,1e999,thunder,train\n")
    fails_with_one_line(prepare(), "vggsound.csv, line 1", "1e999")
    (tmp_path / "vggsound.csv").write_text("ytid,start,class,set\n")
    fails_with_one_line(prepare(), "vggsound.csv: has not one annotated clip")
    (tmp_path / "vggsound.csv").write_text(ROW)
    (tmp_path / "moments.json").write_text("[" * 100_000)
    fails_with_one_line(prepare("--moments", str(tmp_path / "moments.json")), "moments.json", "nested too deep")
