"""`avgas benchmark` of a few clips: every number as it is worked out by hand, from what is drawn and heard of each."""

import itertools
import json
import math

import numpy as np
import PIL.Image
import pytest
from dataset_layouts import write
from tiny import LABELS, save_tiny_judge, save_tiny_model, tiny_audio
from typer.testing import CliRunner
from vggsound_tree import make_clip

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.cli import app
from avgas_pipeline.evaluation.benchmarks import LabelledClips, Selection, choose_clips
from avgas_pipeline.metrics import load_judge


# What is seen and heard, and what is heard beside it.
CLIPS = {
    "a__________": (["cat meowing"], []),
    "b__________": (["dog barking", "raining"], ["sea waves"]),
    "c__________": (["sea waves", "thunder"], ["dog barking", "cat meowing"]),
    "d__________": (["cat meowing", "dog barking", "thunder"], ["raining"]),
}
SOUND = ("label_recall", "label_precision", "false_labels", "first_label", "count_accuracy")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Videos with their annotations, a model of five labels and a judge of these; and the benchmark's `report`."""
    folder = tmp_path_factory.mktemp("benchmark")
    rows = ["video_id,label,modality,background_music,static_image,voice_over"]
    for number, (name, (labels, others)) in enumerate(CLIPS.items()):
        wave = np.repeat(tiny_audio(1.2, seed=number)[0], 3)[:44100]
        write(folder / f"{name}_000010.mp4", make_clip(number, seconds=1.0, wave=wave))
        rows += [f"{name}_10,{label},AV,0,0,0" for label in labels] + [f"{name}_10,{each},A,0,0,0" for each in others]
    write(folder / "vggsounder.csv", "\n".join(rows) + "\n")
    save_tiny_model(folder / "model", LABELS)
    save_tiny_judge(folder / "judge", LABELS)
    assert run(folder, folder / "report").exit_code == 0
    return folder


def run(folder, out, *options):
    given = {"videos": folder, "model": folder / "model", "judge": folder / "judge", "out": out}
    given |= {"min-labels": 1, "steps": 1, "workers": 1, "batch-size": 1}
    return CliRunner().invoke(
        app, ["benchmark", "vggsounder", *(f"--{name}={value}" for name, value in given.items()), *options]
    )


@pytest.fixture(scope="module")
def clips(folder):
    selection = Selection(min_labels=1)
    chosen = choose_clips("vggsounder", folder, None, selection)
    return LabelledClips("vggsounder", folder, folder / "report", chosen, selection)


@pytest.fixture(scope="module")
def values(folder):
    return json.loads((folder / "report/values.json").read_text())


def report_of(out):
    return json.loads((out / "report.json").read_text())


def test_what_is_found(folder, clips, values):
    pipe = AVGASPipeline.from_pretrained(folder / "model")
    expected = {name: [] for name in SOUND}
    for number, (labels, others) in enumerate(CLIPS.values()):
        sources = pipe.separate_audio(clips[number].waveform, 16000)[0]
        heard = [source for source in sources if source.label not in others]
        named = {source.label for source in heard}
        first = max(heard, key=lambda source: source.certainty, default=None)
        expected["label_recall"].append(len(named & set(labels)) / len(labels))
        expected["label_precision"].append(len(named & set(labels)) / len(named) if named else None)
        expected["false_labels"].append(len(named - set(labels)))
        expected["first_label"].append(float(first is not None and first.label in labels))
        expected["count_accuracy"].append(float(len(heard) == len(labels)))
    found = values["sound"]["model"]
    assert {name: found[name] for name in SOUND} == {name: pytest.approx(row) for name, row in expected.items()}
    shown = report_of(folder / "report")["results"]["sound"]["model"]
    assert shown["count_accuracy"]["value"] == pytest.approx(np.mean(expected["count_accuracy"]))
    assert shown["label_recall"]["value"] == pytest.approx(np.mean(expected["label_recall"]))


def test_presence(folder, clips):
    pipe = AVGASPipeline.from_pretrained(folder / "model")
    by_count = {}
    for number, (labels, others) in enumerate(CLIPS.values()):
        slots = pipe.separate_audio(clips[number].waveform, 16000, num_sources=4)[0]
        own = by_count.setdefault(len(labels), [])
        own += slots_that_count(slots, [LABELS.index(label) for label in labels], others)
    report = report_of(folder / "report")
    everything = [slot for own in by_count.values() for slot in own]
    assert report["sets"]["model"]["presence_ap"] == pytest.approx(average_precision(everything), abs=1e-6)
    split = report["by_num_sources"]["sound"]
    for count, own in by_count.items():
        assert split[str(count)]["model"]["presence_ap"]["value"] == pytest.approx(average_precision(own), abs=1e-6)
    table = (folder / "report/report.md").read_text().split("By number of sources:")[1]
    assert "presence AP" in table.splitlines()[2]


def slots_that_count(slots, true, others):
    """Pairs of score and whether the slot holds a source, of the likeliest of all ways to give sources to slots."""
    ways = itertools.permutations(range(len(slots)), len(true))
    best = max(
        ways,
        key=lambda way: sum(float(slots[slot].label_probs[label]) for slot, label in zip(way, true, strict=True)),
    )
    return [
        (slot.score, number in best) for number, slot in enumerate(slots) if number in best or slot.label not in others
    ]


def average_precision(slots):
    """The mean over slots with a source of the share of those above it that have one."""
    ranked = [holds for _, holds in sorted(slots, reverse=True)]
    return np.mean([sum(ranked[: place + 1]) / (place + 1) for place, holds in enumerate(ranked) if holds])


@pytest.mark.parametrize("top_k", [None, 4])
def test_pictures(folder, tmp_path, top_k):
    out = folder / "report"
    if top_k is not None:
        out = tmp_path
        assert run(folder, out, "--top-k", str(top_k)).exit_code == 0
    judge = load_judge(folder / "judge", LABELS)
    crs, strict, mean = [], [], []
    for number, (labels, _) in enumerate(CLIPS.values()):
        with PIL.Image.open(next(out.glob(f"systems/model/*/{number:05d}.png"))) as image:
            judgement = judge([image])
        mass = dict(zip(judge.labels, judgement.class_mass[0].tolist(), strict=True))
        crs.append(len(labels) * math.prod(mass[label] for label in labels) ** (1 / len(labels)))
        ranked = sorted(LABELS, key=lambda label: -mass[label])[: top_k or len(labels)]
        strict.append(float(set(labels) <= set(ranked)))
        mean.append(len(set(labels) & set(ranked)) / len(labels))
    found = json.loads((out / "values.json").read_text())["mixed"]["model"]
    assert found["crs"] == pytest.approx(crs)
    assert found["recall_strict"] == strict and found["recall_mean"] == pytest.approx(mean)
    text = (out / "report.md").read_text()
    assert report_of(out)["settings"]["top_k"] == top_k
    assert f"| R@{top_k or 'n'}* |" in text and ("each soundscape's own number" in text) == (top_k is None)


def test_a_k_below_the_number_of_labels(folder, tmp_path):
    result = run(folder, tmp_path / "out", "--top-k", "2")
    assert result.exit_code == 2 and "R@2* is not defined for soundscapes with 3 sources" in result.stderr
