"""
Distil a pipeline's drawing: few steps without guidance then draw what its many steps with guidance do.

    accelerate launch training/distill.py --pretrained_model_name_or_path runs/drawing --full true \\
        --dataset data/soundscapes-mini --output_dir runs/distilled

For any checkpoint with a scheduler of betas, Stable Diffusion's shape included. Each step of the student learns to go
where several steps of the teacher, with guidance, lead from the same noisy latents (arXiv 2202.00512, 2210.03142).
The result is a pipeline with the student's DDIM, whose defaults are these steps and no guidance: with its U-Net if
`--full true`, or else with the U-Net as it was, and LoRA layers beside it, which `load_lora_weights` loads in Python
and the command line by itself. Of pipelines that draw by labels alone pictures are enough; the others learn from
mixtures. Examples are encoded once,
into the run's folder. After an interruption `--resume_from_checkpoint latest` goes on exactly.
"""

import logging
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from accelerate import Accelerator
from diffusers import UNet2DConditionModel
from diffusers.training_utils import EMAModel
from peft import LoraConfig
from torch.utils.data import Dataset

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.files import atomic_path
from avgas_training.averages import averaged
from avgas_training.card import create_repo, finish
from avgas_training.checkpoints import save_trainable_only
from avgas_training.command_line import parse_settings, run_script
from avgas_training.models.distillation import FewSteps, Prediction
from avgas_training.models.drawn import draw
from avgas_training.models.examples import EncodedSoundscapes, LabelledPictures, draws_by_labels_alone
from avgas_training.precision import set_precision
from avgas_training.randomness import RowRandom
from avgas_training.result import save_pipeline
from avgas_training.run import Run, build_schedule
from avgas_training.settings import DistillSettings


# Examples that teacher and student are compared on.
COMPARED = 8
OF_MIXTURES = (
    *("dataset_split", "dataset_layout", "dataset_columns"),
    *("num_sources", "mixture_target", "separated_fraction", "augment_fraction"),
)

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_settings(DistillSettings, __doc__, argv)
    run = Run(settings)
    accelerator = run.accelerator
    repo_id = create_repo(run)
    pipe = AVGASPipeline.from_pretrained(settings.pretrained_model_name_or_path, dtype=torch.float32)
    guidance = settings.guidance_scale
    if guidance is None:
        guidance = pipe.config.default_guidance_scale
    few = FewSteps(pipe.scheduler, settings.num_inference_steps, settings.teacher_steps, guidance)
    if guidance <= 1:
        logger.warning("The teacher has no guidance: the student will have none to learn. See guidance_scale.")
    by_labels = draws_by_labels_alone(pipe.separator) and pipe.config.compose_sources
    if by_labels:
        settings.refuse(OF_MIXTURES, "where pictures of labels are learnt from, without mixtures")
    length = settings.max_train_steps * run.examples_per_step
    source = (LabelledPictures if by_labels else EncodedSoundscapes)(pipe, settings, length)

    pipe.separator.requires_grad_(False).to(accelerator.device).eval()
    free_weights(pipe.unet, settings)
    resolution = settings.resolution or pipe.default_size[0]
    weight_dtype = set_precision(settings, accelerator, pipe, pipe.unet, resolution)
    teacher = teacher_of(pipe.unet, settings, accelerator.device)
    trained = [weight for weight in pipe.unet.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = build_schedule(settings, optimizer, accelerator.num_processes)
    ema = EMAModel(trained, decay=settings.ema_decay)
    save_trainable_only(accelerator)
    student, optimizer, schedule = accelerator.prepare(pipe.unet, optimizer, schedule)
    run.checkpoints.keep(ema)
    step = run.checkpoints.resume(settings.resume_from_checkpoint)
    examples = source.encoded(settings, accelerator)
    loader = run.loader(examples, step)

    def teach(latents: torch.Tensor, timesteps: torch.Tensor, conditions: dict[str, Any]) -> torch.Tensor:
        with accelerator.autocast():
            return teacher(latents, timesteps, conditions).float()

    run.start_trackers("distillation")
    progress = run.progress_bar(step)
    student.train()
    for batch in loader:
        random = run.random(step)
        with torch.no_grad():
            latents = source.latents(batch, random)
            nothing = torch.zeros(len(latents), dtype=torch.bool, device=latents.device)
            conditions, without = (source.conditions(batch, dropped) for dropped in (nothing, ~nothing))
            steps = random.integers(settings.num_inference_steps, latents.device)
            timesteps = few.timesteps[:, 0].to(latents.device)[steps]
            signal, noise = few.levels(timesteps)
            noisy = signal * latents + noise * random.normal(latents.shape, latents.device)
            target = few.target(teach, noisy, steps, conditions, without)
        prediction = student(noisy, timesteps, **conditions, return_dict=False)[0]
        loss = few.loss(prediction, target, noisy, steps)
        run.learn(loss, step, trained, optimizer, schedule)
        ema.step(trained)
        step += 1
        stopping = run.end_step(step, {"distillation": loss}, schedule, progress)
        if run.is_due(step, settings.validation_steps) and accelerator.is_main_process:
            with averaged(ema, trained):
                compare(teach, accelerator, source, examples, few, pipe, settings, step)
            student.train()
        if stopping:
            break
    progress.close()
    accelerator.wait_for_everyone()
    if step == settings.max_train_steps and accelerator.is_main_process:
        ema.copy_to(trained)
        use_few_steps(pipe, few, settings)
        save_pipeline(pipe, settings, weight_dtype)
        finish(run, pipe, Path(__file__).name, repo_id, "What the teacher draws, and below it what the student does:")
    del student
    run.end(step, "avgas generate recording.wav --model {}")


def free_weights(unet: UNet2DConditionModel, settings: DistillSettings) -> None:
    """Frees all weights, or adds LoRA layers."""
    unet.requires_grad_(settings.full)
    if not settings.full:
        lora = {"r": settings.rank, "lora_alpha": settings.rank, "init_lora_weights": "gaussian"}
        unet.add_adapter(LoraConfig(target_modules=settings.lora_target_modules, **lora))


def teacher_of(unet: UNet2DConditionModel, settings: DistillSettings, device: torch.device) -> Prediction:
    """What a U-Net predicts as long as nothing is trained: that of a copy, or its own without LoRA layers."""
    teacher = deepcopy(unet).requires_grad_(False).to(device).eval() if settings.full else unet

    def predict(latents: torch.Tensor, timesteps: torch.Tensor, conditions: dict[str, Any]) -> torch.Tensor:
        if not settings.full:
            unet.disable_adapters()
        try:
            return teacher(latents.to(teacher.dtype), timesteps, **conditions, return_dict=False)[0]
        finally:
            if not settings.full:
                unet.enable_adapters()

    return predict


def compare(
    teach: Prediction,
    accelerator: Accelerator,
    source: LabelledPictures | EncodedSoundscapes,
    examples: Dataset,
    few: FewSteps,
    pipe: AVGASPipeline,
    settings: DistillSettings,
    step: int,
) -> None:
    """`validation-<step>.png`: what the teacher draws of the first examples, and below it what the student does."""
    pipe.unet.eval()
    count = min(COMPARED, settings.num_examples)
    batch = torch.utils.data.default_collate([examples[number] for number in range(count)])
    batch = {name: value.to(accelerator.device) for name, value in batch.items()}
    nothing = torch.zeros(count, dtype=torch.bool, device=accelerator.device)
    with torch.no_grad():
        conditions, without = (source.conditions(batch, dropped) for dropped in (nothing, ~nothing))
        shape = source.latents(batch, RowRandom(settings.seed, range(count))).shape
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(accelerator.device)

    def predict(latents: torch.Tensor, timesteps: torch.Tensor, given: dict[str, Any]) -> torch.Tensor:
        with accelerator.autocast():
            return pipe.unet(latents.to(pipe.unet.dtype), timesteps, **given, return_dict=False)[0].float()

    given = (pipe.vae, few.scheduler, conditions, without, noise)
    rows = [
        draw(teach, *given, settings.teacher_steps, few.guidance_scale),
        draw(predict, *given, settings.num_inference_steps, 1.0),
    ]
    with atomic_path(Path(settings.output_dir) / f"validation-{step}.png") as path:
        PIL.Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows])).save(path)


def use_few_steps(pipe: AVGASPipeline, few: FewSteps, settings: DistillSettings) -> None:
    """Has the pipeline draw in these steps, without guidance, unless a call says otherwise."""
    known = {
        **(pipe.separator.config.pipeline_settings or {}),
        "default_num_inference_steps": settings.num_inference_steps,
        "default_guidance_scale": 1.0,
    }
    pipe.register_modules(scheduler=few.scheduler)
    pipe.register_to_config(
        **{name: known[name] for name in ("default_num_inference_steps", "default_guidance_scale")}
    )
    # So that a pipeline made of this one's components has them, too.
    pipe.separator.register_to_config(pipeline_settings=known)


if __name__ == "__main__":
    run_script(main)
