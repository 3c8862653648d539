"""Model cards, filled from the checkpoint itself."""

import html
import re
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id

from ..models.separator import UNKNOWN_LABEL
from .plain_text import printable


# The repository's top-level `model_card/`.
TEMPLATES = "avgas_pipeline.model_card"
PAPER = "2504.18283"


def create_model_card(
    pipeline: Any,
    repo_id: str,
    license: str | None = None,
    training: str | None = None,
    metadata: dict[str, Any] | None = None,
) -> ModelCard:
    """
    A model card for an [`AVGASPipeline`].

    Args:
        pipeline ([`AVGASPipeline`]): The checkpoint it describes.
        repo_id (`str`): Where it is published, as in the card's example code.
        license (`str`, *optional*): The weights' licence identifier; the code's licence does not cover them.
        training (`str`, *optional*): How it was trained and what was measured, as Markdown.
        metadata (`dict`, *optional*): More of the card's metadata, such as `datasets`, `license_name`, `license_link`.
    """
    try:
        template = files(TEMPLATES) / "template.md"
    except ModuleNotFoundError:
        raise FileNotFoundError("No model card template: install avgas-pipeline to publish a checkpoint.") from None
    base_model = _base_model(pipeline.unet)
    data = ModelCardData(
        license=license,
        library_name="diffusers",
        # The Hub has no task from sound to pictures.
        pipeline_tag="any-to-any",
        base_model=base_model,
        tags=["avgas", "audio-to-image", "sound-separation", "diffusers", f"arxiv:{PAPER}"],
        **(metadata or {}),
    )
    with as_file(template) as path:
        return ModelCard.from_template(
            card_data=data,
            template_path=str(path),
            repo_id=repo_id,
            base_model=base_model,
            license_name=license,
            training=training,
            **_facts(pipeline),
        )


def _facts(pipeline: Any) -> dict[str, Any]:
    separator = pipeline.separator
    known = separator.id2label.values() if separator is not None else []
    labels = sorted(_as_markdown(label) for label in known if label != UNKNOWN_LABEL)
    models = [(name, part) for name, part in pipeline.components.items() if hasattr(part, "num_parameters")]
    return {
        "parts": [
            (name, type(part).__name__, f"{part.num_parameters() / 1e6:.1f}")
            for name, part in sorted(models, key=lambda pair: pair[0])
        ],
        "scheduler": type(pipeline.scheduler).__name__,
        "labels": labels,
        "num_slots": separator.config.num_slots if separator is not None else None,
        "num_condition_tokens": separator.config.num_condition_tokens if separator is not None else None,
        "sampling_rate": getattr(pipeline, "sampling_rate", None),
        "window_s": getattr(pipeline, "window_s", None),
        "speed_variation": pipeline.config.speed_variation,
        "image_size": pipeline.default_size,
        "has_text": pipeline.text_encoder is not None,
    }


def _as_markdown(text: str) -> str:
    """A checkpoint's own words as text: neither HTML, nor Markdown, nor control characters."""
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(printable(text), quote=False))


def _base_model(unet: Any) -> str | None:
    """The Hub repository the U-Net came from, if it says."""
    name = unet.config.get("_name_or_path") if unet is not None else None
    if not isinstance(name, str) or name.count("/") != 1 or Path(name).exists():
        return None
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return name
