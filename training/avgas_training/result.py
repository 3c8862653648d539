"""What a run of the U-Net leaves: the pipeline, and LoRA layers beside it."""

from pathlib import Path
from typing import Any

import torch
from peft.utils import get_peft_model_state_dict

from avgas_pipeline import AVGASPipeline


def save_pipeline(pipe: AVGASPipeline, settings: Any, weight_dtype: torch.dtype) -> None:
    """The pipeline; LoRA layers, with rank and alpha, beside it."""
    out = Path(settings.output_dir)
    pipe.to("cpu")
    layers: dict[str, Any] = {}
    for name in ("unet", "separator"):
        part = getattr(pipe, name)
        if getattr(part, "peft_config", None):
            layers[f"{name}_lora_layers"] = get_peft_model_state_dict(part, adapter_name="default")
            layers[f"{name}_lora_adapter_metadata"] = part.peft_config["default"].to_dict()
            part.unload_lora()
    if weight_dtype != torch.float32:
        # What is not trained was rounded for training, and is saved as it came.
        frozen = ["vae"] if settings.full else ["vae", "unet"]
        given = AVGASPipeline.from_pretrained(settings.pretrained_model_name_or_path, dtype=torch.float32)
        pipe.register_modules(**{name: getattr(given, name) for name in frozen})
    pipe.save_pretrained(out)
    if layers:
        AVGASPipeline.save_lora_weights(out, **layers)
