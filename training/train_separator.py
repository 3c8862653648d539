"""
Train audio encoder and separator of a pipeline: which sources there are in mixtures of clips, and what is whose.

    accelerate launch training/train_separator.py --pretrained_model_name_or_path untrained \\
        --config training/configs/mini-separator.yaml --output_dir runs/separator
    accelerate launch training/train_separator.py --pretrained_model_name_or_path untrained \\
        --dataset vggsound-shards --image_encoder openai/clip-vit-base-patch32 --output_dir runs/separator

The checkpoint it begins with may be untrained (`AVGASPipeline.from_stable_diffusion`); the one it writes is a pipeline
with the trained audio encoder and separator in place of the old ones. Two presets train the baselines:
`--config training/configs/presets/single_embedding.yaml` or `paper.yaml`. After an interruption
`--resume_from_checkpoint latest` goes on exactly.
"""

import math
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from diffusers.training_utils import EMAModel

from avgas_pipeline import AudioVisualSeparatorOutput, AVGASPipeline
from avgas_pipeline.data.clips import load_clips
from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.evaluation import MixtureSet
from avgas_pipeline.evaluation.encoding import encode_soundscapes
from avgas_pipeline.evaluation.scoring import presence_average_precision, score_sound
from avgas_training.card import create_repo, finish
from avgas_training.command_line import parse_settings, run_script
from avgas_training.data.selection import add_clips, check_labels, hold_out_groups
from avgas_training.data.soundscapes import Collator, SoundscapeDataset, window_s
from avgas_training.losses.matching import SeparationTargets, match_sources
from avgas_training.losses.separation import losses_for
from avgas_training.models.image_teacher import load_picture_embeds
from avgas_training.models.separation import (
    SeparationModel,
    build_separation_model,
    condition_weights,
    set_train_mode,
)
from avgas_training.models.target_builder import TargetBuilder
from avgas_training.models.teacher import Teacher
from avgas_training.processes import Processes
from avgas_training.run import Run, build_schedule
from avgas_training.settings import SeparatorSettings


# Mixtures among whose clips and pictures slots have to find their own.
NUM_ALIGNED_MIXTURES = 32


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_settings(SeparatorSettings, __doc__, argv)
    run = Run(settings, settings.gradient_accumulation_steps)
    accelerator = run.accelerator
    repo_id = create_repo(run)
    pipe = AVGASPipeline.from_pretrained(settings.pretrained_model_name_or_path, dtype=torch.float32)
    extractor, separation = build_separation_model(settings, pipe)
    encoder, separator = separation.audio_encoder, separation.separator
    clips, pictures = load_clips(**settings.clips_of_dataset())
    label2id = check_labels(clips["label"], separator.id2label, settings.pretrained_model_name_or_path)
    known, held_out = hold_out_groups(clips, settings.validation_fraction, settings.seed)
    known = add_clips(known, settings.extra_clips, label2id)
    if not settings.a2v_weight:
        # Not all of the labels need pictures.
        pictures = None
    picture_embeds, picture_rows = load_picture_embeds(
        settings.image_encoder if settings.a2v_weight else None, pictures or clips, separator, accelerator.device
    )
    window = {"duration_s": window_s(extractor), "sampling_rate": extractor.sampling_rate, "target": None}
    sampler = MixtureSampler(
        known,
        pictures,
        seed=settings.seed,
        num_sources=tuple(settings.num_sources),
        gain_range_db=settings.gain_range_db,
        augment=settings.augment_fraction,
        balance=settings.balance,
        **window,
    )
    most = settings.num_sources[1]
    collate = Collator(extractor, encoder, label2id, most, picture_rows, with_stems=settings.a2a_weight > 0)

    if settings.gradient_checkpointing:
        encoder.gradient_checkpointing_enable()
        separator.enable_gradient_checkpointing()
    groups = parameter_groups(settings, separation)
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    schedule = build_schedule(settings, optimizer, accelerator.num_processes)
    ema = EMAModel(separation.parameters(), decay=settings.ema_decay)
    teacher = Teacher(separation, ema)
    target_builder = TargetBuilder(
        teacher if settings.a2a_weight else None,
        picture_embeds,
        extractor.sampling_rate,
        accelerator,
        settings.mask_fraction,
    )
    model, optimizer, schedule = accelerator.prepare(separation, optimizer, schedule)
    teacher.to(accelerator.device)
    run.checkpoints.keep(ema)

    step = run.checkpoints.resume(settings.resume_from_checkpoint)
    teacher.update(separation)
    num_epochs = math.ceil(settings.max_train_steps * run.examples_per_step / settings.num_examples)
    loader = run.loader(SoundscapeDataset(sampler, settings.num_examples, num_epochs), step, collate)
    validation = None
    if len(held_out):
        validation_sampler = MixtureSampler(
            held_out, pictures, settings.seed, (1, min(most, len(set(held_out["label"])))), **window
        )
        plans = [validation_sampler.plan(number) for number in range(settings.num_validation_mixtures)]
        validation = MixtureSet(validation_sampler, plans, settings.dataset, "train", "held-out source groups")
    run.start_trackers("separator")
    processes, weights = Processes(accelerator), settings.loss_weights()

    progress = run.progress_bar(step)
    set_train_mode(separation)
    for batch in loader:
        with accelerator.accumulate(model):
            spectrogram, targets = target_builder.build(batch, separator.config)
            output = AudioVisualSeparatorOutput(*model(batch["encoder"], spectrogram))
            losses = losses_for(output)(output, targets, settings.label_smoothing, processes)
            loss = sum(weights[name] * value for name, value in losses.items())
            run.check_finite(loss, step)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        if not accelerator.sync_gradients:
            continue
        ema.step(separation.parameters())
        teacher.update(separation)
        step += 1
        stopping = run.end_step(step, {**losses, "loss": loss}, schedule, progress)
        if validation is not None and run.is_due(step, settings.validation_steps) and accelerator.is_main_process:
            measured = validate(teacher, pipe, extractor, validation, picture_embeds, collate)
            run.log(measured, step)
            accelerator.print(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in measured.items()))
        if stopping:
            break
    progress.close()
    accelerator.wait_for_everyone()
    if step == settings.max_train_steps and accelerator.is_main_process:
        pipe.register_modules(
            audio_encoder=teacher.model.audio_encoder,
            separator=teacher.model.separator,
            audio_feature_extractor=extractor,
        )
        pipe.save_pretrained(settings.output_dir)
        finish(run, pipe, Path(__file__).name, repo_id)
    del model
    run.end(step, "avgas generate recording.wav --model {}")


def parameter_groups(settings: SeparatorSettings, separation: SeparationModel) -> list[dict[str, Any]]:
    """
    The separator without what only the generator trains, and the trainable part of the encoder.

    Raises:
        ValueError: If `encoder_trainable` fits none of the encoder's weights.
    """
    for weight in condition_weights(separation.separator):
        weight.requires_grad_(False)
    prefixes = tuple(settings.encoder_trainable) or ("",)
    if not any(name.startswith(prefixes) for name, _ in separation.audio_encoder.named_parameters()):
        raise ValueError(f"encoder_trainable: no weight's name begins with one of {settings.encoder_trainable}.")
    for name, weight in separation.audio_encoder.named_parameters():
        weight.requires_grad_(settings.encoder_learning_rate > 0 and name.startswith(prefixes))
    own = [weight for weight in separation.separator.parameters() if weight.requires_grad]
    encoder = [weight for weight in separation.audio_encoder.parameters() if weight.requires_grad]
    groups = [{"params": own, "lr": settings.learning_rate}]
    return [*groups, {"params": encoder, "lr": settings.encoder_learning_rate}] if encoder else groups


@torch.no_grad()
def validate(
    teacher: Teacher,
    pipe: AVGASPipeline,
    extractor: Any,
    validation: MixtureSet,
    picture_embeds: torch.Tensor | None,
    collate: Collator,
) -> dict[str, float]:
    """
    What the averaged model recognises in mixtures of held-out clips: recall of labels, accuracy of the number of
    sources, average precision of presence, median SI-SDR improvement, and R@1 of the alignments.
    """
    averaged = AVGASPipeline(
        vae=None,
        unet=None,
        scheduler=pipe.scheduler,
        audio_encoder=teacher.model.audio_encoder,
        audio_feature_extractor=extractor,
        separator=teacher.model.separator,
    )
    drawings = []
    for number in range(len(validation)):
        drawings += encode_soundscapes(averaged, [validation[number]])[1]
    measured = {name: float(value) for name, value in score_sound(drawings, validation).compute().items()}
    measured["presence_ap"] = presence_average_precision(drawings)
    measured |= alignment_recall(teacher, validation, picture_embeds, collate)
    # Mixtures of one source have no SI-SDR improvement.
    return {f"val/{name}": value for name, value in measured.items() if not math.isnan(value)}


@torch.no_grad()
def alignment_recall(
    teacher: Teacher, validation: MixtureSet, picture_embeds: torch.Tensor | None, collate: Collator
) -> dict[str, float]:
    """R@1: how often a slot is nearest to its own clean clip, or picture, among those of a few mixtures."""
    mixtures = [validation.sampler.render(plan) for plan in validation.plans[:NUM_ALIGNED_MIXTURES]]
    collate = copy(collate)
    collate.with_stems = True
    device = next(teacher.model.parameters()).device
    batch = send_to_device(collate(mixtures), device)
    labels = batch["labels"]
    clean = teacher.embed(batch["clean_encoder"], labels)
    output = AudioVisualSeparatorOutput(*teacher.model(batch["encoder"], None))
    slots = match_sources(output, SeparationTargets(labels, audio_embeds=clean))
    rows, sources = (slots >= 0).nonzero(as_tuple=True)
    alignments = {"a2a_recall": (output.audio_embeds, clean[rows, sources])}
    if picture_embeds is not None:
        shown = picture_embeds.to(device)[batch["picture_rows"][rows, sources]]
        alignments["a2v_recall"] = (output.visual_embeds, shown)
    result = {}
    for name, (embeds, references) in alignments.items():
        nearest = (embeds[rows, slots[rows, sources]] @ references.T).argmax(dim=1)
        # Several sources may share a picture.
        result[name] = float((references[nearest] == references).all(dim=1).float().mean())
    return result


if __name__ == "__main__":
    run_script(main)
