"""`avgas benchmark`: published annotations, natural recordings, and numbers as they are worked out by hand."""

import json
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import forked
import numpy as np
import pytest
import soundfile
import soxr
from dataset_layouts import make_sound, to_tar, write
from filelock import FileLock
from launching import two_processes
from tiny import save_tiny_judge, save_tiny_model
from training_runs import environment
from typer.testing import CliRunner
from vggsound_tree import make_clip

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.audio.loading import load_audio
from avgas_pipeline.cli import app
from avgas_pipeline.data.label_names import vggsound_label
from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.data.soundscapes_mini import find_soundscapes_mini, load_soundscapes_mini
from avgas_pipeline.evaluation.benchmarks import LabelledClips, LeftOut, Selection, choose_clips, decode_clips
from avgas_pipeline.evaluation.drawings import Drawing
from avgas_pipeline.evaluation.encoding import _presence
from avgas_pipeline.evaluation.report import _selection
from avgas_pipeline.evaluation.scoring import (
    label_calibration,
    presence_average_precision,
    score_sound,
    values_by_key,
)
from avgas_pipeline.evaluation.soundscapes import Soundscape
from avgas_pipeline.loaders.sounds import VGGSOUND_LABELS


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
    options = ("--no-draw", "--batch-size", 1, "--device", "cpu")
    result = benchmark("esc50", "--videos", esc50, "--out", tmp_path / "report", *options)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert report["data"]["num_soundscapes"] == 35
    assert report["data"]["left_out"] == {"a label that VGGSound has no word for": 5}
    assert report["data"]["unmapped"] == {"footsteps": 5}
    # By hand: each clip by itself, as anybody would hear it.
    pipe = AVGASPipeline.from_pretrained("avgas-mini")
    expected = {"label_recall": [], "false_labels": [], "first_label": [], "count_accuracy": []}
    for line in (esc50 / "meta/esc50.csv").read_text().splitlines()[1:]:
        name, _, _, category, *_ = line.split(",")
        label = vggsound_label(category.replace("_", " "), "esc50")
        if label is None:
            continue
        wave = load_audio(esc50 / "audio" / name, target_sampling_rate=16000)
        found = pipe.separate_audio({"array": wave, "sampling_rate": 16000})[0]
        named = [source for source in found if source.label is not None]
        first = max(named, key=lambda source: source.certainty, default=None)
        expected["label_recall"].append(label in {source.label for source in named})
        expected["false_labels"].append(len({source.label for source in named} - {label}))
        expected["first_label"].append(first is not None and first.label == label)
        expected["count_accuracy"].append(len(found) == 1)
    shown = report["results"]["sound"]["avgas-mini"]
    for name, values in expected.items():
        assert shown[name]["value"] == pytest.approx(np.mean(values)), name
    assert shown["label_recall"]["value"] > 0.5
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
    flagged = {"flagged background_music": 1, "flagged static_image": 1}
    assert data["num_soundscapes"] == 28
    assert data["left_out"] == {**flagged, "fewer than 2 labels": 1, "missing": 1}
    flags = {"background_music": False, "static_image": False, "voice_over": False}
    assert data["selection"] == {"min_labels": 2, "modalities": ["AV"], **flags}
    assert "28 clips count, 1 can't be used" in result.stderr and "left_out.jsonl names" in result.stderr
    left_out = [json.loads(line) for line in (out / "left_out.jsonl").read_text().splitlines()]
    assert Counter(each["reason"] for each in left_out) == data["left_out"]
    pair = ["dog barking", "cat meowing"]
    assert {"id": "gonegone000_000010", "reason": "missing", "labels": pair} in left_out
    assert {"id": "onlyone0000_000010", "reason": "fewer than 2 labels", "labels": pair[:1]} in left_out
    assert [len(each["labels"]) for each in left_out if "flagged" in each["reason"]] == [3, 3]
    assert report["num_sources"] == {"2": 18, "3": 10}
    split = report["by_num_sources"]["sound"]
    values = json.loads((out / "values.json").read_text())["sound"]["avgas-mini"]["label_recall"]
    recall = {count: split[count]["avgas-mini"]["label_recall"]["value"] for count in ("2", "3")}
    mean = (18 * recall["2"] + 10 * recall["3"]) / 28
    assert report["results"]["sound"]["avgas-mini"]["label_recall"]["value"] == pytest.approx(mean)
    assert np.mean(values) == pytest.approx(mean)
    text = (out / "report.md").read_text()
    assert "By number of sources:" in text and "| avgas-mini, 3 of 10 |" in text and "modalities AV" in text
    assert "count neither for nor against" in text
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
    result = benchmark("llp", "--videos", tmp_path, "--out", tmp_path / "report", "--no-draw", "--modality", "A")
    assert result.exit_code == 2 and "--modality is not for llp" in result.stderr


@pytest.mark.parametrize(
    ("name", "selection", "option"),
    [
        ("llp", {"modalities": ("AV",)}, "--modality"),
        ("audioset-strong", {"static_image": True}, "--static-image"),
        ("esc50", {"voice_over": True}, "--voice-over"),
        ("esc50", {"names": "names.tsv"}, "--names"),
        ("vggsounder", {"names": "names.tsv"}, "--names"),
    ],
)
def test_selections_that_annotations_can_not_tell(tmp_path, name, selection, option):
    with pytest.raises(ValueError, match=f"{option} is not for {name}"):
        choose_clips(name, tmp_path, None, Selection(**selection))


def test_the_report_says_what_applies(tmp_path):
    write(tmp_path / "AVVP_test_pd.csv", "filename\tevent_labels\nabcdefghijk_10_20\tDog,Cat\nno clip\tDog,Cat\n")
    write(tmp_path / "abcdefghijk_10_20.mp4", make_clip(1))
    clips = labelled("llp", tmp_path)
    data = clips.describe()
    assert data["selection"] == {"min_labels": 2} and data["left_out"] == {"not the name of a clip": 1}
    assert clips.left_out() == [LeftOut("no clip", "not the name of a clip", ("Dog", "Cat"))]
    assert "some may only be seen" in _selection(data)[0] and "background" not in _selection(data)[0]


def test_llps_labels_are_what_is_heard(tmp_path):
    """A row for every event: the dog barks twice, and the car is only seen."""
    save_tiny_model(tmp_path / "model", [vggsound_label(name, "llp") for name in ("Dog", "Cat")] + ["raining"])
    union = "filename\tevent_labels\nabcdefghijk_10_20\tDog,Cat,Car\n"
    events = "filename\tonset\toffset\tevent_labels\n"
    events += "".join(
        f"abcdefghijk_10_20\t{start}\t10\t{label}\n" for start, label in ((0, "Dog"), (5, "Dog"), (3, "Cat"))
    )
    for name, text in (("AVVP_test_pd.csv", union), ("AVVP_eval_audio.csv", events), ("AVVP_eval_visual.csv", events)):
        write(tmp_path / name, text)
    write(tmp_path / "abcdefghijk_10_20.mp4", make_clip(1))
    options = ("--videos", tmp_path, "--no-draw", "--workers", 1, "--model", tmp_path / "model")
    result = benchmark("llp", "--out", tmp_path / "report", *options)
    assert result.exit_code == 0 and "warning" not in result.stderr
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert report["num_sources"] == {"2": 1} and report["data"]["note"] is None
    result = benchmark("llp", "--out", tmp_path / "no", "--annotations", tmp_path / "AVVP_eval_visual.csv", *options)
    assert result.exit_code == 2 and "AVVP_eval_audio.csv says what is heard" in result.stderr
    # The table of both is taken, but not for what it is not.
    write(tmp_path / "AVVP_test_pd.csv", union.replace(",Car", ""))
    result = benchmark("llp", "--out", tmp_path / "union", "--annotations", tmp_path / "AVVP_test_pd.csv", *options)
    assert result.exit_code == 0 and "warning: These annotations do not say which labels are heard" in result.stderr
    assert "some may only be seen" in (tmp_path / "union/report.md").read_text()


def test_machine_ids_need_their_names(tmp_path):
    rows = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
    rows += "".join(f"abcdefghijk_10000\t0\t1\t{label}\n" for label in ("/m/0bt9lr", "/t/dd00088", "/g/11b630rrvh"))
    write(tmp_path / "audioset_eval_strong.tsv", rows)
    write(tmp_path / "abcdefghijk_10.mp4", make_clip(1))
    names = tmp_path / "names.tsv"
    with pytest.raises(ValueError, match="line 2: '/m/0bt9lr' is a machine id; give --names mid"):
        choose_clips("audioset-strong", tmp_path)
    for text, words in (
        (
            "/m/0bt9lr\tDog\n/t/dd00088\tCat\n",
            r"line 4: '/g/11b630rrvh' is a machine id; .*\.tsv has no name",
        ),
        ("/m/0bt9lr,Dog\n", r"names\.tsv, line 1: needs two columns"),
    ):
        write(names, text)
        with pytest.raises(ValueError, match=words):
            choose_clips("audioset-strong", tmp_path, None, Selection(names=str(names)))
    write(names, "/m/0bt9lr\tDog\n/t/dd00088\tCat\n/g/11b630rrvh\tFrog\n")
    chosen = choose_clips("audioset-strong", tmp_path, None, Selection(names=str(names)))
    assert chosen.annotated == {"abcdefghijk_000010": ("Dog", "Cat", "Frog")}


def labelled(name, folder, selection=None, pictures=True):
    selection = selection or Selection()
    chosen = choose_clips(name, folder, selection=selection)
    decode_clips(folder, folder / "report", chosen, num_workers=1, pictures=pictures)
    return LabelledClips(name, folder, folder / "report", chosen, selection)


def test_a_judge_of_recordings_without_pictures(tmp_path):
    rows = "filename,fold,target,category,esc10,src_file,take\n1-1-A-0.wav,1,0,dog,False,1,A\n"
    write(tmp_path / "data/meta/esc50.csv", rows)
    write(tmp_path / "data/audio/1-1-A-0.wav", make_sound(1))
    save_tiny_judge(tmp_path / "judge", list(VGGSOUND_LABELS))
    out = tmp_path / "report"
    options = ("--judge", tmp_path / "judge", "--workers", 1, "--steps", 1)
    result = benchmark("esc50", "--videos", tmp_path / "data", "--out", out, *options)
    assert result.exit_code == 0, result.output
    report = json.loads((out / "report.json").read_text())
    assert report["results"]["mixed"]["avgas-mini"]["crs"]["value"] is not None
    # More clips would not make up for pictures and stems that there are not.
    assert report["too_few"] == {}
    assert report["data"]["selection"] == {"min_labels": 1}


@pytest.mark.parametrize("pictures", [True, False])
def test_still_pictures_that_are_asked_for_count(tmp_path, pictures):
    videos = {"moving": make_clip(1), "still": make_clip(2, picture="still"), "nothing": make_clip(3, picture=None)}
    rows = [HEADER]
    for name, video in videos.items():
        write(tmp_path / f"{name:_<11}_000010.mp4", video)
        rows += [f"{name:_<11}_10,{label},AV,0,{name == 'still'},0" for label in ("dog barking", "cat meowing")]
    write(tmp_path / "vggsounder.csv", "\n".join(rows) + "\n")
    clips = labelled("vggsounder", tmp_path, Selection(static_image=True), pictures)
    # Sound alone needs no picture at all.
    expected = ["moving", "still"] if pictures else ["moving", "nothing", "still"]
    assert sorted(clips[number].id[:11].strip("_") for number in range(len(clips))) == expected
    assert clips.has_pictures == pictures and all(len(clips[number].waveform) for number in range(len(clips)))
    assert clips.describe()["left_out"] == ({"no picture": 1} if pictures else {})
    if pictures:
        assert np.asarray(clips.image([clip[:5] for clip in clips._ids].index("still"))).std() > 10


@pytest.fixture
def four_kinds(tmp_path):
    """ESC-50 of four clips."""
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for number, category in enumerate(("dog", "cat", "frog", "rooster")):
        rows.append(f"1-{number}-A-0.wav,1,0,{category},False,{number},A")
        write(tmp_path / f"data/audio/1-{number}-A-0.wav", make_sound(number))
    write(tmp_path / "data/meta/esc50.csv", "\n".join(rows) + "\n")
    return tmp_path / "data"


@pytest.mark.slow
def test_clips_count_whose_labels_all_who_take_part_know(four_kinds, tmp_path):
    dog, cat, frog, rooster = (vggsound_label(name, "esc50") for name in ("dog", "cat", "frog", "rooster"))
    save_tiny_model(tmp_path / "model", [dog, cat, frog])
    save_tiny_model(tmp_path / "other", [dog, frog, rooster], num_slots=1, num_layers=0)
    save_tiny_judge(tmp_path / "judge", [cat, dog, rooster])
    options = ("--model", tmp_path / "model", "--baseline", f"single-embedding={tmp_path / 'other'}")
    options += ("--judge", tmp_path / "judge", "--workers", 1, "--steps", 1)
    result = benchmark("esc50", "--videos", four_kinds, "--out", tmp_path / "report", *options)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report/report.json").read_text())
    unknown = ("the model", "single-embedding", "the judge")
    assert report["data"]["left_out"] == {f"a label that {who} does not know": 1 for who in unknown}
    assert report["data"]["num_soundscapes"] == report["data"]["num_labels"] == 1
    assert list(report["results"]["mixed"]) == ["model", "single-embedding"]
    # Where nothing is drawn, there is nothing to judge.
    result = benchmark("esc50", "--videos", four_kinds, "--out", tmp_path / "heard", "--no-draw", *options)
    assert result.exit_code == 0, result.output
    heard = json.loads((tmp_path / "heard/report.json").read_text())["data"]
    assert heard["num_soundscapes"] == 2 and "a label that the judge does not know" not in heard["left_out"]


@pytest.mark.slow
def test_clips_of_recordings_that_a_model_was_trained_on_are_left_out(four_kinds, tmp_path):
    labels = [vggsound_label(name, "esc50") for name in ("dog", "cat", "frog", "rooster")]
    save_tiny_model(tmp_path / "model", labels)
    save_tiny_model(tmp_path / "other", labels, num_slots=1, num_layers=0)
    # The cat's recording has a second clip; a rooster's number is in one of another origin.
    table = four_kinds / "meta/esc50.csv"
    table.write_text(table.read_text() + "2-1-B-0.wav,2,0,cat,False,1,B\n")
    write(four_kinds / "audio/2-1-B-0.wav", make_sound(7))
    options = ("--videos", four_kinds, "--no-draw", "--workers", 1, "--model", tmp_path / "model")
    options += ("--baseline", f"single-embedding={tmp_path / 'other'}")
    write(tmp_path / "model/trained_on.json", json.dumps({"freesound": [1, 99], "elsewhere": [3]}))
    write(tmp_path / "other/trained_on.json", json.dumps({"freesound": ["2"]}))
    assert benchmark("esc50", "--out", tmp_path / "report", *options).exit_code == 0
    data = json.loads((tmp_path / "report/report.json").read_text())["data"]
    assert data["left_out"] == {"the model was trained on it": 2, "single-embedding was trained on it": 1}
    assert data["num_soundscapes"] == 2 and data["silent"] == []
    (tmp_path / "other/trained_on.json").unlink()
    assert benchmark("esc50", "--out", tmp_path / "again", *options).exit_code == 0
    assert "Single-embedding does not say what it was trained on" in (tmp_path / "again/report.md").read_text()
    write(tmp_path / "model/trained_on.json", json.dumps({"freesound": 1}))
    result = benchmark("esc50", "--out", tmp_path / "bad", *options)
    assert result.exit_code == 2 and "'freesound' has to be a list" in result.stderr


@pytest.mark.parametrize("fault", ["judge", "baseline"])
def test_what_draws_and_judges_is_checked_before_anything_is_decoded(four_kinds, tmp_path, fault):
    save_tiny_model(tmp_path / "model", ["dog barking"])
    save_tiny_judge(tmp_path / "judge", ["dog barking"])
    baselines = ("--baseline", f"single-embedding={tmp_path / 'model'}") if fault == "baseline" else ()
    if fault == "judge":
        config = json.loads((tmp_path / "judge/config.json").read_text())
        (tmp_path / "judge/config.json").write_text(json.dumps({**config, "architectures": ["ResNetModel"]}))
    options = ("--model", tmp_path / "model", "--judge", tmp_path / "judge", *baselines)
    result = benchmark("esc50", "--videos", four_kinds, "--out", tmp_path / "report", *options)
    words = {"judge": "neither an image classifier nor a CLIP", "baseline": "is not the 'single-embedding'"}
    assert result.exit_code == 2 and words[fault] in result.stderr
    assert not (tmp_path / "report").exists()


@pytest.fixture
def two_archives(tmp_path):
    """Two clips, each in two archives, with labels that are seen and heard and one that is only heard."""
    names = ("abcdefghijk_000010", "bbcdefghijk_000010")
    labels = (("dog barking", "AV"), ("cat meowing", "AV"), ("thunder", "A"))
    rows = [f"{name},{label},{modality},0,0,0" for name in names for label, modality in labels]
    write(tmp_path / "vggsounder.csv", "\n".join([HEADER, *rows]) + "\n")
    for archive in ("a.tar", "b.tar"):
        to_tar(tmp_path / archive, {f"{name}.mp4": make_clip(seed) for seed, name in enumerate(names)})
    return tmp_path


def test_a_clip_in_two_archives_counts_once(two_archives):
    clips = labelled("vggsounder", two_archives)
    assert sorted(clips[number].id for number in range(len(clips))) == ["abcdefghijk_000010", "bbcdefghijk_000010"]
    assert not clips.skipped.counts and clips.describe()["left_out"] == {}
    # Other processes read what the first one made, whoever holds the folder.
    with FileLock(two_archives / "report/clips/.lock"):
        again = LabelledClips("vggsounder", two_archives, two_archives / "report", clips._chosen, Selection())
    assert again.describe() == clips.describe()


def test_what_is_only_heard_counts_neither_way(two_archives):
    clips = labelled("vggsounder", two_archives)
    assert clips.true_labels(0) == ["dog barking", "cat meowing"] and clips.also_heard(0) == ["thunder"]
    assert clips[0].also_heard == ["thunder"]
    found = ["dog barking", "thunder", "cow lowing", None]
    drawing = Drawing(labels=found, label_scores=[0.9, 0.95, 0.8, 0.1], slot_scores=[0.9], slot_holds_source=[True])
    metrics = score_sound([drawing, drawing], clips).compute()
    values = {name: float(value) for name, value in metrics.items() if value.numel() == 1}
    assert values["label_precision"] == 0.5 and values["label_recall"] == 0.5
    assert values["first_label"] == 1.0 and values["false_labels"] == values["confident_false_labels"] == 1.0
    assert values["count_accuracy"] == 0.0
    assert label_calibration([drawing, drawing], clips)[0]["confident_right"] == 0.5


def test_labels_without_scores_are_neither_sure_nor_calibrated(two_archives):
    clips = labelled("vggsounder", two_archives)
    metrics = score_sound([Drawing(labels=["cow lowing", "dog barking"]), Drawing(labels=[])], clips)
    values = values_by_key(metrics)
    # Where nothing is given, there is nothing to be sure of.
    assert np.isnan(values["first_label"]).tolist() == np.isnan(values["confident_false_labels"]).tolist()
    assert values["first_label"].tolist()[1:] == values["confident_false_labels"].tolist()[1:] == [0.0]
    assert values["false_labels"].tolist() == [1.0, 0.0] and values["label_recall"].tolist() == [0.5, 0.0]
    assert np.isnan(values["first_label"][0])
    assert label_calibration([Drawing(labels=["dog barking"]), Drawing(labels=[])], clips) == ({}, [])
    # Those that have one count alone.
    scored = Drawing(labels=["cat meowing", "cow lowing"], label_scores=[0.9, 0.3])
    values, bins = label_calibration([Drawing(labels=["cow lowing"]), scored], clips)
    assert values == {"calibration_error": pytest.approx(0.2), "confident_right": 1.0}
    assert [(one["count"], one["right"]) for one in bins] == [(1, 0.0), (1, 1.0)]


def test_slots_of_what_is_only_heard_do_not_count():
    labels = ["dog barking", "cat meowing", "thunder"]
    pipe = SimpleNamespace(separator=SimpleNamespace(id2label=dict(enumerate(labels))))
    slots = [
        SimpleNamespace(score=score, class_probs=np.eye(3)[label] + 0.01)
        for score, label in ((0.9, 0), (0.8, 2), (0.7, 1), (0.1, 0))
    ]
    heard = Soundscape("a", np.zeros(1), 16000, labels[:2], also_heard=labels[2:])
    assert _presence(slots, heard, pipe) == ([0.9, 0.7, 0.1], [True, True, False])
    heard = Soundscape("a", np.zeros(1), 16000, labels[:2])
    assert _presence(slots, heard, pipe) == ([0.9, 0.8, 0.7, 0.1], [True, False, True, False])
    assert _presence(slots, Soundscape("a", np.zeros(1), 16000, []), pipe)[1] == [False] * 4


def test_a_slot_of_something_else_counts_whatever_else_is_heard():
    """Nothing heard the thunder, so no slot may be taken for it."""
    labels = ["dog barking", "cat meowing", "cow lowing", "thunder", "raining"]
    pipe = SimpleNamespace(separator=SimpleNamespace(id2label=dict(enumerate(labels))))
    slots = [
        SimpleNamespace(score=score, class_probs=np.eye(5)[label] + 0.01)
        for score, label in ((0.9, 0), (0.6, 1), (0.95, 2), (0.05, 4))
    ]
    heard = Soundscape("a", np.zeros(1), 16000, labels[:2], also_heard=["thunder", "no label of this model"])
    scores, holds = _presence(slots, heard, pipe)
    assert scores == [0.9, 0.6, 0.95, 0.05] and holds == [True, True, False, False]
    # The cow is above both: one of two right with the dog, two of three with the cat.
    drawing = Drawing(slot_scores=scores, slot_holds_source=holds)
    assert presence_average_precision([drawing]) == pytest.approx((1 / 2 + 2 / 3) / 2)
