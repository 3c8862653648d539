"""`train_autoencoder.py` learns pictures, goes on exactly, and ends with a VAE whose latents have unit scale."""

import numpy as np
import pytest
import torch
import train_autoencoder as script
import training_runs as runs
from diffusers import AutoencoderDC
from tiny import tiny_components
from training_runs import curve

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.data.soundscapes_mini import find_soundscapes_mini, load_soundscapes_mini
from avgas_training.data.scenes import SceneDataset
from avgas_training.settings import AutoencoderSettings


def settings(out, **changed):
    return {
        "dataset": find_soundscapes_mini(),
        "output_dir": out,
        "block_out_channels": "8 16",
        "latent_channels": 4,
        "resolution": 32,
        "train_batch_size": 4,
        "max_train_steps": 8,
        "checkpointing_steps": 4,
        "validation_steps": 8,
        "num_validation_scenes": 4,
        "lr_warmup_steps": 2,
        "dataloader_num_workers": 0,
        "logging_steps": 1,
        **changed,
    }


def train(out, **changed):
    runs.run(script.main, settings(out, **changed))


@pytest.mark.slow
def test_learns_and_scales_its_latents(tmp_path):
    train(tmp_path / "run", max_train_steps=300, train_batch_size=16, learning_rate=3e-3, checkpointing_steps=1000)
    losses = curve(tmp_path / "run", "reconstruction")
    assert np.mean([losses[step] for step in range(281, 301)]) < 0.5 * np.mean([losses[step] for step in range(1, 11)])
    assert (tmp_path / "run/validation-296.png").exists()
    vae = AutoencoderDC.from_pretrained(tmp_path / "run")
    pictures = load_soundscapes_mini(find_soundscapes_mini())[1]
    scenes = SceneDataset(pictures, sorted(set(pictures["label"])), 64, image_size=32)
    pixels = torch.stack([scenes[number]["pixel_values"] for number in range(64)])
    with torch.no_grad():
        latents = vae.encode(pixels).latent * vae.config.scaling_factor
    assert latents.std().item() == pytest.approx(1.0, abs=0.15)


def test_a_decoder_alone_learns_the_latents_that_there_are(tmp_path):
    components = {
        **tiny_components(),
        "vae": script.build_autoencoder(AutoencoderSettings(block_out_channels=[8, 16])),
    }
    components["vae"].register_to_config(scaling_factor=0.7)
    AVGASPipeline(**components).save_pretrained(tmp_path / "base")
    options = {"pretrained_model_name_or_path": tmp_path / "base", "block_out_channels": None, "latent_channels": 16}
    train(tmp_path / "run", decoder_only=True, **options)
    before, after = (AutoencoderDC.from_pretrained(folder) for folder in (tmp_path / "base/vae", tmp_path / "run"))
    assert after.config.scaling_factor == 0.7
    for name, weight in after.state_dict().items():
        assert torch.equal(weight, before.state_dict()[name]) == name.startswith("encoder."), name
    (checkpoint,) = sorted((tmp_path / "run").glob("checkpoint-*"))[-1:]
    assert runs.holds_averages(after.state_dict(), checkpoint)
    with pytest.raises(ValueError, match="decoder_only needs"):
        train(tmp_path / "other", decoder_only=True)


@pytest.mark.slow
def test_killed_run_goes_on_exactly(tmp_path):
    train(tmp_path / "straight")
    out = tmp_path / "run"
    runs.kill_after(out / "checkpoint-4", "config.json", runs.command("train_autoencoder.py", settings(out)))
    train(out, resume_from_checkpoint="latest")
    expected, got = (curve(folder, "reconstruction") for folder in (tmp_path / "straight", out))
    assert got == pytest.approx(expected, abs=1e-6)
    name = "diffusion_pytorch_model.safetensors"
    assert (out / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
