"""The judge's scenes and its training script."""

import json

import numpy as np
import pytest
import torch
import train_judge as script
import training_runs as runs
from datasets import concatenate_datasets

from avgas_pipeline.data.soundscapes_mini import find_soundscapes_mini, load_soundscapes_mini
from avgas_pipeline.metrics import ClassifierJudge
from avgas_training.data.scenes import SceneDataset


@pytest.fixture(scope="module")
def pictures():
    return concatenate_datasets([load_soundscapes_mini(split=split)[1] for split in ("train", "test")])


@pytest.fixture(scope="module")
def labels(pictures):
    return sorted(set(pictures["label"]))


def test_scene_depends_on_seed_and_index_alone(pictures, labels):
    few = pictures.select(range(0, len(pictures), 3))
    options = {"labels": labels, "num_scenes": 10, "augment": True, "degrade": True}
    first, again, other = (SceneDataset(few, seed=seed, **options) for seed in (0, 0, 1))
    assert torch.equal(first[7]["pixel_values"], again[7]["pixel_values"])
    assert not torch.equal(first[7]["pixel_values"], other[7]["pixel_values"])


def test_labels_are_those_of_the_objects(pictures, labels):
    only = pictures.filter(lambda label: label in ("raining", "dog barking"), input_columns="label")
    scenes = SceneDataset(only, labels, num_scenes=20, num_objects=(0, 2))
    counts = set()
    for index in range(20):
        example = scenes[index]
        shown = {labels[number] for number in example["labels"].nonzero().flatten().tolist()}
        assert shown <= {"raining", "dog barking"}
        assert example["pixel_values"].shape == (3, 128, 128)
        assert example["pixel_values"].abs().max() <= 1
        counts.add(len(shown))
    assert counts == {0, 1, 2}


def test_half_of_the_scenes_are_collages(pictures, labels):
    few = pictures.select(range(0, len(pictures), 3))
    scenes = SceneDataset(few, labels, num_scenes=60, layout="either", num_objects=(1, 1))
    corners = np.array([np.asarray(scenes.scene(index)[0])[0, 0] for index in range(60)])
    assert 15 <= (corners == 255).all(axis=1).sum() <= 45
    empty = SceneDataset(few, labels, num_scenes=4, layout="either", num_objects=(0, 0))
    assert all(not empty.scene(index)[1] for index in range(4))


def test_labels_are_drawn_evenly(pictures, labels):
    scenes = SceneDataset(pictures, labels, num_scenes=2400, num_objects=(1, 1), image_size=16)
    drawn = np.bincount([scenes.scene(index)[1][0] for index in range(2400)], minlength=len(labels))
    assert drawn.min() >= 1
    assert drawn.max() <= 30


def test_folds_leave_out_whole_source_groups(pictures):
    left_out = []
    for fold in range(5):
        known, held = script.split_pictures(pictures, fold)
        assert not set(known["source_group"]) & set(held["source_group"])
        assert len(known) + len(held) == len(pictures)
        assert set(known["label"]) == set(pictures["label"])
        left_out += held["id"]
    assert len(left_out) == len(set(left_out)) > 0.9 * len(pictures)


def settings(out, **changed):
    return {
        "dataset": find_soundscapes_mini(),
        "output_dir": out,
        "hidden_sizes": "4 4 8 8",
        "train_batch_size": 8,
        "max_train_steps": 12,
        "checkpointing_steps": 4,
        "logging_steps": 1,
        "num_validation_scenes": 16,
        **changed,
    }


def train(out, **changed):
    runs.run(script.main, settings(out, **changed))


@pytest.mark.slow
def test_killed_training_goes_on_to_the_same_judge(tmp_path):
    train(tmp_path / "straight")
    out = tmp_path / "killed"
    runs.kill_after(out / "checkpoint-4", "accuracy.json", runs.command("train_judge.py", settings(out)))
    with pytest.raises(ValueError, match="is of another run: holdout_fold differ"):
        train(out, resume_from_checkpoint="latest", holdout_fold=0)
    train(out, resume_from_checkpoint="latest")
    for name in ("model.safetensors", "config.json", "accuracy.json"):
        assert (out / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    losses = runs.curve(out, "loss")
    assert sorted(losses) == list(range(1, 13))
    assert losses == pytest.approx(runs.curve(tmp_path / "straight", "loss"), abs=1e-6)
    judge = ClassifierJudge.from_pretrained(out)
    assert len(judge.labels) == 204
    assert set(json.loads((out / "accuracy.json").read_text())) == {"new_compositions", "new_collages"}


@pytest.mark.slow
def test_pictures_left_out_are_reported(tmp_path):
    train(tmp_path / "run", max_train_steps=1, holdout_fold=0, splits="train", num_validation_scenes=4)
    accuracy = json.loads((tmp_path / "run/accuracy.json").read_text())
    known, left_out = {"new_compositions", "new_collages"}, {"pictures_left_out", "collages_left_out"}
    assert set(accuracy) == {*known, *left_out, "num_pictures_left_out"}
    with pytest.raises(ValueError, match="is not empty; give --resume_from_checkpoint latest"):
        train(tmp_path / "run")
