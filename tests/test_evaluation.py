"""`avgas evaluate`: one report over several systems; interrupted and shared."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import forked
import numpy as np
import PIL.Image
import pytest
import soundfile
import torch
from evaluation_data import DATA, arguments, drawn, fails, report_of, run, write_evaluation_inputs
from launching import two_processes
from tiny import tiny_audio

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.data.plans import read_manifest
from avgas_pipeline.evaluation import (
    DrawingSettings,
    ImageFolderSystem,
    PipelineSystem,
    load_evaluation_set,
    processes,
)
from avgas_pipeline.evaluation.drawing_folder import DrawingFolder, draw_all
from avgas_pipeline.evaluation.scoring import score_separated, targets
from avgas_pipeline.metrics import class_representation_score, load_judge, recall_at_k


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Read-only by convention."""
    return write_evaluation_inputs(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture(scope="module")
def dataset(inputs):
    return load_evaluation_set(DATA, inputs, inputs / "manifest.jsonl")


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    """A report over all kinds of systems; read-only by convention."""
    out = tmp_path_factory.mktemp("whole")
    options = ["--baseline", "oracle", "--baseline", "single-embedding", "--ablate", "no-masks"]
    result = run(inputs, out, *options)
    assert result.exit_code == 0, result.output
    return out


# -- the report -----------------------------------------------------------------------------------------------------


def test_report_compares_all_systems_and_anchors(whole):
    report = report_of(whole)
    assert list(report["systems"]) == ["model", "oracle", "single-embedding", "no-masks"]
    assert all(system["weights_sha256"] for system in report["systems"].values())
    anchors = ["real scene", "collage", "single class", "random classes"]
    systems = list(report["systems"])
    assert list(report["results"]["mixed"]) == [*systems, *anchors]
    assert list(report["differences"]["mixed"]) == [*systems[1:], *anchors]
    for row in report["results"]["mixed"].values():
        crs = row["crs"]
        assert 0 <= crs["low"] <= crs["value"] <= crs["high"] <= 1 and crs["count"] == 6
    assert list(report["results"]["separated"]) == [*systems, "single classes", "real scene"]
    assert "si_sdri_db" in report["results"]["sound"]["model"]
    assert report["results"]["sound"]["no-masks"]["si_sdri_db"]["value"] is None
    # Six soundscapes are too few for some numbers, which is said.
    assert report["gate"] == [] and report["too_few"]["the validity gate"] == 30 and report["too_few"]["KID"] == 100
    assert report["judge"]["weights_sha256"] and report["data"]["sha256"]
    # The oracle is told how many sources there are.
    assert report["results"]["sound"]["oracle"]["count_accuracy"]["value"] is None
    # Nor is it any surer than what it heard.
    records = [json.loads(path.read_text()) for path in (whole / "systems/oracle").rglob("records.json")]
    scores = [
        max(score for other, score in zip(drawing["labels"], drawing["label_scores"], strict=True) if other == label)
        for batch in records
        for drawing in batch
        for label in set(drawing["labels"])
    ]
    assert max(scores) < 1.0
    assert sum(one["score"] * one["count"] for one in report["reliability"]["oracle"]) == pytest.approx(sum(scores))


def test_values_are_those_of_the_metrics_on_the_images_written(whole, inputs, dataset):
    judge = load_judge(inputs / "judge", dataset.labels)
    images = ImageFolderSystem("model", whole / "systems/model", len(dataset))
    judgement = judge([images.drawing(number).mixed for number in range(len(dataset))])
    target = torch.zeros(len(dataset), len(judge.labels))
    for number in range(len(dataset)):
        target[number, [judge.labels.index(label) for label in dataset.true_labels(number)]] = 1
    values = json.loads((whole / "values.json").read_text())["mixed"]["model"]
    assert values["crs"] == pytest.approx(class_representation_score(judgement.class_mass, target).tolist())
    assert values["recall_strict"] == pytest.approx(recall_at_k(judgement.scores, target, 2).tolist())
    result = report_of(whole)["results"]["mixed"]["model"]["crs"]
    assert result["value"] == pytest.approx(np.mean(values["crs"]))


def test_difference_is_paired_and_from_the_first_system(whole):
    values = json.loads((whole / "values.json").read_text())["mixed"]
    difference = np.array(values["model"]["crs"]) - np.array(values["oracle"]["crs"])
    entry = report_of(whole)["differences"]["mixed"]["oracle"]["crs"]
    assert entry["value"] == pytest.approx(difference.mean(), abs=1e-9)


def test_tables_and_samples_can_be_looked_at(whole):
    text = (whole / "report.md").read_text()
    for title in (
        "## Sources found",
        "## Mixed images",
        "## Separated images",
        "| model |",
        "R@2*",
        "KID needs 100",
        "the validity gate needs 30",
    ):
        assert title in text
    with PIL.Image.open(whole / "samples.png") as image:
        assert image.width > 800 and image.height > 800


@pytest.mark.parametrize("threshold", [0.35, 1.0])
def test_unknown_sounds_are_in_reports_and_samples(inputs, tmp_path, threshold):
    AVGASPipeline.from_pretrained(inputs / "model", label_threshold=threshold).save_pretrained(tmp_path / "model")
    result = run(inputs, tmp_path / "out", model=tmp_path / "model")
    assert result.exit_code == 0, result.output
    records = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("systems/*/*/records.json")]
    labels = [label for batch in records for drawing in batch for label in drawing["labels"]]
    assert None in labels and (threshold == 1.0) == (set(labels) == {None})
    with PIL.Image.open(tmp_path / "out/samples.png") as image:
        assert image.width > 300


def test_same_noise_for_every_system_and_batch(inputs, dataset):
    settings = DrawingSettings(num_inference_steps=2, seed=3)
    system = PipelineSystem("model", str(inputs / "model"), settings)
    soundscapes = [dataset[number] for number in range(2)]
    together = system.draw(soundscapes, [0, 1])
    alone = [system.draw([soundscapes[number]], [number])[0] for number in range(2)]
    for first, second in zip(together, alone, strict=True):
        difference = np.asarray(first.mixed, dtype=int) - np.asarray(second.mixed, dtype=int)
        assert np.abs(difference).max() <= 1
        assert first.labels == second.labels
        assert first.slot_scores == pytest.approx(second.slot_scores, abs=1e-5)
        assert first.si_sdri_db == pytest.approx(second.si_sdri_db, abs=1e-2)


def test_system_draws_what_the_pipeline_draws(inputs, dataset):
    settings = DrawingSettings(num_inference_steps=2, seed=3)
    drawing = PipelineSystem("model", str(inputs / "model"), settings).draw([dataset[1]], [1])[0]
    pipe = AVGASPipeline.from_pretrained(inputs / "model")
    output = pipe(
        dataset[1].waveform,
        sampling_rate=16000,
        separate=True,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(4),
    )
    assert drawing.labels == [source.label for source in output.sources[0]]
    assert np.array_equal(np.asarray(drawing.mixed), np.asarray(output.images[0]))
    for image, source in zip(drawing.separated, output.sources[0], strict=True):
        assert np.array_equal(np.asarray(image), np.asarray(source.images[0]))


def test_oracle_is_given_the_clean_sources(inputs, dataset):
    settings = DrawingSettings(num_inference_steps=2)
    system = PipelineSystem("oracle", str(inputs / "model"), settings, oracle=True)
    soundscapes = [dataset[number] for number in range(2)]
    drawings = system.draw(soundscapes, [0, 1])
    pipe = AVGASPipeline.from_pretrained(inputs / "model")
    for drawing, soundscape in zip(drawings, soundscapes, strict=True):
        assert len(drawing.separated) == 2
        expected = [pipe.separate_audio(stem, 16000, num_sources=1)[0][0].label for stem in soundscape.stems]
        assert drawing.labels == drawing.drawn_labels == expected


def test_an_oracle_of_unknown_stems_says_what_each_picture_is_of(inputs, dataset, tmp_path):
    found = PipelineSystem("oracle", str(inputs / "model"), DrawingSettings(draw=False), oracle=True)
    scores = sorted(source.label_score for number in range(6) for source in stems_of(found.pipe, dataset[number]))
    threshold = (scores[5] + scores[6]) / 2
    AVGASPipeline.from_pretrained(inputs / "model", label_threshold=threshold).save_pretrained(tmp_path / "model")
    system = PipelineSystem("oracle", str(tmp_path / "model"), DrawingSettings(2), oracle=True)
    drawings = system.draw([dataset[number] for number in range(6)], range(6))
    judge = load_judge(inputs / "judge", dataset.labels)
    own = []
    for number, drawing in enumerate(drawings):
        stems = stems_of(system.pipe, dataset[number])
        assert drawing.drawn_labels == [source.label for source in stems] and len(drawing.separated) == 2
        assert drawing.label_scores == pytest.approx([source.certainty for source in stems], abs=1e-5)
        highest = judge(drawing.separated).class_mass.argmax(dim=1).tolist()
        own.append(np.mean([judge.labels[highest[place]] == source.label for place, source in enumerate(stems)]))
    assert sum(drawing.labels.count(None) for drawing in drawings) == 6
    assert any(None in drawing.labels and any(drawing.labels) for drawing in drawings)
    images, labels = zip(*((drawing.separated, drawing.drawn_labels) for drawing in drawings), strict=True)
    values = score_separated(images, labels, targets(dataset, judge.labels), judge)["own_label"].values
    assert values.tolist() == pytest.approx(own)


def stems_of(pipe, soundscape):
    """What the pipeline finds in each of a soundscape's stems."""
    return [pipe.separate_audio(stem, 16000, num_sources=1)[0][0] for stem in soundscape.stems]


def test_soundscapes_without_a_source_are_drawn_and_counted(inputs, tmp_path):
    result = run(inputs, tmp_path, presence_threshold=1.0)
    assert result.exit_code == 0, result.output
    report = report_of(tmp_path)
    assert report["no_source"] == {"model": 6}
    for key in ("count_accuracy", "label_recall", "label_any", "label_recall_by_group"):
        assert report["results"]["sound"]["model"][key]["value"] == 0.0
    assert report["results"]["sound"]["model"]["si_sdri_db"]["value"] == 0.0
    assert "the most probable one was drawn: model 6" in (tmp_path / "report.md").read_text()


def test_only_finding_sources_needs_no_judge(inputs, tmp_path):
    result = run(inputs, tmp_path, "--no-draw", judge=None)
    assert result.exit_code == 0, result.output
    report = report_of(tmp_path)
    assert list(report["results"]) == ["sound"]
    assert [path.name for path in tmp_path.rglob("*.png")] == ["reliability.png"]
    with PIL.Image.open(tmp_path / "reliability.png") as image:
        assert image.width == image.height > 400
    bins = report["reliability"]["model"]
    error = sum(one["count"] * abs(one["score"] - one["right"]) for one in bins) / sum(one["count"] for one in bins)
    assert report["sets"]["model"]["calibration_error"] == pytest.approx(error, abs=1e-6)


def test_a_closed_set_rules_other_labels_out(inputs, dataset):
    few = ("cow lowing", "raining")
    soundscapes = [dataset[number] for number in range(4)]
    settings = DrawingSettings(2, draw=False)
    free, closed = (
        PipelineSystem("model", str(inputs / "model"), each) for each in (settings, replace(settings, closed_set=few))
    )
    given = [
        {label for drawing in system.draw(soundscapes, range(4)) for label in drawing.labels}
        for system in (free, closed)
    ]
    assert given[0] - set(few) and given[1] <= set(few) and given[1]
    assert free.fingerprint()["weights_sha256"] == closed.fingerprint()["weights_sha256"]
    none = PipelineSystem("model", str(inputs / "model"), replace(settings, closed_set=("a whisper",)))
    with pytest.raises(ValueError, match="none of the labels"):
        none.draw(soundscapes[:1], [0])


def test_a_closed_set_from_the_command_line(inputs, tmp_path):
    assert run(inputs, tmp_path, "--no-draw", "--closed-set", judge=None).exit_code == 0
    assert len(report_of(tmp_path)["systems"]["model"]["closed_set"]) == 59
    fails(run(inputs, tmp_path, "--no-draw", judge=None), "another evaluation")


def test_folder_of_images_scores_like_the_system_that_drew_them(inputs, whole, tmp_path):
    flat = tmp_path / "mine"
    flat.mkdir()
    for path in (whole / "systems/model").rglob("*.png"):
        shutil.copy(path, flat)
    result = run(inputs, tmp_path / "out", images=f"mine={flat}", model=None)
    assert result.exit_code == 0, result.output
    theirs, ours = report_of(tmp_path / "out"), report_of(whole)
    assert theirs["results"]["mixed"]["mine"] == ours["results"]["mixed"]["model"]
    assert theirs["results"]["separated"]["mine"]["sep_recall"] == ours["results"]["separated"]["model"]["sep_recall"]
    assert "sound" not in theirs["results"]


def test_manifest_is_drawn_once_and_written(inputs, tmp_path):
    options = {"manifest": None, "num_mixtures": 2, "num_sources": 3, "model": inputs / "model"}
    assert run(inputs, tmp_path, "--no-draw", judge=None, **options).exit_code == 0
    plans = read_manifest(tmp_path / "manifest.jsonl")
    assert [len(plan.sources) for plan in plans] == [3, 3]
    assert report_of(tmp_path)["settings"]["top_k"] == 3


def test_long_recordings_have_the_sources_that_the_pipeline_finds(inputs, tmp_path):
    noisy = np.concatenate([tiny_audio(1.3, seed)[0] for seed in range(4)])
    soundfile.write(tmp_path / "long.wav", noisy, 16000)
    (tmp_path / "list.jsonl").write_text(json.dumps({"audio": "long.wav", "labels": ["raining"]}))
    recordings = load_evaluation_set(tmp_path / "list.jsonl", tmp_path)
    for name in ("model", "single-embedding"):
        drawing = PipelineSystem(name, str(inputs / name), DrawingSettings(2)).draw([recordings[0]], [0])[0]
        pipe = AVGASPipeline.from_pretrained(inputs / name)
        assert drawing.labels == [source.label for source in pipe.separate_audio(tmp_path / "long.wav")[0]]


def test_natural_recordings(inputs, tmp_path):
    soundfile.write(tmp_path / "pond.wav", tiny_audio(2.0)[0], 16000)
    rows = [{"id": "pond", "audio": "pond.wav", "labels": ["raining", "thunder"]}]
    rows += [{"id": name, "audio": "pond.wav", "labels": ["raining"], "source_group": "lake"} for name in "ab"]
    (tmp_path / "recordings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run(inputs, tmp_path / "out", "--no-draw", data=tmp_path / "recordings.jsonl", manifest=None, judge=None)
    assert result.exit_code == 0, result.output
    measured = report_of(tmp_path / "out")["results"]["sound"]["model"]
    assert measured["label_recall"]["count"] == 3 and measured["label_recall_by_group"]["count"] == 2


def test_recordings_are_judged_and_closed_over_the_labels_that_they_have(inputs, tmp_path):
    soundfile.write(tmp_path / "pond.wav", tiny_audio(2.0)[0], 16000)
    data = tmp_path / "recordings.jsonl"
    data.write_text(json.dumps({"audio": "pond.wav", "labels": ["raining", "thunder"]}) + "\n")
    # The judge knows 59 of the vocabulary's 309 labels, these among them.
    result = run(inputs, tmp_path / "out", "--closed-set", data=data, manifest=None)
    assert result.exit_code == 0, result.output
    report = report_of(tmp_path / "out")
    assert report["systems"]["model"]["closed_set"] == ["raining", "thunder"] and report["data"]["num_labels"] == 2
    records = [json.loads(path.read_text()) for path in (tmp_path / "out").rglob("records.json")]
    assert {label for batch in records for drawing in batch for label in drawing["labels"]} <= {"raining", "thunder"}
    data.write_text(json.dumps({"audio": "pond.wav", "labels": ["a whisper"]}) + "\n")
    fails(run(inputs, tmp_path / "no", data=data, manifest=None), "this judge does not know 'a whisper'")


def test_one_mixture_has_no_anchor_of_other_classes(inputs, tmp_path):
    (tmp_path / "one.jsonl").write_text((inputs / "manifest.jsonl").read_text().splitlines()[0])
    result = run(inputs, tmp_path / "out", manifest=tmp_path / "one.jsonl")
    assert result.exit_code == 0, result.output
    rows = report_of(tmp_path / "out")["results"]["mixed"]
    assert "collage" in rows and "random classes" not in rows


# -- interrupted and shared -----------------------------------------------------------------------------------------


def test_processes_share_what_is_missing(inputs, dataset, tmp_path):
    system = PipelineSystem("model", str(inputs / "model"), DrawingSettings(draw=False))
    folder = DrawingFolder(tmp_path, len(dataset), 1)
    missing = [range(number, number + 1) for number in (0, 2, 4)]
    state = SimpleNamespace(num_processes=2, is_main_process=False, wait_for_everyone=lambda: None)
    # Whatever the other one has drawn by now.
    for process, drawn_now in ((0, [0, 4]), (1, [0, 2, 4])):
        draw_all(system, dataset, folder, missing, SimpleNamespace(process_index=process, **vars(state)))
        assert sorted(int(path.parent.name) for path in tmp_path.glob("*/records.json")) == drawn_now
    assert folder.missing() == [range(number, number + 1) for number in (1, 3, 5)]


def test_processes_wait_while_the_first_one_decodes_for_hours(monkeypatch):
    asked = {}
    monkeypatch.setattr(processes, "PartialState", lambda **options: asked.update(options))
    processes.shared_state(cpu=True)
    assert asked["cpu"] and asked["timeout"] >= timedelta(days=1)


def environment():
    root = Path(__file__).parent
    return {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_killed_and_run_again(inputs, whole, tmp_path):
    options = ["--baseline", "oracle", "--baseline", "single-embedding", "--ablate", "no-masks"]
    command = [sys.executable, "-m", "avgas_pipeline", *arguments(inputs, tmp_path, *options)]
    forked.kill_once(command, lambda: len(drawn(tmp_path)) >= 4)
    # A batch may have been half written.
    before = {path: data for path, data in drawn(tmp_path).items() if ".partial-" not in path}
    assert 3 <= len(before) < 12
    # What a process leaves that was killed in the middle of a batch.
    (tmp_path / "systems/model/.partial-0-00000").mkdir()
    (tmp_path / "systems/model/.partial-0-00000/00000.png").write_bytes(b"half")

    assert run(inputs, tmp_path, *options).exit_code == 0
    after = drawn(tmp_path)
    assert len(after) == 12
    assert {path: after[path] for path in before} == before
    for name in ("report.json", "report.md", "values.json", "samples.png"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
    assert not list(tmp_path.rglob(".partial-*"))

    assert run(inputs, tmp_path, *options).exit_code == 0
    assert drawn(tmp_path) == after


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(inputs, whole, tmp_path):
    options = ["--baseline", "oracle", "--baseline", "single-embedding", "--ablate", "no-masks"]
    command = [
        *(sys.executable, *two_processes(), "-m", "avgas_pipeline"),
        *arguments(inputs, tmp_path, "--device", "cpu", *options),
    ]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "2 processes share the drawing" in result.stderr
    shared, alone = report_of(tmp_path), report_of(whole)
    for task, rows in alone["results"].items():
        for name, row in rows.items():
            for key, interval in row.items():
                for part, value in interval.items():
                    assert shared["results"][task][name][key][part] == pytest.approx(value, abs=1e-6)


def test_another_evaluation_in_the_folder_is_left_alone(inputs, whole):
    before = drawn(whole)
    fails(run(inputs, whole, seed=1), "holds another evaluation", "settings")
    assert drawn(whole) == before


def test_other_mixtures_are_noticed(inputs, whole, tmp_path):
    lines = (inputs / "manifest.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "other.jsonl").write_text("".join(lines[::-1]))
    before = (whole / "manifest.jsonl").read_bytes()
    fails(run(inputs, whole, manifest=tmp_path / "other.jsonl"), "holds another evaluation (other data)")
    assert (whole / "manifest.jsonl").read_bytes() == before
