"""
Train what draws of a small pipeline, U-Net and label tokens, on pictures alone: labels in, pictures out.

    accelerate launch training/train_drawing.py --config training/configs/mini-drawing.yaml \\
        --pretrained_model_name_or_path avgas-mini --autoencoder runs/autoencoder --output_dir runs/drawing

It is for pipelines whose pictures follow from labels alone (`training/mini/tokens_of_labels.py`), so that no sound is
needed, and which compose mixed pictures of their sources' own. Pictures are encoded once, into the run's folder.
Writes checkpoints (`--resume_from_checkpoint latest` goes on exactly), curves, pictures of a few labels
with the same noise every time (`validation-<step>.png`), and at the end the pipeline.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from diffusers import AutoencoderDC, UNet2DConditionModel
from diffusers.training_utils import EMAModel

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.files import atomic_path
from avgas_training.averages import averaged
from avgas_training.card import finish
from avgas_training.command_line import parse_settings, run_script
from avgas_training.losses.diffusion import diffusion_loss
from avgas_training.models.drawing import DrawingModel
from avgas_training.models.drawn import draw
from avgas_training.models.examples import LabelledPictures, draws_by_labels_alone
from avgas_training.models.latents import Noise
from avgas_training.run import Run, build_schedule
from avgas_training.settings import DrawingSettings


# Of the sheet that is looked at.
SHEET_ROWS, SHEET_COLUMNS = 6, 8


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_settings(DrawingSettings, __doc__, argv)
    run = Run(settings)
    accelerator = run.accelerator
    pipe = AVGASPipeline.from_pretrained(settings.pretrained_model_name_or_path, dtype=torch.float32)
    replace_parts(pipe, settings)
    length = settings.max_train_steps * run.examples_per_step
    noise = Noise(pipe.scheduler, snr_gamma=settings.snr_gamma)
    source = LabelledPictures(pipe, settings, length)
    examples, labels = source.dataset, source.labels
    missing = sorted(set(labels) - {labels[number] for number in examples.drawable})
    accelerator.print(f"{len(examples.drawable)} labels have pictures; {len(missing)} have none: {missing[:10]}")

    model = source.model
    trained = list(model.parameters())
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = build_schedule(settings, optimizer, accelerator.num_processes)
    ema = EMAModel(trained, decay=settings.ema_decay)
    prepared, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
    run.checkpoints.keep(ema)
    step = run.checkpoints.resume(settings.resume_from_checkpoint)

    loader = run.loader(source.encoded(settings, accelerator), step)
    run.start_trackers("drawing")
    progress = run.progress_bar(step)
    model.train()
    for batch in loader:
        random = run.random(step)
        latents = source.latents(batch, random)
        noisy, timesteps, target = noise.add(latents, random)
        dropped = random.uniform(latents.device) < settings.condition_dropout
        prediction = prepared(noisy, timesteps, batch["label"], dropped)
        loss = diffusion_loss(prediction, target, timesteps, noise.scheduler, noise.snr_gamma)
        run.learn(loss, step, trained, optimizer, schedule)
        ema.step(trained)
        step += 1
        stopping = run.end_step(step, {"diffusion": loss}, schedule, progress)
        if run.is_due(step, settings.validation_steps) and accelerator.is_main_process:
            with averaged(ema, trained):
                sheet = draw_sheet(model, pipe, examples.drawable, settings, accelerator.device)
            with atomic_path(Path(settings.output_dir) / f"validation-{step}.png") as path:
                PIL.Image.fromarray(sheet).save(path)
            model.train()
        if stopping:
            break
    progress.close()
    accelerator.wait_for_everyone()
    if step == settings.max_train_steps and accelerator.is_main_process:
        ema.copy_to(trained)
        pipe.to("cpu").save_pretrained(settings.output_dir)
        finish(run, pipe, Path(__file__).name, None, "Labels drawn with fixed seeds:")
    del prepared
    run.end(step, "avgas generate recording.wav --model {}")


def replace_parts(pipe: AVGASPipeline, settings: DrawingSettings) -> None:
    """
    The autoencoder and U-Net that settings ask for, in place of the checkpoint's.

    Raises:
        ValueError: If the checkpoint does not draw by labels alone, or autoencoder and U-Net do not go together.
    """
    name, separator = settings.pretrained_model_name_or_path, pipe.separator
    if not draws_by_labels_alone(separator):
        raise ValueError(f"{name}: does not draw by labels alone; see training/mini/tokens_of_labels.py.")
    if settings.autoencoder is not None:
        pipe.register_modules(vae=AutoencoderDC.from_pretrained(settings.autoencoder, use_safetensors=True))
    if not isinstance(pipe.vae, AutoencoderDC):
        raise ValueError(f"{name}: its autoencoder is an {type(pipe.vae).__name__}, not an AutoencoderDC.")
    side, rest = divmod(settings.resolution, 2 ** (len(pipe.vae.config.encoder_block_out_channels) - 1))
    if settings.new_unet and not rest:
        pipe.register_modules(unet=build_unet(settings.new_unet, pipe, side))
    if rest or pipe.unet.config.sample_size != side:
        raise ValueError(f"resolution: U-Net and autoencoder do not draw pictures of {settings.resolution} pixels.")
    pipe.register_to_config(compose_sources=True)
    # So that a pipeline made of this one's components does so, too.
    known = {**(separator.config.pipeline_settings or {}), "compose_sources": True}
    separator.register_to_config(pipeline_settings=known)


def build_unet(channels: Sequence[int], pipe: AVGASPipeline, side: int) -> UNet2DConditionModel:
    """A new U-Net for latents of a side, without cross-attention at full resolution, where it costs most."""
    torch.manual_seed(0)
    attending = len(channels) - 1
    return UNet2DConditionModel(
        sample_size=side,
        in_channels=pipe.vae.config.latent_channels,
        out_channels=pipe.vae.config.latent_channels,
        block_out_channels=channels,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * attending,
        up_block_types=("CrossAttnUpBlock2D",) * attending + ("UpBlock2D",),
        layers_per_block=1,
        cross_attention_dim=pipe.separator.config.cross_attention_dim,
        attention_head_dim=[max(width // 32, 1) for width in channels],
        norm_num_groups=16,
    )


@torch.no_grad()
def draw_sheet(
    model: DrawingModel,
    pipe: AVGASPipeline,
    drawable: Sequence[int],
    settings: DrawingSettings,
    device: torch.device,
) -> np.ndarray:
    """Pictures of the same labels with the same noise every time."""
    model.eval()
    rng = np.random.default_rng(0)
    side = model.unet.config.sample_size
    shape = (SHEET_COLUMNS, model.unet.config.in_channels, side, side)
    rows = []
    for number in range(SHEET_ROWS):
        labels = torch.from_numpy(rng.choice(drawable, size=SHEET_COLUMNS)).to(device)
        nothing = torch.zeros(SHEET_COLUMNS, dtype=torch.bool, device=device)
        conditions, without = (model.conditions(labels, dropped) for dropped in (nothing, ~nothing))
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(number)).to(device)
        pictures = draw(
            lambda latents, times, given: model.unet(latents, times, **given, return_dict=False)[0],
            pipe.vae,
            pipe.scheduler,
            conditions,
            without,
            noise,
            settings.num_inference_steps,
            settings.guidance_scale,
        )
        rows.append(np.concatenate(list(pictures), axis=1))
    return np.concatenate(rows)


if __name__ == "__main__":
    run_script(main)
