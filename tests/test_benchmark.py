"""`avgas benchmark`: published annotations, natural recordings, and numbers as they are worked out by hand."""

import json
import subprocess
import sys

import forked
import numpy as np
import pytest
import soundfile
import soxr
from launching import two_processes
from training_runs import environment
from typer.testing import CliRunner
from vggsound_tree import make_clip

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.audio.loading import load_audio
from avgas_pipeline.cli import app
from avgas_pipeline.data.label_names import vggsound_label
from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.data.soundscapes_mini import find_soundscapes_mini, load_soundscapes_mini


CATEGORIES = ("dog", "rooster", "frog", "cat", "sea_waves", "church_bells", "sheep", "footsteps")
HEADER = "video_id,label,modality,background_music,static_image,voice_over"


@pytest.fixture(scope="module")
def sounds():
    return load_soundscapes_mini(find_soundscapes_mini(), "test")[0]


@pytest.fixture(scope="module")
def esc50(sounds, tmp_path_factory):
    """Forty clips, five of each category; what footsteps are called nobody knows, so these are tones."""
    folder = tmp_path_factory.mktemp("esc50")
    (folder / "audio").mkdir()
    (folder / "meta").mkdir()
    labels = list(sounds["label"])
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for target, category in enumerate(CATEGORIES):
        label = vggsound_label(category.replace("_", " "), "esc50")
        found = [row for row, each in enumerate(labels) if each == label]
        for number in range(5):
            if label is None:
                wave = 0.2 * np.sin(np.arange(32000) * (0.1 + 0.01 * number))
            else:
                wave = load_audio(sounds[found[number % len(found)]]["audio"], target_sampling_rate=16000)
            # As ESC-50 has it: five seconds, with silence after what is shorter.
            wave = np.pad(wave[:80000], (0, max(80000 - len(wave), 0)))
            name = f"{number + 1}-{1000 * target + number}-A-{target}.wav"
            soundfile.write(folder / "audio" / name, wave, 16000)
            rows.append(f"{name},{number + 1},{target},{category},False,{1000 * target + number},A")
    (folder / "meta/esc50.csv").write_text("\n".join(rows) + "\n")
    return folder


def benchmark(*arguments):
    return CliRunner().invoke(app, ["benchmark", *map(str, arguments)])


@pytest.mark.slow
def test_esc50(esc50, tmp_path):
    result = benchmark("esc50", "--videos", esc50, "--out", tmp_path / "report", "--no-draw")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert report["data"]["num_soundscapes"] == 35
    assert report["data"]["left_out"] == {"a label that VGGSound has no word for": 5}
    assert report["data"]["unmapped"] == {"footsteps": 5}
    # By hand: each clip by itself, as anybody would hear it.
    pipe = AVGASPipeline.from_pretrained("avgas-mini")
    right, false = [], []
    for line in (esc50 / "meta/esc50.csv").read_text().splitlines()[1:]:
        name, _, _, category, *_ = line.split(",")
        label = vggsound_label(category.replace("_", " "), "esc50")
        if label is None:
            continue
        wave = load_audio(esc50 / "audio" / name, target_sampling_rate=16000)
        found = [source.label for source in pipe.separate_audio({"array": wave, "sampling_rate": 16000})[0]]
        named = {each for each in found if each is not None}
        right.append(label in named)
        false.append(len(named - {label}))
    shown = report["results"]["sound"]["avgas-mini"]
    assert shown["label_recall"]["value"] == pytest.approx(np.mean(right), abs=0.03)
    assert shown["false_labels"]["value"] == pytest.approx(np.mean(false), abs=0.06)
    text = (tmp_path / "report/report.md").read_text()
    assert "esc50: " in text and "footsteps (5 clips)" in text and "Left out: " in text


@pytest.fixture(scope="module")
def vggsounder(sounds, tmp_path_factory):
    """Thirty clips of two or three sources, and annotations in the release's own form."""
    folder = tmp_path_factory.mktemp("vggsounder")
    sampler = MixtureSampler(sounds, None, num_sources=2, duration_s=3.0, target=None)
    rows = [HEADER]
    for number in range(30):
        mixture = sampler.render(sampler.plan(number, num_sources=3 if number % 3 == 0 else 2))
        name = f"clip{number:07d}_{10 * number:06d}"
        wave = soxr.resample(mixture.waveform, mixture.sampling_rate, 44100).astype(np.float32)
        (folder / f"{name}.mp4").write_bytes(make_clip(number, wave=wave))
        for label in mixture.labels:
            quoted = f'"{label}"' if "," in label else label
            music = number == 28
            rows.append(f"{name},{quoted},AV,{music},{number == 29},False")
        rows.append(f"{name},thunder,A,{number == 28},{number == 29},False")
    # One of a single label, and one that nobody has any more.
    rows += ["onlyone0000_000010,dog barking,AV,False,False,False"]
    rows += [f"gonegone000_000010,{label},AV,False,False,False" for label in ("dog barking", "cat meowing")]
    (folder / "vggsounder.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_vggsounder(vggsounder, tmp_path):
    out = tmp_path / "report"
    command = ("vggsounder", "--videos", vggsounder, "--out", out, "--no-draw", "--workers", 1)
    result = benchmark(*command)
    assert result.exit_code == 0, result.output
    report = json.loads((out / "report.json").read_text())
    data = report["data"]
    assert data["num_soundscapes"] == 28 and data["left_out"] == {"fewer than 2 labels": 1, "missing": 1}
    assert data["selection"]["modalities"] == ["AV"] and data["selection"]["background_music"] is False
    assert "28 clips count, 1 can't be used" in result.stderr and "report.jsonl" in result.stderr
    assert report["num_sources"] == {"2": 18, "3": 10}
    split = report["by_num_sources"]["sound"]
    values = json.loads((out / "values.json").read_text())["sound"]["avgas-mini"]["label_recall"]
    recall = {count: split[count]["avgas-mini"]["label_recall"]["value"] for count in ("2", "3")}
    mean = (18 * recall["2"] + 10 * recall["3"]) / 28
    assert report["results"]["sound"]["avgas-mini"]["label_recall"]["value"] == pytest.approx(mean)
    assert np.mean(values) == pytest.approx(mean)
    text = (out / "report.md").read_text()
    assert "By number of sources:" in text and "| avgas-mini, 3 of 10 |" in text and "modalities AV" in text
    # Again, it goes on where it was: nothing is decoded or heard twice.
    before = (out / "clips/prepare.json").stat().st_mtime_ns, (out / "report.json").read_bytes()
    shards = {path: path.stat().st_mtime_ns for path in (out / "clips").glob("*.parquet")}
    assert benchmark(*command).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
    assert (out / "report.json").read_bytes() == before[1]


@pytest.mark.slow
@pytest.mark.parametrize("launched", ["killed once", "two processes"])
def test_killed_or_shared_the_numbers_are_the_same(vggsounder, tmp_path, launched):
    own = ["-m", "avgas_pipeline", "benchmark", "vggsounder", "--videos", str(vggsounder), "--no-draw"]
    own += ["--workers", "1", "--device", "cpu", "--batch-size", "2", "--out"]
    assert benchmark(*own[3:], tmp_path / "whole").exit_code == 0
    out = tmp_path / "again"
    command = [sys.executable, *(two_processes() if launched == "two processes" else []), *own, str(out)]
    if launched == "killed once":
        forked.kill_once(command, lambda: len(list((out / "systems").rglob("*.json"))) >= 4)
        assert not (out / "report.md").exists()
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("28 clips count") == 1
    reports = [json.loads((folder / "report.json").read_text()) for folder in (tmp_path / "whole", out)]
    for row, other in zip(*(report["results"]["sound"]["avgas-mini"].values() for report in reports), strict=True):
        assert row["value"] == pytest.approx(other["value"], abs=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "vggsounder.csv").unlink(), "no such file; it has vggsounder's annotations"),
        (lambda folder: (folder / "vggsounder.csv").write_text("video,label\nx,y\n"), "needs the columns"),
        (lambda folder: (folder / "vggsounder.csv").write_text(HEADER + "\n"), "has not one clip that counts"),
        (lambda folder: [path.unlink() for path in folder.glob("*.mp4")], "holds no videos"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, change, words):
    rows = [HEADER] + [f"gonegone000_000010,{label},AV,False,False,False" for label in ("dog barking", "cat meowing")]
    (tmp_path / "vggsounder.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "gonegone000_000010.mp4").write_bytes(make_clip(0))
    change(tmp_path)
    result = benchmark("vggsounder", "--videos", tmp_path, "--out", tmp_path / "report", "--no-draw")
    assert result.exit_code == 2 and words in result.stderr and "Traceback" not in result.output
    assert not (tmp_path / "report").exists()


def test_wrong_options(tmp_path):
    result = benchmark("esc50", "--videos", tmp_path / "gone", "--out", tmp_path / "report", "--no-draw")
    assert result.exit_code == 2 and "no such folder" in result.stderr
    result = benchmark("vggsounder", "--videos", tmp_path, "--out", tmp_path / "report")
    assert result.exit_code == 2 and "--judge" in result.stderr
    result = benchmark("esc51", "--videos", tmp_path, "--out", tmp_path / "report")
    assert result.exit_code == 2 and "esc50" in result.stderr
