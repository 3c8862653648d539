"""
Train a small autoencoder of pictures, the `vae` of a small pipeline, on scenes composed from soundscapes-mini.

    accelerate launch training/train_autoencoder.py --dataset data/soundscapes-mini --output_dir runs/autoencoder

Writes checkpoints to go on from (`--resume_from_checkpoint latest`), reconstructions of new scenes
(`validation-<step>.png`), curves, and at the end the model, an `AutoencoderDC` with its latents' scale in the config.
`--decoder_only true` leaves latents as they are: what a U-Net that has learnt them draws is decoded better.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from accelerate import Accelerator
from datasets import Dataset, Features, Value, concatenate_datasets
from diffusers import AutoencoderDC
from diffusers.training_utils import EMAModel

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.data.soundscapes_mini import load_soundscapes_mini
from avgas_pipeline.files import atomic_path
from avgas_training.averages import averaged
from avgas_training.command_line import parse_settings, run_script
from avgas_training.data.scenes import SceneDataset
from avgas_training.losses.autoencoder import edge_l1, multiscale_mse
from avgas_training.run import Run, build_schedule
from avgas_training.settings import AutoencoderSettings


# Scenes that the latents' scale is measured on.
NUM_SCALE_SCENES = 512
PICTURES = Features({"label": Value("string"), "source_group": Value("string"), "image": Value("binary")})


def build_autoencoder(settings: AutoencoderSettings) -> AutoencoderDC:
    """
    A deep-compression autoencoder (arXiv 2410.10733), small: blocks begin at half the resolution, since full one costs
    most on a CPU.
    """
    levels = len(settings.block_out_channels)
    layers = [0] + [1] * (levels - 1)
    plain = ((),) * levels
    return AutoencoderDC(
        latent_channels=settings.latent_channels,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=settings.block_out_channels,
        decoder_block_out_channels=settings.block_out_channels,
        encoder_layers_per_block=layers,
        decoder_layers_per_block=layers,
        encoder_qkv_multiscales=plain,
        decoder_qkv_multiscales=plain,
        downsample_block_type="pixel_unshuffle",
        upsample_block_type="pixel_shuffle",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
    )


def load_autoencoder(settings: AutoencoderSettings) -> AutoencoderDC:
    """A new autoencoder, or that of a pipeline."""
    if settings.pretrained_model_name_or_path is None:
        return build_autoencoder(settings)
    pipe = AVGASPipeline.from_pretrained(settings.pretrained_model_name_or_path, dtype=torch.float32)
    if not isinstance(pipe.vae, AutoencoderDC):
        raise ValueError(
            f"{settings.pretrained_model_name_or_path}: its autoencoder is an {type(pipe.vae).__name__}; only an"
            " AutoencoderDC is trained here."
        )
    return pipe.vae


def load_pictures(path: str) -> Dataset:
    """
    A Parquet table of pictures, with `label`, `source_group` and `image`; every group is drawn as often as a label.

    Raises:
        ValueError: If it is something else.
    """
    table = Dataset.from_parquet(path)
    missing = sorted(set(PICTURES) - set(table.column_names))
    if missing:
        raise ValueError(f"{path}: has no column {missing[0]!r}.")
    groups = table["source_group"]
    table = table.remove_columns("label").add_column("label", [f"{path} {group}" for group in groups])
    return table.select_columns(list(PICTURES)).cast(PICTURES)


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_settings(AutoencoderSettings, __doc__, argv)
    run = Run(settings)
    accelerator = run.accelerator
    tables = [load_soundscapes_mini(settings.dataset, "train")[1], *map(load_pictures, settings.extra_pictures)]
    pictures = concatenate_datasets([table.select_columns(list(PICTURES)) for table in tables])
    labels = sorted(set(pictures["label"]))
    scenes = SceneDataset(
        pictures,
        labels,
        settings.max_train_steps * run.examples_per_step,
        settings.seed,
        settings.resolution,
        (1, settings.max_objects),
        layout=settings.layout,
        augment=settings.augment,
    )
    # Another seed: no scene of these is trained on.
    unseen = SceneDataset(
        pictures,
        labels,
        settings.num_validation_scenes,
        settings.seed + 1,
        settings.resolution,
        (1, settings.max_objects),
        layout=settings.layout,
    )

    # Channels last: convolutions on a CPU are faster so.
    autoencoder = load_autoencoder(settings).to(memory_format=torch.channels_last)
    if settings.decoder_only:
        autoencoder.encoder.requires_grad_(False)
    trained = [weight for weight in autoencoder.parameters() if weight.requires_grad]
    ema = EMAModel(trained, decay=settings.ema_decay)
    optimizer = torch.optim.AdamW(
        trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.99)
    )
    schedule = build_schedule(settings, optimizer, accelerator.num_processes)
    model, optimizer, schedule = accelerator.prepare(NoisyAutoencoder(autoencoder), optimizer, schedule)
    run.checkpoints.keep(ema)

    step = run.checkpoints.resume(settings.resume_from_checkpoint)
    loader = run.loader(scenes, step)
    run.start_trackers("autoencoder")
    progress = run.progress_bar(step)
    generator = torch.Generator(device=accelerator.device)
    config = autoencoder.config
    latent_side = settings.resolution // 2 ** (len(config.encoder_block_out_channels) - 1)
    latent_shape = (settings.train_batch_size, config.latent_channels, latent_side, latent_side)
    weights = {"reconstruction": 1.0, "edges": settings.edge_weight, "latents": settings.latent_weight}
    for batch in loader:
        target = batch["pixel_values"]
        # Noise by step and process, so that going on draws the same.
        generator.manual_seed((settings.seed * 10**6 + step) * accelerator.num_processes + accelerator.process_index)
        noise = settings.latent_noise * torch.randn(latent_shape, generator=generator, device=accelerator.device)
        reconstruction, square = model(target, noise)
        losses = {
            "reconstruction": multiscale_mse(reconstruction, target),
            "edges": edge_l1(reconstruction, target),
            "latents": square,
        }
        loss = sum(weights[name] * value for name, value in losses.items())
        run.learn(loss, step, trained, optimizer, schedule)
        ema.step(trained)
        step += 1
        stopping = run.end_step(step, losses, schedule, progress)
        if run.is_due(step, settings.validation_steps) and accelerator.is_main_process:
            with averaged(ema, trained):
                validate(run, autoencoder, unseen, settings, step)
        if stopping:
            break
    progress.close()
    accelerator.wait_for_everyone()
    if step == settings.max_train_steps and accelerator.is_main_process:
        ema.copy_to(trained)
        save(accelerator, autoencoder, scenes, settings)
    del model
    run.end(step, "training/train_drawing.py --autoencoder {}")


class NoisyAutoencoder(torch.nn.Module):
    """One call from pictures to reconstructions, as distributed training wants it."""

    def __init__(self, autoencoder: AutoencoderDC) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, pixel_values: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Reconstructions `(B, 3, H, W)` from latents plus noise, and the latents' mean square: what a posterior of the
        noise's variance diverges from a normal one, but for a factor and a constant.
        """
        latents = self.autoencoder.encode(pixel_values).latent
        return self.autoencoder.decode(latents + noise).sample, latents.float().square().mean()


@torch.no_grad()
def validate(
    run: Run,
    autoencoder: AutoencoderDC,
    scenes: SceneDataset,
    settings: AutoencoderSettings,
    step: int,
) -> None:
    """PSNR on new scenes, and a sheet of the first ones above their reconstructions."""
    target = torch.stack([scenes[number]["pixel_values"] for number in range(len(scenes))]).to(run.accelerator.device)
    parts = [autoencoder.encode(part).latent for part in target.split(settings.train_batch_size)]
    reconstruction = torch.cat([autoencoder.decode(part).sample for part in parts])
    # In [-1, 1] the peak is 2.
    psnr = (10 * (4 / (reconstruction.clamp(-1, 1) - target).square().mean(dim=(1, 2, 3))).log10()).mean()
    run.log({"psnr_db": psnr.item()}, step)
    run.accelerator.print(f"step {step}: {psnr.item():.2f} dB on new scenes")
    rows = torch.cat([torch.cat(list(images[:12]), dim=2) for images in (target, reconstruction)], dim=1)
    sheet = ((rows.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    with atomic_path(Path(settings.output_dir) / f"validation-{step}.png") as path:
        PIL.Image.fromarray(np.ascontiguousarray(sheet)).save(path)


@torch.no_grad()
def save(
    accelerator: Accelerator, autoencoder: AutoencoderDC, scenes: SceneDataset, settings: AutoencoderSettings
) -> None:
    """The model, with the factor that brings its latents to a standard deviation of 1, if they are new."""
    if not settings.decoder_only:
        latents = []
        for index in range(min(len(scenes), NUM_SCALE_SCENES)):
            pixels = scenes[index]["pixel_values"][None].to(accelerator.device)
            latents.append(autoencoder.encode(pixels).latent)
        autoencoder.register_to_config(scaling_factor=round(1 / torch.cat(latents).std().item(), 6))
    autoencoder.save_pretrained(settings.output_dir)


if __name__ == "__main__":
    run_script(main)
