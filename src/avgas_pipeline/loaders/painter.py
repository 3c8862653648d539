"""Text-to-image pipelines of diffusers, as painters of what was heard."""

import inspect
import os
from collections.abc import Iterable
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES

from .folders import check_component, may_be_repository, read_components
from .model_weights import check_components


# Arguments of pipelines that draw something else than pictures, or from something else than text.
_OTHER_TASKS = {
    "audio", "audio_duration", "audio_end_in_s", "audio_length_in_s", "control_image", "control_video",
    "controlnet_conditioning_scale", "frames", "mask_image", "num_frames", "video", "video_length",
}  # fmt: skip
_NEEDED = {"prompt", "height", "width", "num_inference_steps", "generator", "output_type"}
# One half of a pipeline.
_HALVES = ("PriorPipeline", "DecoderPipeline")


def load_painter(
    painter: DiffusionPipeline | str | os.PathLike, dtype: torch.dtype | None = None
) -> DiffusionPipeline:
    """
    A text-to-image pipeline, loaded from safetensors files if it is given by name.

    Args:
        painter ([`DiffusionPipeline`], `str` or `os.PathLike`): The pipeline, a folder, or a Hub repository.
        dtype (`torch.dtype`, *optional*): Of what is loaded; float32 if not given.

    Raises:
        ValueError: If it is not text-to-image, or can't be loaded.
        FileNotFoundError: If there is no such folder.
    """
    if isinstance(painter, (str, os.PathLike)):
        name, painter = os.fspath(painter), _load(os.fspath(painter), dtype or torch.float32)
    else:
        name = type(painter).__name__
    if not isinstance(painter, DiffusionPipeline):
        raise ValueError(f"`painter` has to be a text-to-image pipeline, its folder or Hub repository, not a {name}.")
    if not _is_text_to_image(painter):
        raise ValueError(
            f"{name}: a {type(painter).__name__} does not draw pictures from text alone; `painter` has to be a"
            " text-to-image pipeline."
        )
    return painter


def _load(name: str, dtype: torch.dtype) -> DiffusionPipeline:
    if os.path.exists(name) and not os.path.isdir(name):
        raise ValueError(f"{name}: is a file; a pipeline is loaded from a folder or a Hub repository.")
    if not os.path.isdir(name) and not may_be_repository(name):
        raise FileNotFoundError(f"{name}: no such folder.")
    try:
        folder = Path(name if os.path.isdir(name) else DiffusionPipeline.download(name, use_safetensors=True))
        libraries = {part: library for part, (library, _) in read_components(folder / "model_index.json").items()}
        for part, library in libraries.items():
            if library is not None and any((folder / part).glob("*.safetensors")):
                check_component(folder, part)
        # Parts that only one pipeline has, such as a safety checker, are that pipeline's own business.
        check_components(folder, {part: (object,) for part in libraries if libraries[part] in LOADABLE_CLASSES})
        return DiffusionPipeline.from_pretrained(folder, use_safetensors=True, dtype=dtype)
    except (ImportError, FileNotFoundError):
        raise
    # Files may hold anything, and so may what the libraries raise.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{name}: can't be loaded as a text-to-image pipeline ({reason}).") from error


def check_call(painter: DiffusionPipeline, names: Iterable[str]) -> None:
    """Raises `ValueError` if a painter does not take an argument."""
    # Some swallow whatever they do not know.
    parameters = inspect.signature(type(painter).__call__).parameters
    for name in names:
        if name not in parameters:
            raise ValueError(f"{type(painter).__name__} does not take `{name}`.")


def _is_text_to_image(pipe: DiffusionPipeline) -> bool:
    kind = type(pipe)
    parameters = inspect.signature(kind.__call__).parameters
    if "prompt" not in parameters or _OTHER_TASKS & parameters.keys() or kind.__name__.endswith(_HALVES):
        return False
    asked = {
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    }
    if parameters.keys() >= _NEEDED and "image" not in parameters:
        return asked <= {"self", "prompt"}
    # It imports all of diffusers' pipelines.
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

    # Some draw from text, and change a picture if one is given.
    return issubclass(kind, tuple(AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()))
