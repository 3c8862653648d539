"""`train_separator.py` learns, goes on exactly, and refuses what can't work."""

import json
import math
import os
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
import training_runs as runs
from launching import two_processes
from losses import SeparationTargets, info_nce, match_sources, separation_losses, single_embedding_losses
from train_separator import SeparatorConfig, build_models
from training_inputs import write_training_inputs
from training_runs import environment, weights
from transformers import ASTFeatureExtractor

from avgas_pipeline import AudioVisualSeparatorOutput, AVGASPipeline


# Weights that `train_separator.py` leaves to `train.py`.
GENERATOR_ONLY = ("token_head", "token_norm", "label_tokens", "null_tokens")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Read-only by convention."""
    return write_training_inputs(tmp_path_factory.mktemp("training"))


def train(inputs, *args, **changed):
    return runs.train("train_separator.py", inputs, *args, **settings(inputs, changed))


def launch(inputs, *args, **changed):
    return runs.launch("train_separator.py", inputs, *args, **settings(inputs, changed))


def command(inputs, *args, **changed):
    return runs.command("train_separator.py", inputs, *args, **settings(inputs, changed))


def settings(inputs, changed):
    return {"image_encoder": inputs / "image-encoder", "encoder_learning_rate": 1e-3, **changed}


def curve(out, name="loss"):
    return runs.curve(out, name)


# -- losses ---------------------------------------------------------------------------------------------------------


def output_of(class_logits, embeds=None):
    batch, slots = class_logits.shape[:2]
    embeds = torch.nn.functional.normalize(torch.randn(batch, slots, 4), dim=-1) if embeds is None else embeds
    return AudioVisualSeparatorOutput(
        presence_logits=torch.zeros(batch, slots),
        class_logits=class_logits,
        audio_embeds=embeds,
        visual_embeds=embeds,
        condition_tokens=None,
        null_tokens=None,
    )


def test_slots_are_matched_to_their_sources():
    logits = torch.full((1, 3, 4), -5.0)
    logits[0, 0, 2] = logits[0, 2, 1] = 5.0
    slots = match_sources(output_of(logits), SeparationTargets(torch.tensor([[1, 2, -1]])))
    assert slots.tolist() == [[2, 0, -1]]


def test_places_without_a_source_may_be_anywhere():
    logits = torch.full((1, 3, 4), -5.0)
    logits[0, 0, 2] = logits[0, 2, 1] = 5.0
    targets = SeparationTargets(torch.tensor([[-1, 1, 2]]))
    assert match_sources(output_of(logits), targets).tolist() == [[-1, 2, 0]]
    both = (
        separation_losses(output_of(logits), targets)[0],
        single_embedding_losses(output_of(logits[:, :1]), targets)[0],
    )
    assert all(torch.isfinite(loss) for losses in both for loss in losses.values())


def test_of_two_slots_with_one_source_the_present_one_has_it():
    output = output_of(torch.full((1, 3, 4), -5.0))
    output.class_logits[0, 1:, 2] = 5.0
    output.presence_logits[0] = torch.tensor([0.0, -2.0, 2.0])
    assert match_sources(output, SeparationTargets(torch.tensor([[2]]))).tolist() == [[2]]


def test_more_sources_than_slots_leave_some_out():
    slots = match_sources(output_of(torch.zeros(1, 2, 4)), SeparationTargets(torch.tensor([[0, 1, 2]])))
    assert sorted(slots[0].tolist()) == [-1, 0, 1]


def test_slots_before_every_layer_learn_the_same():
    torch.manual_seed(0)
    output, targets = output_of(torch.randn(2, 3, 4)), SeparationTargets(torch.tensor([[0, 1], [2, -1]]))
    assert "aux" not in separation_losses(output, targets)[0]
    output.aux_presence_logits = torch.stack([output.presence_logits] * 2)
    output.aux_class_logits = torch.stack([output.class_logits] * 2)
    losses, _ = separation_losses(output, targets)
    assert losses["aux"].item() == pytest.approx((losses["presence"] + losses["label"]).item())


def test_losses_do_not_depend_on_the_order_of_sources():
    torch.manual_seed(0)
    output = output_of(torch.randn(2, 3, 4))
    labels = torch.tensor([[0, 1], [2, 3]])
    embeds = torch.nn.functional.normalize(torch.randn(2, 2, 4), dim=-1)
    first, _ = separation_losses(output, SeparationTargets(labels, audio_embeds=embeds))
    second, _ = separation_losses(output, SeparationTargets(labels.flip(1), audio_embeds=embeds.flip(1)))
    for name in first:
        assert first[name].item() == pytest.approx(second[name].item(), abs=1e-6)


def test_masks_are_best_at_the_ideal_ratio():
    ratio = torch.tensor([0.1, 0.5, 0.9, 1.0]).reshape(1, 1, 2, 2)
    weight = torch.tensor([1.0, 2.0, 3.0, 0.0]).reshape(1, 2, 2)
    targets = SeparationTargets(torch.zeros(1, 1, dtype=torch.long), mask_ratio=ratio, mask_weight=weight)

    def loss(mask):
        output = AudioVisualSeparatorOutput(
            presence_logits=torch.ones(1, 1),
            class_logits=torch.zeros(1, 1, 3),
            audio_embeds=torch.ones(1, 1, 1),
            visual_embeds=torch.ones(1, 1, 1),
            condition_tokens=torch.zeros(1, 1, 1, 1),
            null_tokens=torch.zeros(1, 1),
            mask_logits=torch.logit(mask, eps=1e-6),
        )
        return separation_losses(output, targets)[0]["mask"].item()

    # -(r ln r + (1 - r) ln(1 - r)): 0.3251 for 0.1 and 0.9, ln 2 for 0.5; what weighs nothing does not count.
    assert loss(ratio) == pytest.approx((0.3251 + 2 * 0.6931 + 3 * 0.3251) / 6, abs=1e-3)
    assert all(loss((ratio + change).clamp(0, 1)) > loss(ratio) for change in (-0.05, 0.05))


def test_masks_of_the_first_mixtures_alone():
    torch.manual_seed(0)
    labels = torch.tensor([[0, 1], [2, -1], [3, 1]])
    ratio, weight, masks = torch.rand(3, 2, 4, 5), torch.rand(3, 4, 5), torch.randn(3, 3, 4, 5)

    def losses(mixtures, masked):
        output = output_of(logits[:mixtures], embeds[:mixtures])
        output.mask_logits = masks[:masked]
        targets = SeparationTargets(labels[:mixtures], mask_ratio=ratio[:masked], mask_weight=weight[:masked])
        return separation_losses(output, targets)[0]

    logits, embeds = torch.randn(3, 3, 4), torch.nn.functional.normalize(torch.randn(3, 3, 4), dim=-1)
    assert losses(3, 2)["mask"].item() == pytest.approx(losses(2, 2)["mask"].item())
    assert losses(3, 2)["label"].item() != pytest.approx(losses(2, 2)["label"].item())


def test_presence_and_label_losses_by_hand():
    logits = torch.zeros(1, 2, 4)
    logits[0, 1, 3] = math.log(3.0)
    losses, slots = separation_losses(output_of(logits), SeparationTargets(torch.tensor([[3]])))
    assert slots.tolist() == [[1]]
    assert losses["label"].item() == pytest.approx(math.log(2))
    assert losses["presence"].item() == pytest.approx(math.log(2))


def test_info_nce_by_hand():
    embeds = torch.eye(2)
    # Distances 0 and 2, temperature 1: log(1 + e^-2).
    loss = info_nce(embeds, embeds, torch.tensor([0, 1]), temperature=1.0)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-5)
    # The same label is no negative, and neither is an empty row.
    for labels in ([0, 0], [0, -1]):
        assert info_nce(embeds, embeds, torch.tensor(labels), temperature=1.0).item() == pytest.approx(0.0, abs=1e-6)


def test_single_embedding_wants_the_mean():
    labels = torch.tensor([[0, 1], [2, -1]])
    logits = torch.full((2, 1, 4), -20.0)
    logits[0, 0, :2] = logits[1, 0, 2] = 20.0
    losses, slots = single_embedding_losses(output_of(logits), SeparationTargets(labels))
    assert losses["label"].item() == pytest.approx(0.5 * math.log(2), abs=1e-4)
    assert slots.tolist() == [[0, -1], [0, -1]]


# -- the script -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def straight(inputs, tmp_path_factory):
    """20 steps without interruption."""
    out = tmp_path_factory.mktemp("straight") / "run"
    result = train(inputs, out)
    assert result.returncode == 0, result.stderr
    return out


@pytest.mark.slow
def test_overfits_eight_mixtures(inputs, tmp_path):
    result = train(
        inputs,
        tmp_path / "run",
        repeat_examples=True,
        augment_fraction=0,
        train_batch_size=8,
        max_train_steps=150,
        learning_rate=3e-3,
        ema_decay=0.9,
        validation_fraction=0,
        checkpointing_steps=1000,
    )
    assert result.returncode == 0, result.stderr
    pipe = AVGASPipeline.from_pretrained(tmp_path / "run")
    from soundscape_dataset import window_s

    from avgas_pipeline.data.clips import load_clips
    from avgas_pipeline.data.mixtures import MixtureSampler
    from avgas_pipeline.evaluation import MixtureSet
    from avgas_pipeline.evaluation.scoring import score_sound
    from avgas_pipeline.evaluation.systems import hear

    clips, _ = load_clips(str(inputs / "clips"))
    sampler = MixtureSampler(clips, num_sources=(1, 2), duration_s=window_s(pipe.audio_feature_extractor))
    mixtures = MixtureSet(sampler, [sampler.plan(number) for number in range(8)], "clips", "train", "overfitted")
    drawings = [hear(pipe, [mixtures[number]], 0.5)[1][0] for number in range(8)]
    values = score_sound(drawings, mixtures)
    assert values["label_recall"].mean() == 1.0
    assert values["count_accuracy"].mean() == 1.0
    assert np.nanmedian(values["si_sdri_db"]) >= 10.0


def test_killed_run_goes_on_exactly(inputs, straight, tmp_path):
    out = tmp_path / "run"
    runs.kill_after(out / "checkpoint-10", command(inputs, out))
    # In a fresh interpreter, which shares no hashes with the others' runs.
    result = launch(inputs, out, resume_from_checkpoint="latest")
    assert result.returncode == 0, result.stderr
    expected, got = curve(straight), curve(out)
    assert sorted(expected) == sorted(got) == list(range(1, 21))
    for step in expected:
        assert got[step] == pytest.approx(expected[step], abs=1e-6)
    for part in ("separator", "audio_encoder"):
        for name, tensor in weights(straight, part).items():
            assert torch.equal(tensor, weights(out, part)[name]), name


def test_gradient_checkpointing_changes_no_loss(inputs, straight, tmp_path):
    result = train(inputs, tmp_path / "run", gradient_checkpointing=True, max_train_steps=2, lr_scheduler="constant")
    assert result.returncode == 0, result.stderr
    # The first step's: the schedules differ.
    assert curve(tmp_path / "run")[1] == pytest.approx(curve(straight)[1], abs=1e-6)


@pytest.mark.slow
def test_two_processes_without_teachers(inputs, tmp_path):
    options = {"image_encoder": None, "a2a_weight": 0, "max_train_steps": 3, "checkpointing_steps": 1000}
    result = launch(inputs, tmp_path / "run", two_processes(), train_batch_size=2, **options)
    assert result.returncode == 0, result.stderr


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
    shared = launch(inputs, tmp_path / "two", two_processes(), train_batch_size=2, **changed)
    assert shared.returncode == 0, shared.stderr
    alone = train(inputs, tmp_path / "one", train_batch_size=4, **changed)
    assert alone.returncode == 0, alone.stderr
    expected, got = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert sorted(expected) == list(range(1, 11))
    for step, value in expected.items():
        assert got[step] == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("preset", ["single_embedding", "paper"])
def test_presets_are_the_baselines(inputs, tmp_path, preset):
    result = train(inputs, tmp_path / "run", preset=preset, max_train_steps=3)
    assert result.returncode == 0, result.stderr
    pipe = AVGASPipeline.from_pretrained(tmp_path / "run")
    assert pipe.separator.config.num_layers == 0
    assert pipe.separator.config.num_slots == {"single_embedding": 1, "paper": 2}[preset]
    assert pipe.separator.config.label_temperature == {"single_embedding": 1.0, "paper": 0.5}[preset]
    if preset == "paper":
        assert pipe.audio_encoder.config.model_type == "resnet"
    assert pipe.separate_audio(np.random.default_rng(0).normal(0, 0.1, 16000), 16000, num_sources=1)
    # It is drawn by the U-Net of the checkpoint it began with.
    before, after = weights(inputs / "untrained"), weights(tmp_path / "run")
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith(GENERATOR_ONLY))


def test_the_papers_separator_hears_the_checkpoints_spectrogram_if_it_has_one(inputs):
    config = SeparatorConfig(preset="paper")
    mini, tiny = AVGASPipeline.from_pretrained("avgas-mini"), AVGASPipeline.from_pretrained(inputs / "untrained")
    assert build_models(config, mini)[0] is mini.audio_feature_extractor
    assert tiny.audio_encoder.main_input_name != "pixel_values"
    extractor, encoder, _ = build_models(config, tiny)
    assert (type(extractor), encoder.config.num_channels) == (ASTFeatureExtractor, 1)


def test_what_the_generator_trains_stays(inputs, straight):
    before, after = weights(inputs / "untrained"), weights(straight)
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) == name.startswith(GENERATOR_ONLY), name
    for part in ("unet", "vae"):
        for name, tensor in weights(inputs / "untrained", part).items():
            assert torch.equal(tensor, weights(straight, part)[name])


@pytest.mark.slow
def test_validation_is_logged_and_kept(inputs, tmp_path):
    result = train(
        inputs,
        tmp_path / "run",
        max_train_steps=2,
        validation_steps=2,
        validation_fraction=0.34,
        num_validation_mixtures=4,
    )
    assert result.returncode == 0, result.stderr
    measured = json.loads((tmp_path / "run/training.json").read_text())["last"]
    expected = {"label_recall", "count_accuracy", "presence_ap", "si_sdri_db", "a2a_recall", "a2v_recall"}
    assert {f"val/{name}" for name in expected} <= set(measured)
    assert curve(tmp_path / "run", "val/label_recall").keys() == {2}


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"pretrained_model_name_or_path": None}, "pretrained_model_name_or_path is needed"),
        ({"preset": "magic"}, "preset has to be one of separator, single_embedding, paper"),
        ({"mask_fraction": 0.0}, "mask_fraction has to be above 0 and at most 1 but is 0.0"),
        ({"mask_fraction": 1.5}, "mask_fraction has to be above 0 and at most 1 but is 1.5"),
        ({"augment_fraction": 1.5}, "augment_fraction has to be from 0 to 1 but is 1.5"),
        ({"temperature": 0.0}, "The loss is nan at step 0; the last checkpoint is good"),
        ({"resume_from_checkpoint": "/no/such"}, "/no/such: no such checkpoint"),
    ],
)
def test_wrong_use(inputs, tmp_path, changed, word):
    result = train(inputs, tmp_path / "run", **changed)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert word in result.stderr


def test_output_folder_that_is_not_empty(inputs, straight):
    before = weights(straight)
    result = train(inputs, straight)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "is not empty; give --resume_from_checkpoint latest to go on, or --overwrite_output_dir" in result.stderr
    assert all(torch.equal(tensor, weights(straight)[name]) for name, tensor in before.items())


def test_foreign_and_half_written_checkpoints(inputs, straight, tmp_path):
    foreign = train(inputs, tmp_path / "a", resume_from_checkpoint=straight / "checkpoint-10", train_batch_size=2)
    assert "is of another run: train_batch_size differ" in foreign.stderr
    half = tmp_path / "checkpoint-10"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"")
    result = train(inputs, tmp_path / "b", resume_from_checkpoint=half)
    assert "not a complete checkpoint of this script" in result.stderr


def test_config_file(inputs, tmp_path):
    (tmp_path / "good.yaml").write_text("learning_rate: 1e-4\nnum_sources: [1, 2]\nmax_train_steps: 1\n")
    result = train(inputs, tmp_path / "run", config=tmp_path / "good.yaml", max_train_steps=2, learning_rate=None)
    assert result.returncode == 0, result.stderr
    settings = json.loads((tmp_path / "run/training.json").read_text())["settings"]
    assert (settings["learning_rate"], settings["max_train_steps"]) == (1e-4, 2)
    for text, word in (
        ("learning_rte: 1", "there is no setting 'learning_rte'"),
        ("max_train_steps: many", "max_train_steps can't be 'many'"),
        ("repeat_examples: 1", "repeat_examples can't be 1"),
    ):
        (tmp_path / "bad.yaml").write_text(text)
        result = train(inputs, tmp_path / "bad", config=tmp_path / "bad.yaml")
        assert result.returncode == 2
        assert word in result.stderr.splitlines()[-1]
