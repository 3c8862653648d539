"""`train.py` trains what it says it trains, goes on exactly, and ends with a pipeline that draws."""

import json
import re
import shutil

import numpy as np
import PIL.Image
import pytest
import soundfile
import torch
import train as script
import training_runs as runs
from diffusers import FlowMatchEulerDiscreteScheduler
from hub_server import run_hub
from launching import two_processes
from safetensors import safe_open
from tiny import tiny_audio, tiny_clap, tiny_components, tiny_separator, tiny_unet
from training_inputs import CLASSES, write_training_inputs
from training_runs import curve, weights
from typer.testing import CliRunner

from avgas_pipeline import AudioVisualSeparator, AVGASPipeline
from avgas_pipeline.cli import app
from avgas_pipeline.data.layouts.vggsound import vggsound_layout
from avgas_pipeline.data.prepare import PrepareSettings, prepare
from avgas_pipeline.loaders.sounds import VGGSOUND_LABELS
from avgas_pipeline.models.encoder_adapters import token_layout


PARTS = ("unet", "vae", "separator", "audio_encoder")
LORA = "pytorch_lora_weights.safetensors"
LORA_SETTINGS = {"ema_decay": 0.9, "lora_dropout": 0.2, "dataloader_num_workers": 1}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Read-only by convention."""
    return write_training_inputs(tmp_path_factory.mktemp("training"))


def train(inputs, out, **changed):
    runs.run(script.main, runs.mixture_settings(inputs, out, changed))


def command(inputs, out, launcher=(), **changed):
    return runs.command("train.py", runs.mixture_settings(inputs, out, changed), launcher)


def launch(*args, variables=None, **changed):
    result = runs.launch(command(*args, **changed), variables)
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def straight(inputs, tmp_path_factory):
    """20 steps of LoRA with averaged weights, without interruption."""
    out = tmp_path_factory.mktemp("straight") / "run"
    train(inputs, out, **LORA_SETTINGS)
    return out


def lora(out):
    with safe_open(out / LORA, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def changed_parts(before, after):
    return {
        part
        for part in PARTS
        if any(not torch.equal(tensor, weights(after, part)[name]) for name, tensor in weights(before, part).items())
    }


def draw(pipe, **call):
    waveform, rate = tiny_audio(1.28)
    return pipe(
        waveform,
        sampling_rate=rate,
        num_sources=1,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
        **call,
    ).images


def test_lora_changes_adapter_weights_alone(inputs, straight):
    assert changed_parts(inputs / "untrained", straight) == set()
    layers = lora(straight)
    assert {name.split(".")[0] for name in layers} == {"unet", "separator"}
    assert all(tensor.abs().max() > 0 for name, tensor in layers.items() if "lora_B" in name)
    with safe_open(straight / LORA, "pt") as file:
        metadata = json.loads(file.metadata()["lora_adapter_metadata"])
    assert metadata["unet.r"] == metadata["unet.lora_alpha"] == 16


@pytest.mark.slow
def test_half_precision_trains_whole_weights_and_keeps_the_frozen_ones(inputs, tmp_path):
    out = tmp_path / "run"
    train(inputs, out, max_train_steps=2, checkpointing_steps=2, mixed_precision="bf16")
    assert changed_parts(inputs / "untrained", out) == set()
    with safe_open(out / "checkpoint-2/trained_0.safetensors", "pt") as file:
        types = {file.get_tensor(name).dtype for name in file.keys() if "lora" in name}  # noqa: SIM118
    assert types == {torch.float32}


def test_overwriting_leaves_nothing_of_an_earlier_run(inputs, tmp_path):
    out = tmp_path / "run"
    options = {"max_train_steps": 2, "validation_steps": 2, "num_inference_steps": 1}
    train(inputs, out, **options)
    (out / "validation-9999.png").write_bytes(b"")
    (out / "notes.txt").write_text("mine")
    train(inputs, out, overwrite_output_dir=True, full=True, **options)
    assert not (out / LORA).exists()
    assert [path.name for path in out.glob("validation-*")] == ["validation-2.png"]
    assert (out / "notes.txt").exists()


def test_result_draws_with_and_without_its_lora(straight):
    pipe = AVGASPipeline.from_pretrained(straight)
    pipe.set_progress_bar_config(disable=True)
    before = draw(pipe)
    pipe.load_lora_weights(straight)
    assert not np.array_equal(draw(pipe), before)
    assert len(draw(pipe, num_images_per_prompt=2)) == 2


def test_command_line_draws_with_its_lora(straight, tmp_path):
    soundfile.write(tmp_path / "sound.wav", tiny_audio(1.28)[0], 16000)
    pictures = []
    shutil.copytree(straight, tmp_path / "without")
    (tmp_path / "without" / LORA).unlink()
    for name, model, options in (
        ("plain", tmp_path / "without", []),
        ("lora", tmp_path / "without", ["--lora", str(straight)]),
        ("own", straight, []),
    ):
        arguments = ["generate", str(tmp_path / "sound.wav"), "--model", str(model), "--steps", "2"]
        result = CliRunner().invoke(app, [*arguments, "--num-sources", "1", "--out", str(tmp_path / name), *options])
        assert result.exit_code == 0, result.output
        pictures.append((tmp_path / name / "mixed.png").read_bytes())
    assert pictures[0] != pictures[1] == pictures[2]
    assert str(straight / LORA) in result.stderr
    info = CliRunner().invoke(app, ["info", str(straight)])
    assert f"LoRA        {straight / LORA}" in info.stdout
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "x"), "--lora", str(tmp_path)])
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"full": True}, {"unet", "separator"}),
        ({"train_separator": True}, {"separator", "audio_encoder"}),
        ({"full": True, "train_separator": True}, {"unet", "separator", "audio_encoder"}),
    ],
)
def test_what_each_mode_moves(inputs, tmp_path, options, parts):
    image_encoder = inputs / "image-encoder" if "train_separator" in options else None
    train(inputs, tmp_path / "run", max_train_steps=2, image_encoder=image_encoder, **options)
    assert changed_parts(inputs / "untrained", tmp_path / "run") == parts
    assert (tmp_path / "run" / LORA).exists() == ("full" not in options)
    if "train_separator" in options:
        for name in ("presence", "label", "a2a", "a2v", "mask"):
            assert set(curve(tmp_path / "run", name)) == {1, 2}


def test_end_to_end_with_one_slot(inputs, tmp_path):
    pipe = AVGASPipeline.from_pretrained(inputs / "untrained")
    settings = {key: value for key, value in pipe.separator.config.items() if not key.startswith("_")}
    pipe.register_modules(separator=AudioVisualSeparator(**{**settings, "num_slots": 1, "num_layers": 0}))
    pipe.save_pretrained(tmp_path / "single")
    train(
        inputs,
        tmp_path / "run",
        pretrained_model_name_or_path=tmp_path / "single",
        train_separator=True,
        max_train_steps=1,
    )
    # Half the probability on each of two labels: no loss below their entropy.
    assert curve(tmp_path / "run", "label")[1] > 0.3
    assert "mask" not in json.loads((tmp_path / "run/curves.jsonl").read_text())


@pytest.mark.parametrize(
    "options",
    [
        LORA_SETTINGS,
        pytest.param({"full": True, "train_separator": True, "ema_decay": 0.9}, marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_killed_run_goes_on_exactly(inputs, straight, tmp_path, options):
    if "full" in options:
        straight = tmp_path / "straight"
        train(inputs, straight, **options)
    out = tmp_path / "run"
    runs.kill_after(out / "checkpoint-10", "model_index.json", command(inputs, out, **options))
    # In a fresh interpreter, which shares no hashes with the others' runs.
    launch(inputs, out, resume_from_checkpoint="latest", **options)
    expected, got = curve(straight, "diffusion"), curve(out, "diffusion")
    assert sorted(expected) == sorted(got) == list(range(1, 21))
    for step in expected:
        assert got[step] == pytest.approx(expected[step], abs=1e-6)
    assert changed_parts(straight, out) == set()
    if "full" not in options:
        assert all(torch.equal(tensor, lora(out)[name]) for name, tensor in lora(straight).items())


def test_checkpoints_hold_what_is_trained(straight):
    folder = straight / "checkpoint-20"
    assert not list(folder.glob("model*.safetensors"))
    with safe_open(folder / "trained_0.safetensors", "pt") as file:
        names = list(file.keys())
    assert all("lora" in name for name in names if not name.startswith("buffer:"))


@pytest.mark.slow
def test_two_processes_match_one_with_twice_the_batch(inputs, tmp_path):
    options = {
        "max_train_steps": 10,
        "checkpointing_steps": 1000,
        "num_examples": 40,
        "slot_noise": 0.3,
        "slot_shuffle": 0.5,
    }
    launch(inputs, tmp_path / "two", two_processes(), train_batch_size=2, **options)
    train(inputs, tmp_path / "one", train_batch_size=4, **options)
    expected, got = curve(tmp_path / "one", "diffusion"), curve(tmp_path / "two", "diffusion")
    assert sorted(expected) == list(range(1, 11))
    for step, value in expected.items():
        assert got[step] == pytest.approx(value, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"a2a_weight": 0}])
def test_two_processes_train_end_to_end(inputs, tmp_path, options):
    """Without a picture teacher the A2V head learns nothing, which processes have to agree on."""
    options = {"train_separator": True, "max_train_steps": 3, "checkpointing_steps": 1000, **options}
    launch(inputs, tmp_path / "run", two_processes(), train_batch_size=2, **options)
    assert (tmp_path / "run/model_index.json").exists()


@pytest.mark.slow
def test_cached_examples_are_those_that_are_made_anew(inputs, tmp_path):
    # In the first epoch, since later ones have other examples without a cache.
    options = {"max_train_steps": 2, "num_examples": 8}
    for name, cached in (("fresh", None), ("cached", True)):
        train(inputs, tmp_path / name, cache_examples=cached, **options)
    fresh, cached = (curve(tmp_path / name, "diffusion") for name in ("fresh", "cached"))
    # Latents are kept in half precision.
    assert list(cached.values()) == pytest.approx(list(fresh.values()), abs=2e-2)
    before = (tmp_path / "cached/cache/slots.npy").stat().st_mtime_ns
    options["max_train_steps"] = 6
    train(inputs, tmp_path / "cached", cache_examples=True, overwrite_output_dir=True, **options)
    assert (tmp_path / "cached/cache/slots.npy").stat().st_mtime_ns == before


@pytest.mark.slow
def test_examples_cached_with_other_models_are_refused(inputs, tmp_path):
    options = {"max_train_steps": 1, "cache_examples": True}
    train(inputs, tmp_path / "run", **options)
    pipe = AVGASPipeline.from_pretrained(inputs / "untrained")
    with torch.no_grad():
        pipe.separator.queries += 0.1
    pipe.save_pretrained(tmp_path / "other")
    options["pretrained_model_name_or_path"] = tmp_path / "other"
    with pytest.raises(ValueError, match="holds examples of other settings, data or models"):
        train(inputs, tmp_path / "run", overwrite_output_dir=True, **options)


@pytest.mark.slow
def test_result_is_published_with_its_card(inputs, tmp_path):
    (tmp_path / "hub").mkdir()
    with run_hub(tmp_path / "hub") as url:
        launch(
            inputs,
            tmp_path / "run",
            variables={"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": url, "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_XET": "1"},
            max_train_steps=2,
            validation_steps=2,
            checkpointing_steps=1,
            num_inference_steps=1,
            report_to="none",
            push_to_hub=True,
            hub_model_id="someone/soundscapes",
        )
    published = tmp_path / "hub/someone/soundscapes"
    names = {path.relative_to(published).as_posix() for path in published.rglob("*") if path.is_file()}
    assert {"model_index.json", "README.md", "curves.png", "validation-2.png", "training.json", LORA} <= names
    assert not any(name.startswith(("checkpoint-", "logs", "cache")) for name in names)
    card = (published / "README.md").read_text()
    last = json.loads((tmp_path / "run/curves.jsonl").read_text().splitlines()[-1])
    assert f"| diffusion | {last['diffusion']:.4f} |" in card
    assert "2 steps of 4 examples" in card
    assert "`learning_rate` 0.001" in card
    assert 'from_pretrained("someone/soundscapes")' in card
    PIL.Image.open(published / "curves.png").verify()
    pipe = AVGASPipeline.from_pretrained(published)
    pipe.load_lora_weights(published)


@pytest.mark.slow
def test_overfits_four_pictures(inputs, tmp_path):
    pipe = AVGASPipeline.from_pretrained(inputs / "untrained")
    pipe.register_modules(unet=tiny_unet(block_out_channels=(32, 64), attention_head_dim=8))
    pipe.save_pretrained(tmp_path / "wider")
    train(
        inputs,
        tmp_path / "run",
        pretrained_model_name_or_path=tmp_path / "wider",
        full=True,
        num_sources="1 1",
        num_examples=4,
        cache_examples=True,
        augment_fraction=0,
        train_batch_size=16,
        max_train_steps=200,
        learning_rate=2e-3,
        condition_dropout=0.0,
        checkpointing_steps=1000,
        num_validation_mixtures=1,
    )
    losses = curve(tmp_path / "run", "diffusion")
    first, last = (np.mean([losses[step] for step in steps]) for steps in (range(1, 6), range(161, 201)))
    assert last < 0.2 * first


@pytest.mark.slow
@pytest.mark.parametrize(("mixture_target", "scheduler"), [("collage", "v_prediction"), ("single", "flow")])
def test_targets_and_predictions(inputs, tmp_path, mixture_target, scheduler):
    pipe = AVGASPipeline.from_pretrained(inputs / "untrained")
    if scheduler == "flow":
        pipe.register_modules(scheduler=FlowMatchEulerDiscreteScheduler())
    else:
        pipe.scheduler.register_to_config(prediction_type="v_prediction")
    pipe.save_pretrained(tmp_path / "base")
    train(
        inputs,
        tmp_path / "run",
        pretrained_model_name_or_path=tmp_path / "base",
        max_train_steps=3,
        mixture_target=mixture_target,
        snr_gamma=5 if scheduler == "v_prediction" else None,
        noise_offset=0.1,
        gradient_accumulation_steps=2,
        gradient_checkpointing=True,
        mixed_precision="bf16",
        validation_steps=2,
        num_inference_steps=2,
    )
    assert (tmp_path / "run/validation-2.png").exists()


def test_slots_are_not_shuffled_where_they_alone_say_what_to_draw(inputs, tmp_path):
    pipe = AVGASPipeline.from_pretrained(inputs / "untrained")
    labels = pipe.separator.id2label
    pipe.register_modules(separator=tiny_separator(id2label=labels, visual_embed_dim=16, label_temperature=None))
    pipe.save_pretrained(tmp_path / "unlabelled")
    options = {"pretrained_model_name_or_path": tmp_path / "unlabelled", "slot_shuffle": 0.5}
    with pytest.raises(ValueError, match="unlabelled draws by slots alone, not by labels"):
        train(inputs, tmp_path / "run", **options)


def test_vggsound_with_clap_and_a_stable_diffusion_unet(folder, tmp_path):
    prepare(vggsound_layout(folder), PrepareSettings(), tmp_path / "shards", num_workers=1)
    encoder, extractor = tiny_clap()
    components = tiny_components() | {"audio_encoder": encoder, "audio_feature_extractor": extractor}
    layout = token_layout(encoder)
    components["separator"] = tiny_separator(
        **{**layout, "num_prefix_tokens": 0, "num_frequency_patches": 1}, id2label=dict(enumerate(VGGSOUND_LABELS))
    )
    AVGASPipeline(**components).save_pretrained(tmp_path / "untrained")
    train(tmp_path, tmp_path / "run", dataset=tmp_path / "shards", max_train_steps=2, mixture_target="collage")
    pipe = AVGASPipeline.from_pretrained(tmp_path / "run")
    pipe.load_lora_weights(tmp_path / "run")
    assert draw(pipe).shape == (1, 64, 64, 3)


def test_a_checkpoint_that_composes_learns_one_source_at_a_time(tmp_path, components, inputs, monkeypatch):
    AVGASPipeline(**components, compose_sources=True).save_pretrained(tmp_path / "base")
    shown = []
    collate = script.Collator.__call__

    def watched(self, mixtures):
        batch = collate(self, mixtures)
        shown.append(batch["shown"].sum(dim=1))
        return batch

    monkeypatch.setattr(script.Collator, "__call__", watched)
    options = {"pretrained_model_name_or_path": tmp_path / "base", "max_train_steps": 2, "num_sources": "2 2"}
    train(inputs, tmp_path / "run", **options)
    assert AVGASPipeline.from_pretrained(tmp_path / "run").config.compose_sources
    assert all((count == 1).all() for count in shown)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"mixture_target": "magic"}, "mixture_target has to be one of compose, collage, single"),
        ({"use_8bit_adam": True}, "use_8bit_adam needs bitsandbytes"),
        ({"learning_rate": 1e30, "max_grad_norm": 1e30, "full": True}, "at step"),
    ],
)
def test_wrong_use(inputs, tmp_path, changed, word):
    with pytest.raises(ValueError, match=re.escape(word)):
        train(inputs, tmp_path / "run", **changed)


def test_labels_that_the_checkpoint_lacks(inputs, tmp_path):
    pipe = AVGASPipeline.from_pretrained(inputs / "untrained")
    labels = [*list(CLASSES)[1:], "volcano explosion"]
    pipe.register_modules(separator=tiny_separator(id2label=dict(enumerate(labels)), visual_embed_dim=16))
    pipe.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=f"does not have the label '{next(iter(CLASSES))}'"):
        train(inputs, tmp_path / "run", pretrained_model_name_or_path=tmp_path / "other")


def test_empty_dataset(inputs, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises((ValueError, OSError), match="empty: the folder is empty"):
        train(inputs, tmp_path / "run", dataset=tmp_path / "empty")
