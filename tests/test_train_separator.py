"""`train_separator.py` learns, goes on exactly, and refuses what can't work."""

import json
import os
import re
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
import train_separator as script
import training_runs as runs
from launching import two_processes
from training_inputs import write_training_inputs
from training_runs import environment, weights

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.data.clips import load_clips
from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.evaluation import MixtureSet
from avgas_pipeline.evaluation.encoding import encode_soundscapes
from avgas_pipeline.evaluation.scoring import score_sound
from avgas_training.data.soundscapes import window_s


PRESETS = runs.TRAINING / "configs/presets"
# Weights that `train_separator.py` leaves to `train.py`.
GENERATOR_ONLY = ("token_head", "token_norm", "label_tokens", "null_tokens")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Read-only by convention."""
    return write_training_inputs(tmp_path_factory.mktemp("training"))


def settings(inputs, out, changed):
    own = {"image_encoder": inputs / "image-encoder", "encoder_learning_rate": 1e-3}
    return runs.mixture_settings(inputs, out, own | changed)


def train(inputs, out, **changed):
    runs.run(script.main, settings(inputs, out, changed))


def command(inputs, out, launcher=(), **changed):
    return runs.command("train_separator.py", settings(inputs, out, changed), launcher)


def launch(*args, **changed):
    result = runs.launch(command(*args, **changed))
    assert result.returncode == 0, result.stderr


def curve(out, name="loss"):
    return runs.curve(out, name)


@pytest.fixture(scope="module")
def straight(inputs, tmp_path_factory):
    """20 steps without interruption."""
    out = tmp_path_factory.mktemp("straight") / "run"
    train(inputs, out)
    return out


@pytest.mark.slow
def test_learns_to_separate(inputs, tmp_path):
    """New mixtures of the clips that it was trained on."""
    train(
        inputs,
        tmp_path / "run",
        num_examples=10000,
        augment_fraction=0,
        train_batch_size=8,
        max_train_steps=150,
        learning_rate=3e-3,
        ema_decay=0.9,
        validation_fraction=0,
        checkpointing_steps=1000,
    )
    pipe = AVGASPipeline.from_pretrained(tmp_path / "run")
    clips, _ = load_clips(str(inputs / "clips"))
    sampler = MixtureSampler(clips, seed=1, num_sources=(1, 2), duration_s=window_s(pipe.audio_feature_extractor))
    mixtures = MixtureSet(sampler, [sampler.plan(number) for number in range(8)], "clips", "train", "new mixtures")
    drawings = encode_soundscapes(pipe, [mixtures[number] for number in range(8)], presence_threshold=0.5)[1]
    values = score_sound(drawings, mixtures).compute()
    assert values["label_recall"] == 1.0
    assert values["count_accuracy"] == 1.0
    assert values["si_sdri_db"] >= 10.0


@pytest.mark.slow
def test_killed_run_goes_on_exactly(inputs, straight, tmp_path):
    out = tmp_path / "run"
    runs.kill_after(out / "checkpoint-10", "model_index.json", command(inputs, out))
    # In a fresh interpreter, which shares no hashes with the others' runs.
    launch(inputs, out, resume_from_checkpoint="latest")
    expected, got = curve(straight), curve(out)
    assert sorted(expected) == sorted(got) == list(range(1, 21))
    for step in expected:
        assert got[step] == pytest.approx(expected[step], abs=1e-6)
    for part in ("separator", "audio_encoder"):
        for name, tensor in weights(straight, part).items():
            assert torch.equal(tensor, weights(out, part)[name]), name


def test_gradient_checkpointing_changes_no_loss(inputs, straight, tmp_path):
    train(inputs, tmp_path / "run", gradient_checkpointing=True, max_train_steps=2, lr_scheduler="constant")
    # The first step's: the schedules differ.
    assert curve(tmp_path / "run")[1] == pytest.approx(curve(straight)[1], abs=1e-6)


@pytest.mark.slow
def test_two_processes_without_teachers(inputs, tmp_path):
    options = {"image_encoder": None, "a2a_weight": 0, "max_train_steps": 3, "checkpointing_steps": 1000}
    launch(inputs, tmp_path / "run", two_processes(), train_batch_size=2, **options)


@pytest.mark.slow
def test_sigterm_to_one_process_ends_both(inputs, tmp_path):
    out = tmp_path / "run"
    changed = {"max_train_steps": 2000, "checkpointing_steps": 1000}
    process = subprocess.Popen(
        command(inputs, out, two_processes(), **changed),
        env=environment(),
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not (out / "curves.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
        os.kill(int(children[-1]), signal.SIGTERM)
        process.communicate(timeout=120)
        assert len(list(out.glob("checkpoint-*"))) == 1
    finally:
        runs.kill_family(process)


@pytest.mark.slow
def test_sigterm_saves_and_ends(inputs, tmp_path):
    out = tmp_path / "run"
    changed = {"max_train_steps": 2000, "checkpointing_steps": 1000, "dataloader_num_workers": 1}
    process = subprocess.Popen(
        command(inputs, out, **changed), env=environment(), stderr=subprocess.PIPE, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not list(out.glob("logs/*/events*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(3)
    # Clusters signal all processes of a job.
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    saved = list(out.glob("checkpoint-*"))
    assert len(saved) == 1 and (saved[0] / "trainer_state.json").exists()


@pytest.mark.slow
def test_two_processes_match_one_with_twice_the_batch(inputs, tmp_path):
    changed = {"max_train_steps": 10, "checkpointing_steps": 1000}
    launch(inputs, tmp_path / "two", two_processes(), train_batch_size=2, **changed)
    train(inputs, tmp_path / "one", train_batch_size=4, **changed)
    expected, got = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert sorted(expected) == list(range(1, 11))
    for step, value in expected.items():
        assert got[step] == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize(("preset", "num_slots"), [("single_embedding", 1), ("paper", 2)])
def test_presets_are_the_baselines(inputs, tmp_path, preset, num_slots):
    train(inputs, tmp_path / "run", config=PRESETS / f"{preset}.yaml", max_train_steps=3)
    pipe = AVGASPipeline.from_pretrained(tmp_path / "run")
    assert (pipe.separator.config.num_layers, pipe.separator.config.num_slots) == (0, num_slots)
    assert pipe.separator.config.label_temperature == {"single_embedding": 1.0, "paper": 0.5}[preset]
    assert (pipe.audio_encoder.config.model_type == "resnet") == (preset == "paper")
    assert pipe.separate_audio(np.random.default_rng(0).normal(0, 0.1, 16000), 16000, num_sources=1)
    # It is drawn by the U-Net of the checkpoint it began with.
    before, after = weights(inputs / "untrained"), weights(tmp_path / "run")
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith(GENERATOR_ONLY))


def test_what_the_generator_trains_stays(inputs, straight):
    before, after = weights(inputs / "untrained"), weights(straight)
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) == name.startswith(GENERATOR_ONLY), name
    for part in ("unet", "vae"):
        for name, tensor in weights(inputs / "untrained", part).items():
            assert torch.equal(tensor, weights(straight, part)[name])


@pytest.mark.slow
def test_validation_is_logged_and_kept(inputs, tmp_path):
    train(
        inputs,
        tmp_path / "run",
        max_train_steps=2,
        validation_steps=2,
        validation_fraction=0.34,
        num_validation_mixtures=4,
    )
    measured = json.loads((tmp_path / "run/training.json").read_text())["last"]
    expected = {"label_recall", "count_accuracy", "presence_ap", "si_sdri_db", "a2a_recall", "a2v_recall"}
    assert {f"val/{name}" for name in expected} <= set(measured)
    assert curve(tmp_path / "run", "val/label_recall").keys() == {2}


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"encoder_trainable": "layer.99"}, "encoder_trainable: no weight's name begins with one of ['layer.99']"),
        ({"learning_rate": 1e30, "max_grad_norm": 1e30}, "no checkpoint has finite weights: begin anew"),
        ({"resume_from_checkpoint": "/no/such"}, "/no/such: no such checkpoint"),
    ],
)
def test_wrong_use(inputs, tmp_path, changed, word):
    with pytest.raises((ValueError, OSError), match=re.escape(word)):
        train(inputs, tmp_path / "run", **changed)


def test_output_folder_that_is_not_empty(inputs, straight):
    before = weights(straight)
    with pytest.raises(ValueError, match="is not empty; give --resume_from_checkpoint latest to go on, or --over"):
        train(inputs, straight)
    assert all(torch.equal(tensor, weights(straight)[name]) for name, tensor in before.items())


def test_foreign_and_half_written_checkpoints(inputs, straight, tmp_path):
    with pytest.raises(ValueError, match="is of another run: train_batch_size differ"):
        train(inputs, tmp_path / "a", resume_from_checkpoint=straight / "checkpoint-10", train_batch_size=2)
    half = tmp_path / "checkpoint-10"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="not a complete checkpoint of this script"):
        train(inputs, tmp_path / "b", resume_from_checkpoint=half)
