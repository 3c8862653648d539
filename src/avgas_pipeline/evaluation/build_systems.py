"""Which systems take part: a model, its baselines and ablations, folders of images."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..loaders.trained_on import trained_on
from ..metrics.judges import Judge
from .anchors import ANCHORS
from .image_folder import ImageFolderSystem
from .pipeline_system import DrawingSettings, PipelineSystem
from .prompt_system import PromptSystem


# What a baseline's separator has to be, as configured: they are the same class.
BASELINES = {
    "single-embedding": {"num_slots": 1, "num_layers": 0},
    "paper": {"num_slots": 2, "num_layers": 0},
    "oracle": {},
    "prompts": {},
}
ABLATIONS = {"no-masks": {"mask_channels": 0}, "no-a2a": {}, "no-a2v": {}}


def build_systems(
    model: str | None,
    baselines: Sequence[str],
    ablations: Sequence[str],
    images: Sequence[str],
    settings: DrawingSettings,
    device: str,
    num_soundscapes: int = 0,
    has_stems: bool = False,
    lora: str | None = None,
    sampling: dict[str, Any] | None = None,
) -> list[PipelineSystem | ImageFolderSystem]:
    """
    The systems of one evaluation, the one that others are compared with first.

    Args:
        model (`str`, *optional*): Checkpoint of the model: folder or Hub repository.
        baselines (`Sequence[str]`): `"oracle"`, which uses the model's checkpoint, `"prompts=PAINTER"`, a
            text-to-image pipeline that is told what the model hears, or `"single-embedding"` and `"paper"`, with
            checkpoints of their own: `NAME=CHECKPOINT`, or a folder of that name beside the model's.
        ablations (`Sequence[str]`): `"no-masks"`, `"no-a2a"`, `"no-a2v"`; checkpoints as for baselines.
        images (`Sequence[str]`): `NAME=FOLDER` of images drawn elsewhere.
        settings ([`DrawingSettings`]): How pipelines draw.
        device (`str`): Where they run.
        num_soundscapes (`int`, defaults to 0): What is drawn; how many images a folder needs.
        has_stems (`bool`, defaults to `False`): Whether there are clean sources for an oracle.
        lora (`str`, *optional*): LoRA weights of the model, and of an oracle with its checkpoint.
        sampling (`dict`, *optional*): `num_inference_steps` and `guidance_scale` of painters, if not their own.

    Raises:
        ValueError: For unknown, repeated or missing names, or a checkpoint that is not the baseline it is named for.
        FileNotFoundError: If a baseline has no checkpoint, or an image is missing.
    """
    systems: list[PipelineSystem | ImageFolderSystem] = []
    if model is not None:
        systems.append(PipelineSystem(_folder_name(model), model, settings, device, lora=lora))
    elif lora is not None:
        raise ValueError("A LoRA needs the model it is for.")
    for known, specs in ((BASELINES, baselines), (ABLATIONS, ablations)):
        for spec in specs:
            if known is BASELINES and spec.partition("=")[0] == "prompts":
                systems.append(_prompt_system(spec, model, settings, device, sampling or {}))
            else:
                systems.append(_other_system(spec, known, model, has_stems, settings, device, lora))
    for spec in images:
        name, separator, folder = spec.partition("=")
        if not separator:
            name, folder = _folder_name(spec), spec
        systems.append(ImageFolderSystem(_checked(name), folder, num_soundscapes))
    if not systems:
        raise ValueError("There is nothing to evaluate: give a model or a folder of images.")
    names = [system.name for system in systems]
    for name in names:
        if name in ANCHORS:
            raise ValueError(f"{name!r} is the name of an anchor; call the system something else.")
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"Two systems are called {repeated!r}; name them with NAME=PATH.")
    return systems


def known_labels(systems: Sequence[PipelineSystem], judge: Judge | None) -> dict[str, frozenset[str]]:
    """The labels that each of them knows, by what to call it: "the model" is the first one, "the judge" the last."""
    known = {}
    for name, system in zip(_spoken(systems), systems, strict=True):
        known[name] = frozenset(system.pipe.separator.id2label.values())
        system.close()
    return known if judge is None else {**known, "the judge": frozenset(judge.labels)}


def known_recordings(systems: Sequence[PipelineSystem]) -> dict[str, dict[str, frozenset[str]] | None]:
    """What each system was trained on, by what to call it as of [`known_labels`]; `None` where it does not say."""
    return {name: trained_on(system.checkpoint) for name, system in zip(_spoken(systems), systems, strict=True)}


def _spoken(systems: Sequence[PipelineSystem]) -> list[str]:
    return ["the model", *(system.name for system in systems[1:])]


def _prompt_system(
    spec: str, model: str | None, settings: DrawingSettings, device: str, sampling: dict[str, Any]
) -> PromptSystem:
    name, _, painter = spec.partition("=")
    if not painter:
        raise ValueError(f"{name!r} needs a text-to-image pipeline: {name}=PAINTER.")
    if model is None:
        raise ValueError(f"{name!r} needs a model that hears what is to be drawn.")
    if not settings.draw:
        raise ValueError(f"{name!r} is another way of drawing, so it has no place where nothing is drawn.")
    return PromptSystem(name, model, painter, settings, sampling, device)


def _other_system(
    spec: str,
    known: dict[str, dict[str, int]],
    model: str | None,
    has_stems: bool,
    settings: DrawingSettings,
    device: str,
    lora: str | None,
) -> PipelineSystem:
    name, _, checkpoint = spec.partition("=")
    lora = lora if name == "oracle" and not checkpoint else None
    if name not in known:
        raise ValueError(f"{name!r} is none of {', '.join(known)}.")
    if name == "oracle":
        if not has_stems:
            raise ValueError("The oracle is given clean sources, which recordings do not have: it needs mixtures.")
        checkpoint = checkpoint or model or ""
    elif not checkpoint and model is not None:
        checkpoint = str(Path(model).parent / name)
        if not Path(checkpoint).is_dir():
            raise FileNotFoundError(f"{checkpoint}: no such folder; give {name}=CHECKPOINT.")
    if not checkpoint:
        raise ValueError(f"{name!r} needs a checkpoint: {name}=CHECKPOINT.")
    system = PipelineSystem(name, checkpoint, settings, device, oracle=name == "oracle", lora=lora)
    config = system.pipe.separator.config
    for key, value in known[name].items():
        if config[key] != value:
            raise ValueError(
                f"{checkpoint}: is not the {name!r} it is named for: its separator has {key} = {config[key]}, not"
                f" {value}."
            )
    if name == "paper" and system.pipe.audio_encoder.config.model_type != "resnet":
        raise ValueError(f"{checkpoint}: is not the 'paper' it is named for: its audio encoder is not a ResNet.")
    system.close()
    return system


def _folder_name(path: str) -> str:
    """The last part of a path or repository name, as far as it can name a folder."""
    return re.sub(r"[^\w.-]+", "-", Path(path).name).strip(".-") or "model"


def _checked(name: str) -> str:
    if _folder_name(name) != name:
        raise ValueError(f"{name!r} can't name a system: use letters, digits, '.', '-' and '_'.")
    return name
