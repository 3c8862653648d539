"""The judge's scenes and its training script."""

import json
import sys
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
from datasets import concatenate_datasets
from scene_dataset import SceneDataset
from train_judge import split_pictures
from training_runs import kill_after

from avgas_pipeline.data.soundscapes_mini import find_soundscapes_mini, load_soundscapes_mini
from avgas_pipeline.metrics import ClassifierJudge


ROOT = Path(__file__).parents[1]


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


def test_labels_are_drawn_evenly(pictures, labels):
    scenes = SceneDataset(pictures, labels, num_scenes=600, num_objects=(1, 1), image_size=16)
    drawn = np.bincount([scenes.scene(index)[1][0] for index in range(600)], minlength=len(labels))
    assert drawn.min() >= 1
    assert drawn.max() <= 30


def test_folds_leave_out_whole_source_groups(pictures):
    left_out = []
    for fold in range(5):
        known, held = split_pictures(pictures, fold, 5)
        assert not set(known["source_group"]) & set(held["source_group"])
        assert len(known) + len(held) == len(pictures)
        assert set(known["label"]) == set(pictures["label"])
        left_out += held["id"]
    assert len(left_out) == len(set(left_out)) > 0.9 * len(pictures)


@pytest.mark.slow
def test_killed_training_goes_on_to_the_same_judge(tmp_path):
    def command(name, *more):
        options = ["--max_train_steps=12", "--train_batch_size=8", "--checkpointing_steps=4"]
        options += ["--num_validation_scenes=16", f"--output_dir={tmp_path / name}", *more]
        options += ["--hidden_sizes", "4", "4", "8", "8", f"--dataset={find_soundscapes_mini()}"]
        return [sys.executable, str(ROOT / "training/train_judge.py"), *options]

    forked.run(command("straight")).check_returncode()
    kill_after(tmp_path / "killed/checkpoint-4", command("killed"))
    assert not (tmp_path / "killed/model.safetensors").exists()
    other = forked.run(command("killed", "--resume_from_checkpoint=latest", "--holdout_fold=0"))
    assert "is of another run: holdout_fold differ" in other.stderr
    forked.run(command("killed", "--resume_from_checkpoint=latest")).check_returncode()
    for name in ("model.safetensors", "config.json", "accuracy.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    judge = ClassifierJudge.from_pretrained(tmp_path / "killed")
    assert len(judge.labels) == 59
    assert set(json.loads((tmp_path / "killed/accuracy.json").read_text())) == {"new_compositions"}
