"""Labels that a model, a judge or a vocabulary does not know are refused, with those that may have been meant."""

import json

import pytest
import soundfile
from evaluation_data import fails, run, write_evaluation_inputs
from tiny import tiny_audio

from avgas_pipeline.data.annotations import read_vggsound
from avgas_pipeline.data.vocabulary import nearest_labels


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Read-only by convention."""
    return write_evaluation_inputs(tmp_path_factory.mktemp("evaluation"), num_mixtures=2)


def recordings(folder, *labels):
    soundfile.write(folder / "here.wav", tiny_audio()[0], 16000)
    rows = [{"id": str(number), "audio": "here.wav", "labels": own} for number, own in enumerate(labels)]
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "list.jsonl"


def evaluate(inputs, out, data, **changed):
    return run(inputs, out, "--no-draw", data=data, manifest=None, judge=None, **changed)


@pytest.mark.parametrize(
    ("label", "nearest"),
    [("dog barkin", "'dog barking'"), ("DOG BARKING", "'dog barking'"), ("zebra braying", ""), ("unicorn", "")],
)
def test_a_label_that_the_model_does_not_know(inputs, tmp_path, label, nearest):
    data = recordings(tmp_path, [label])
    result = evaluate(inputs, tmp_path / "out", data)
    fails(result, data, f"does not know {label!r}", inputs / "model", nearest)
    assert ("nearest" in result.stderr) == bool(nearest)
    assert not (tmp_path / "out/report.json").exists()


def test_one_unknown_label_among_known_ones(inputs, tmp_path):
    data = recordings(tmp_path, ["dog barking"], ["raining", "zebra braying"])
    fails(evaluate(inputs, tmp_path / "out", data), data, "does not know 'zebra braying'")


def test_a_baseline_that_does_not_know_a_label(inputs, tmp_path):
    data = recordings(tmp_path, ["zebra braying"])
    baseline = f"single-embedding={inputs / 'single-embedding'}"
    fails(evaluate(inputs, tmp_path / "out", data, model=None, baseline=baseline), data, "zebra braying")


def test_labels_that_the_model_knows_are_evaluated(inputs, tmp_path):
    data = recordings(tmp_path, ["dog barking"], ["raining"])
    assert evaluate(inputs, tmp_path / "out", data).exit_code == 0


def test_a_label_that_the_vocabulary_does_not_have(inputs, tmp_path):
    data = recordings(tmp_path, ["dog barking"], ["rainin"])
    fails(evaluate(inputs, tmp_path / "out", data), data, "'rainin' is none of VGGSound's", "nearest: 'raining'")


def test_a_label_that_the_judge_does_not_know(inputs, tmp_path):
    data = recordings(tmp_path, ["dog barkin"])
    fails(run(inputs, tmp_path / "out", data=data, manifest=None), "this judge does not know 'dog barkin'")


def test_annotations_with_an_unknown_label_name_the_nearest(tmp_path):
    (tmp_path / "v.csv").write_text("zzzzzzzzzzz,0,thundr,train\n")
    with pytest.raises(ValueError, match=r"v\.csv, line 1: 'thundr' .*nearest: 'thunder'"):
        read_vggsound(tmp_path / "v.csv")


def test_nearest_labels_are_those_that_are_written_alike():
    assert nearest_labels("Dog", ["dog", "cat"]) == "; nearest: 'dog'"
    assert nearest_labels("zebra", ["dog", "cat"]) == ""
