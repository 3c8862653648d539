"""A system that is a pipeline: it encodes and draws soundscapes."""

import gc
import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from peft.tuners.lora import LoraLayer

from ..metrics.judges import weights_digest
from ..models.separator import AudioVisualSeparator
from ..pipeline_avgas import AVGASPipeline
from ..pipeline_output import AVGASPipelineOutput, EncodedAudio
from .drawings import Drawing
from .encoding import encode_soundscapes, encode_stems
from .soundscapes import Soundscape


# A logit that no other outweighs, and that float16 holds.
_RULED_OUT = -1e4


@dataclass(frozen=True)
class DrawingSettings:
    """
    How pipelines draw.

    Attributes:
        num_inference_steps (`int`, *optional*): Denoising steps; what each checkpoint says if not given, as one may
            be distilled and another not.
        guidance_scale (`float`, *optional*): Weight of classifier-free guidance; likewise.
        presence_threshold (`float`, *optional*): As of the pipeline.
        seed (`int`): Soundscape number i is drawn from noise of seed + i, by every system.
        draw (`bool`): Whether to draw at all, or only to find the sources.
        closed_set (`tuple[str, ...]`, *optional*): The only labels that pipelines may give, if not all they know.
    """

    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    presence_threshold: float | None = None
    seed: int = 0
    draw: bool = True
    closed_set: tuple[str, ...] | None = None


class PipelineSystem:
    """
    An [`AVGASPipeline`].

    Args:
        name (`str`): In the report.
        checkpoint (`str`): Folder or Hub repository.
        settings ([`DrawingSettings`]): How it draws.
        device (`str`, defaults to `"cpu"`): Where it runs.
        oracle (`bool`, defaults to `False`): It is given the clean sources one by one instead of their mixture:
            what perfect separation would be worth.
        lora (`str`, *optional*): LoRA weights to add: a folder, file or Hub repository.
    """

    def __init__(
        self,
        name: str,
        checkpoint: str,
        settings: DrawingSettings,
        device: str = "cpu",
        oracle: bool = False,
        lora: str | None = None,
    ) -> None:
        self.name = name
        self.checkpoint = checkpoint
        self.settings = settings
        self.device = device
        self.oracle = oracle
        self.lora = lora
        self._pipe: AVGASPipeline | None = None

    @property
    def pipe(self) -> AVGASPipeline:
        """The pipeline, loaded when it is first needed."""
        if self._pipe is None:
            pipe = AVGASPipeline.from_pretrained(self.checkpoint, dtype=torch.float32).to(self.device)
            if self.lora is not None:
                pipe.load_lora_weights(self.lora)
            if self.settings.closed_set is not None:
                close_set(pipe.separator, self.settings.closed_set)
            pipe.set_progress_bar_config(disable=True)
            self._pipe = pipe
        return self._pipe

    def _sampling(self, name: str) -> Any:
        """A setting of all systems, or this checkpoint's own."""
        given = getattr(self.settings, name)
        return self.pipe.config[f"default_{name}"] if given is None else given

    def fingerprint(self) -> dict[str, Any]:
        """Checkpoint, weights, configurations and settings."""
        weights, configs = hashlib.sha256(), hashlib.sha256()
        for name, part in sorted(self._components().items()):
            if isinstance(part, torch.nn.Module):
                weights.update(f"{name} {weights_digest(part)}".encode())
            configs.update(f"{name} {_config_of(part)}".encode())
            if scales := _lora_scales(part):
                configs.update(f"{name} {json.dumps(scales)}".encode())
        return {
            "checkpoint": self.checkpoint,
            "lora": self.lora,
            "weights_sha256": weights.hexdigest(),
            "configs_sha256": configs.hexdigest(),
            "scheduler": type(self.pipe.scheduler).__name__,
            "speed_variation": self.pipe.config.speed_variation,
            "label_threshold": self.pipe.config.label_threshold,
            "oracle": self.oracle,
            **asdict(self.settings),
            "num_inference_steps": self._sampling("num_inference_steps"),
            "guidance_scale": self._sampling("guidance_scale"),
        }

    def _components(self) -> dict[str, Any]:
        return self.pipe.components

    def close(self) -> None:
        """Free the pipeline's memory."""
        self._pipe = None
        gc.collect()

    @torch.no_grad()
    def draw(self, soundscapes: Sequence[Soundscape], numbers: Sequence[int]) -> list[Drawing]:
        """Encode and draw a batch; `numbers` are the soundscapes' places in the evaluation set."""
        if self.oracle:
            encoded, drawings = encode_stems(self.pipe, soundscapes)
        else:
            encoded, drawings = encode_soundscapes(self.pipe, soundscapes, self.settings.presence_threshold)
        if not self.settings.draw:
            return drawings
        # Generators on the CPU give the same noise on every device.
        generators = [torch.Generator().manual_seed(self.settings.seed + number) for number in numbers]
        output = self._draw(encoded, generators)
        for drawing, mixed, sources in zip(drawings, output.images, output.sources, strict=True):
            drawing.mixed = mixed
            drawing.separated = [source.images[0] for source in sources]
        return drawings

    def _draw(self, encoded: EncodedAudio, generators: list[torch.Generator]) -> AVGASPipelineOutput:
        return self.pipe(
            **encoded,
            separate=True,
            num_inference_steps=self._sampling("num_inference_steps"),
            guidance_scale=self._sampling("guidance_scale"),
            generator=generators,
        )


def close_set(separator: AudioVisualSeparator, labels: Collection[str]) -> None:
    """
    Have a separator give no labels but these, whatever else it knows.

    Raises:
        ValueError: If it knows none of them.
    """
    others = [number for number, label in separator.id2label.items() if label not in labels]
    if len(others) == len(separator.id2label):
        raise ValueError("The model knows none of the labels of a closed set.")
    separator.class_head.register_forward_hook(
        lambda module, args, logits: logits.index_fill(
            -1, torch.tensor(others, dtype=torch.long, device=logits.device), _RULED_OUT
        )
    )


def _config_of(part: Any) -> str:
    config = getattr(part, "config", part)
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config) if isinstance(config, dict) else config
    # Where it was loaded from does not matter.
    if isinstance(values, dict):
        values = {key: value for key, value in values.items() if not key.startswith("_") and "name_or_path" not in key}
    return json.dumps(values, sort_keys=True, default=str)


def _lora_scales(part: Any) -> dict[str, dict[str, float]]:
    """What every LoRA layer's product is multiplied by: alpha and rank are not among the weights."""
    modules = part.named_modules() if isinstance(part, torch.nn.Module) else ()
    return {name: module.scaling for name, module in modules if isinstance(module, LoraLayer)}
