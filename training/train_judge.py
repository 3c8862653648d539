"""
Train the judge of soundscapes-mini: a small classifier that says which objects a scene shows, for metrics alone.

    python training/train_judge.py --dataset data/soundscapes-mini --output_dir runs/judge

It shares no weights and no stage with the generator. It judges and does not compete, so it learns from the pictures of
both splits. `--holdout_fold 0` leaves out a fifth of the pictures (by source group) and reports on them, which shows
how far it goes beyond pictures it knows. `--splits train` makes a teacher for A2V instead.
After an interruption `--resume_from_checkpoint latest` goes on exactly.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset, concatenate_datasets
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessorPil

from avgas_pipeline.data.soundscapes_mini import load_soundscapes_mini
from avgas_pipeline.files import write_text
from avgas_training.command_line import parse_settings, run_script
from avgas_training.data.scenes import SceneDataset
from avgas_training.run import Run
from avgas_training.settings import NUM_FOLDS, JudgeSettings


IMAGE_SIZE = 128
# A sum over all labels is large beside one cross-entropy.
BINARY_WEIGHT = 0.3


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_settings(JudgeSettings, __doc__, argv)
    run = Run(settings)
    accelerator = run.accelerator
    pictures = concatenate_datasets([load_soundscapes_mini(settings.dataset, split)[1] for split in settings.splits])
    labels = sorted(set(pictures["label"]))
    known, held_out = split_pictures(pictures, settings.holdout_fold)

    judge = build_model(labels, settings.hidden_sizes)
    if settings.pretrained_model_name_or_path is not None:
        judge = load_model(settings.pretrained_model_name_or_path, labels)
    # Convolutions take 0.19 instead of 0.24 s a step on two cores.
    judge.to(memory_format=torch.channels_last)
    decayed = [weight for weight in judge.parameters() if weight.ndim > 1]
    plain = [weight for weight in judge.parameters() if weight.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=settings.learning_rate,
    )
    # accelerate counts the steps of all processes.
    num_steps = settings.max_train_steps * accelerator.num_processes
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=num_steps, pct_start=0.05, anneal_strategy="cos"
    )
    model, optimizer, schedule = accelerator.prepare(judge, optimizer, schedule)

    step = run.checkpoints.resume(settings.resume_from_checkpoint)
    # From no object at all on: the judge has to know an empty scene, too.
    scenes = SceneDataset(
        known,
        labels,
        settings.max_train_steps * run.examples_per_step,
        settings.seed,
        IMAGE_SIZE,
        (0, 3),
        layout="either",
        augment=True,
        degrade=True,
    )
    loader = run.loader(scenes, step)
    run.start_trackers("judge")
    progress = run.progress_bar(step)
    model.train()
    for batch in loader:
        pixels = batch["pixel_values"].contiguous(memory_format=torch.channels_last)
        loss = presence_loss(model(pixel_values=pixels).logits, batch["labels"])
        run.check_finite(loss, step)
        accelerator.backward(loss)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        step += 1
        if run.end_step(step, {"loss": loss}, schedule, progress):
            break
    progress.close()
    accelerator.wait_for_everyone()
    if step == settings.max_train_steps and accelerator.is_main_process:
        # What is saved is what is measured.
        judge.half().float().eval()
        accuracy = {
            "new_compositions": measure(judge, known, labels, settings, "compose"),
            "new_collages": measure(judge, known, labels, settings, "collage"),
        }
        if held_out is not None:
            accuracy["pictures_left_out"] = measure(judge, held_out, labels, settings, "compose")
            accuracy["collages_left_out"] = measure(judge, held_out, labels, settings, "collage")
            accuracy["num_pictures_left_out"] = len(held_out)
        accelerator.print(json.dumps(accuracy, indent=2))
        save(judge, Path(settings.output_dir), accuracy)
    del model
    run.end(step, "avgas evaluate --judge {}")


def presence_loss(logits: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """
    How far the logits are from the labels that are present; both of shape (scenes, labels).

    Binary cross-entropy makes each label a probability of its own. Among hundreds of labels it teaches slowly, so the
    cross-entropy of a softmax whose target is spread over the present labels (Mahajan et al. 2018, "Exploring the
    Limits of Weakly Supervised Pretraining") is added: it tells labels apart, and leaves out empty scenes.
    """
    binary = binary_cross_entropy_with_logits(logits, present, reduction="none").sum(dim=1).mean()
    count = present.sum(dim=1)
    told_apart = -(logits.log_softmax(dim=1) * present).sum(dim=1) / count.clamp(min=1)
    return told_apart.sum() / (count > 0).sum().clamp(min=1) + BINARY_WEIGHT * binary


def load_model(folder: str, labels: list[str]) -> ResNetForImageClassification:
    """A judge that was trained before, whose labels have to be these."""
    judge = ResNetForImageClassification.from_pretrained(folder, dtype=torch.float32)
    known = [judge.config.id2label[number] for number in range(judge.config.num_labels)]
    if known != labels:
        raise ValueError(f"The judge {folder} knows {len(known)} other labels than the {len(labels)} of the dataset.")
    return judge


def split_pictures(pictures: Dataset, fold: int | None) -> tuple[Dataset, Dataset | None]:
    """Pictures to learn from, and a fifth of them that is left out, by source group; a label's only group stays."""
    if fold is None:
        return pictures, None
    groups: dict[str, set[str]] = {}
    for label, group in zip(pictures["label"], pictures["source_group"], strict=True):
        groups.setdefault(label, set()).add(group)
    # A group may have pictures of several labels.
    fold_of: dict[str, int] = {}
    for _, members in sorted(groups.items()):
        counts = [sum(fold_of.get(group) == number for group in members) for number in range(NUM_FOLDS)]
        for group in sorted(members - fold_of.keys()):
            fold_of[group] = counts.index(min(counts))
            counts[fold_of[group]] += 1
    left_out = {group for group, number in fold_of.items() if number == fold}
    for members in groups.values():
        if members <= left_out:
            left_out.remove(min(members))
    names = list(enumerate(pictures["source_group"]))
    kept = [row for row, group in names if group not in left_out]
    held = [row for row, group in names if group in left_out]
    return pictures.select(kept), pictures.select(held)


def build_model(labels: list[str], hidden_sizes: list[int]) -> ResNetForImageClassification:
    """A narrow ResNet-18 that says of every label whether the scene shows it."""
    config = ResNetConfig(
        embedding_size=hidden_sizes[0],
        hidden_sizes=list(hidden_sizes),
        depths=[2, 2, 2, 2],
        layer_type="basic",
        problem_type="multi_label_classification",
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    model = ResNetForImageClassification(config)
    # Most labels are absent from most scenes.
    torch.nn.init.constant_(model.classifier[-1].bias, -math.log(len(labels) / 2))
    return model


@torch.no_grad()
def top_k_accuracy(model: ResNetForImageClassification, scenes: SceneDataset, count: int, workers: int) -> float:
    """Share of scenes of `count` objects whose `count` highest scores are exactly those objects."""
    correct = total = 0
    for batch in DataLoader(scenes, batch_size=128, num_workers=workers):
        logits = model(pixel_values=batch["pixel_values"].to(model.device)).logits.cpu()
        found = torch.zeros_like(logits).scatter_(1, logits.topk(count, dim=1).indices, 1.0)
        correct += int((found * batch["labels"]).sum(dim=1).eq(count).sum())
        total += len(logits)
    return correct / total


def measure(
    model: ResNetForImageClassification, pictures: Dataset, labels: list[str], settings: JudgeSettings, layout: str
) -> dict[str, float]:
    """Accuracy on scenes never seen in training, composed as `layout` says."""
    names = {1: "one_object_top1", 2: "two_objects_both_in_top2", 3: "three_objects_all_in_top3"}
    accuracy = {}
    for count, name in names.items():
        scenes = SceneDataset(
            pictures,
            labels,
            settings.num_validation_scenes,
            seed=10**6 + settings.seed,
            num_objects=(count, count),
            layout=layout,
        )
        accuracy[name] = round(top_k_accuracy(model, scenes, count, settings.dataloader_num_workers), 4)
    return accuracy


def save(model: ResNetForImageClassification, out: Path, accuracy: dict) -> None:
    """The judge as half-precision safetensors, with its image processor and what it was measured at."""
    model.half().save_pretrained(out)
    processor = ViTImageProcessorPil(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    processor.save_pretrained(out)
    write_text(out / "accuracy.json", json.dumps(accuracy, indent=2) + "\n")


if __name__ == "__main__":
    run_script(main)
