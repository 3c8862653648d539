"""
Train a small autoencoder of pictures, the `vae` of a small pipeline, on scenes composed from soundscapes-mini.

    accelerate launch training/train_autoencoder.py --dataset data/soundscapes-mini --output_dir runs/autoencoder

Writes checkpoints to go on from (`--resume_from_checkpoint latest`), reconstructions of new scenes
(`validation-<step>.png`), curves, and at the end the model, an `AutoencoderDC` with its latents' scale in the config.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from accelerate import Accelerator
from autoencoder_losses import PatchDiscriminator, discriminator_loss, edge_l1, multiscale_mse
from config import parse_config, run_script, setting
from diffusers import AutoencoderDC
from diffusers.training_utils import EMAModel
from run import Run, TrackedRunConfig
from scene_dataset import SceneDataset

from avgas_pipeline.data.soundscapes_mini import load_soundscapes_mini


@dataclass
class AutoencoderConfig(TrackedRunConfig):
    """Settings of `train_autoencoder.py`."""

    output_dir: str = setting("runs/autoencoder", "the run's folder")
    block_out_channels: list[int] = setting(
        [16, 32, 64, 128, 128], "channels at every resolution; the first is not used"
    )
    layers_per_block: int = setting(1, "residual blocks at every resolution")
    latent_channels: int = setting(16, "channels of the latents")
    resolution: int = setting(128, "side of the pictures, in pixels")
    layout: str = setting("compose", "of the scenes: compose or collage")
    augment: bool = setting(True, "vary every object")
    max_train_steps: int = setting(20000, "optimiser steps")
    weight_decay: float = setting(1e-4, "of AdamW")
    edge_weight: float = setting(0.0, "of absolute errors of pixels and edges; blurs less, learns slower")
    latent_weight: float = setting(1e-5, "of the latents' mean square, against which unit noise is set")
    adversarial_weight: float = setting(0.0, "of the patch discriminator; 0 does without")
    adversarial_start: int = setting(0, "step from which on the discriminator counts")
    ema_decay: float = setting(0.999, "of the averaged weights that are saved")
    num_validation_scenes: int = setting(64, "new scenes to validate on")


# Scenes that the latents' scale is measured on.
NUM_SCALE_SCENES = 512


def build_autoencoder(config: AutoencoderConfig) -> AutoencoderDC:
    """
    A deep-compression autoencoder (arXiv 2410.10733), small: blocks begin at half the resolution, since full one costs
    most on a CPU.
    """
    levels = len(config.block_out_channels)
    layers = [0] + [config.layers_per_block] * (levels - 1)
    plain = ((),) * levels
    return AutoencoderDC(
        latent_channels=config.latent_channels,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=config.block_out_channels,
        decoder_block_out_channels=config.block_out_channels,
        encoder_layers_per_block=layers,
        decoder_layers_per_block=layers,
        encoder_qkv_multiscales=plain,
        decoder_qkv_multiscales=plain,
        downsample_block_type="pixel_unshuffle",
        upsample_block_type="pixel_shuffle",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
    )


def main(argv: list[str] | None = None) -> None:
    config = parse_config(AutoencoderConfig, __doc__, argv)
    run = Run(config)
    accelerator = run.accelerator
    pictures = load_soundscapes_mini(config.dataset, "train")[1]
    labels = sorted(set(pictures["label"]))
    scenes = SceneDataset(
        pictures,
        labels,
        config.max_train_steps * run.examples_per_step,
        config.seed,
        config.resolution,
        layout=config.layout,
        augment=config.augment,
    )
    # Another seed: no scene of these is trained on.
    unseen = SceneDataset(
        pictures, labels, config.num_validation_scenes, config.seed + 1, config.resolution, layout=config.layout
    )

    # Channels last: convolutions on a CPU are faster so.
    autoencoder = build_autoencoder(config).to(memory_format=torch.channels_last)
    ema = EMAModel(autoencoder.parameters(), decay=config.ema_decay)
    optimizer = torch.optim.AdamW(
        autoencoder.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99)
    )
    schedule = run.schedule(optimizer)
    model, optimizer, schedule = accelerator.prepare(NoisyAutoencoder(autoencoder), optimizer, schedule)
    adversary = Adversary(config, accelerator) if config.adversarial_weight else None
    ema.to(accelerator.device)
    accelerator.register_for_checkpointing(ema)

    step = run.checkpoints.resume(config.resume_from_checkpoint)
    loader = run.loader(scenes, step)
    run.start_trackers("autoencoder")
    progress = run.progress_bar(step)
    generator = torch.Generator(device=accelerator.device)
    latent_side = config.resolution // 2 ** (len(config.block_out_channels) - 1)
    latent_shape = (config.train_batch_size, config.latent_channels, latent_side, latent_side)
    for batch in loader:
        target = batch["pixel_values"]
        # Noise by step and process, so that going on draws the same.
        generator.manual_seed((config.seed * 10**6 + step) * accelerator.num_processes + accelerator.process_index)
        noise = torch.randn(latent_shape, generator=generator, device=accelerator.device)
        reconstruction, square = model(target, noise)
        losses = {
            "reconstruction": multiscale_mse(reconstruction, target),
            "edges": edge_l1(reconstruction, target),
            "latents": square,
        }
        loss = (
            losses["reconstruction"] + config.edge_weight * losses["edges"] + config.latent_weight * losses["latents"]
        )
        if adversary is not None and step >= config.adversarial_start:
            losses["adversarial"] = adversary.loss(reconstruction)
            loss = loss + config.adversarial_weight * losses["adversarial"]
        run.check_finite(loss, step)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        ema.step(autoencoder.parameters())
        if "adversarial" in losses:
            losses["discriminator"] = adversary.step(target, reconstruction.detach())
        step += 1
        stopping = run.end_step(step, losses, schedule, progress)
        if run.is_due(step, config.validation_steps) and accelerator.is_main_process:
            validate(run, autoencoder, ema, unseen, config, step)
        if stopping:
            break
    progress.close()

    if step == config.max_train_steps and accelerator.is_main_process:
        save(accelerator, autoencoder, ema, scenes, config)
    del model, adversary
    run.end()


class NoisyAutoencoder(torch.nn.Module):
    """One call from pictures to reconstructions, as distributed training wants it."""

    def __init__(self, autoencoder: AutoencoderDC) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, pixel_values: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Reconstructions `(B, 3, H, W)` from latents plus unit noise, and the latents' mean square: what a posterior of
        unit variance diverges from a standard normal one, but for a factor.
        """
        latents = self.autoencoder.encode(pixel_values).latent
        return self.autoencoder.decode(latents + noise).sample, latents.float().square().mean()


class Adversary:
    """A patch discriminator that trains beside the autoencoder."""

    def __init__(self, config: AutoencoderConfig, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        network = PatchDiscriminator()
        optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate / 4, betas=(0.5, 0.9))
        self.network, self.optimizer = accelerator.prepare(network, optimizer)

    def loss(self, reconstruction: torch.Tensor) -> torch.Tensor:
        """What the autoencoder pays for being found out."""
        self.network.requires_grad_(False)
        loss = -self.network(reconstruction).mean()
        self.network.requires_grad_(True)
        return loss

    def step(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        """Learn to tell them apart."""
        loss = discriminator_loss(self.network(real), self.network(fake))
        self.accelerator.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss


@torch.no_grad()
def validate(
    run: Run,
    autoencoder: AutoencoderDC,
    ema: EMAModel,
    scenes: SceneDataset,
    config: AutoencoderConfig,
    step: int,
) -> None:
    """PSNR on new scenes, and a sheet of the first ones above their reconstructions."""
    target = torch.stack([scenes[number]["pixel_values"] for number in range(len(scenes))]).to(run.accelerator.device)
    ema.store(autoencoder.parameters())
    ema.copy_to(autoencoder.parameters())
    parts = [autoencoder.encode(part).latent for part in target.split(config.train_batch_size)]
    reconstruction = torch.cat([autoencoder.decode(part).sample for part in parts])
    ema.restore(autoencoder.parameters())
    # In [-1, 1] the peak is 2.
    psnr = (10 * (4 / (reconstruction.clamp(-1, 1) - target).square().mean(dim=(1, 2, 3))).log10()).mean()
    run.log({"psnr_db": psnr.item()}, step)
    run.accelerator.print(f"step {step}: {psnr.item():.2f} dB on new scenes")
    rows = torch.cat([torch.cat(list(images[:12]), dim=2) for images in (target, reconstruction)], dim=1)
    sheet = ((rows.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    PIL.Image.fromarray(np.ascontiguousarray(sheet)).save(Path(config.output_dir) / f"validation-{step}.png")


@torch.no_grad()
def save(
    accelerator: Accelerator,
    autoencoder: AutoencoderDC,
    ema: EMAModel,
    scenes: SceneDataset,
    config: AutoencoderConfig,
) -> None:
    """The averaged model, with the factor that brings its latents to a standard deviation of 1."""
    ema.copy_to(autoencoder.parameters())
    latents = []
    for index in range(min(len(scenes), NUM_SCALE_SCENES)):
        pixels = scenes[index]["pixel_values"][None].to(accelerator.device)
        latents.append(autoencoder.encode(pixels).latent)
    autoencoder.register_to_config(scaling_factor=round(1 / torch.cat(latents).std().item(), 6))
    autoencoder.save_pretrained(config.output_dir)


if __name__ == "__main__":
    run_script(main)
