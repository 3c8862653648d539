"""A system that tells a text-to-image pipeline what the model hears: tags to prompt."""

import hashlib
from typing import Any

import torch
from diffusers import DiffusionPipeline

from ..loaders.painter import load_painter
from ..loaders.phrases import DEFAULT_STYLE, PHRASES
from ..painting import paint_sources
from ..pipeline_output import AVGASPipelineOutput, EncodedAudio
from .pipeline_system import DrawingSettings, PipelineSystem


class PromptSystem(PipelineSystem):
    """
    [`AVGASPipeline.paint`]: the model hears, a text-to-image pipeline draws.

    Args:
        name (`str`): In the report.
        checkpoint (`str`): Of what hears: folder or Hub repository.
        painter (`str`): Text-to-image pipeline: folder or Hub repository.
        settings ([`DrawingSettings`]): How it hears.
        sampling (`dict`): `num_inference_steps` and `guidance_scale`, where they are not the painter's own.
        device (`str`, defaults to `"cpu"`): Where both run.
    """

    def __init__(
        self,
        name: str,
        checkpoint: str,
        painter: str,
        settings: DrawingSettings,
        sampling: dict[str, Any],
        device: str = "cpu",
    ) -> None:
        super().__init__(name, checkpoint, settings, device)
        self.painter_name = painter
        self.sampling = sampling
        self._painter: DiffusionPipeline | None = None

    @property
    def painter(self) -> DiffusionPipeline:
        """The text-to-image pipeline, loaded when it is first needed."""
        if self._painter is None:
            self._painter = load_painter(self.painter_name, torch.float32).to(self.device)
            self._painter.set_progress_bar_config(disable=True)
        return self._painter

    def fingerprint(self) -> dict[str, Any]:
        """Both pipelines' weights and configurations, and settings."""
        # The model's own steps and guidance are not used.
        own = {"num_inference_steps": None, "guidance_scale": None, **self.sampling}
        said = hashlib.sha256(repr((DEFAULT_STYLE, PHRASES)).encode()).hexdigest()
        return {**super().fingerprint(), **own, "painter": self.painter_name, "phrases_sha256": said}

    def close(self) -> None:
        """Free the memory of both."""
        self._painter = None
        super().close()

    def _components(self) -> dict[str, Any]:
        drawing = {f"painter {name}": part for name, part in self.painter.components.items()}
        return {**super()._components(), **drawing}

    def _draw(self, encoded: EncodedAudio, generators: list[torch.Generator]) -> AVGASPipelineOutput:
        labels = self.pipe.separator.id2label
        return paint_sources(
            self.painter,
            encoded.sources,
            separate=True,
            generator=generators,
            id2label=labels,
            # Some painters draw otherwise what they draw together.
            max_batch_rows=1,
            **self.sampling,
        )
