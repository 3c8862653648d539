"""Audio encoder and separator in one module, and what training scripts ask of it."""

from typing import Any

import torch
from transformers import ASTFeatureExtractor, ResNetConfig, ResNetModel

from avgas_pipeline import AudioVisualSeparator, AudioVisualSeparatorOutput, AVGASPipeline
from avgas_pipeline.models.encoder_adapters import audio_tokens, token_layout

from ..losses.matching import SeparationTargets, match_sources
from ..settings import SeparatorSettings


class SeparationModel(torch.nn.Module):
    """
    Audio encoder and separator as one module, one call a step, as distributed training wants it.

    Args:
        audio_encoder (`torch.nn.Module`): Any of transformers with a `last_hidden_state`.
        separator ([`AudioVisualSeparator`]): Made for its tokens.
    """

    def __init__(self, audio_encoder: torch.nn.Module, separator: AudioVisualSeparator) -> None:
        super().__init__()
        self.audio_encoder = audio_encoder
        self.separator = separator

    def forward(self, inputs: dict[str, torch.Tensor], spectrogram: torch.Tensor | None) -> tuple:
        """The separator's output as a tuple."""
        tokens, tag_logits = audio_tokens(self.audio_encoder, inputs)
        return self.separator(tokens, spectrogram=spectrogram, tag_logits=tag_logits, return_dict=False)


def build_separation_model(settings: SeparatorSettings, pipe: AVGASPipeline) -> tuple[Any, SeparationModel]:
    """
    Feature extractor and model of a checkpoint. Where settings ask for others than the checkpoint's, they are new;
    a new separator takes over what makes condition tokens, so that the checkpoint's U-Net goes on with what it knows.
    """
    extractor, encoder, separator = pipe.audio_feature_extractor, pipe.audio_encoder, pipe.separator
    known = {name: value for name, value in separator.config.items() if not name.startswith("_")}
    wanted = {name: getattr(settings, name) for name in ("num_slots", "num_layers", "mask_channels")}
    if separator.label_tokens is not None:
        wanted["label_temperature"] = settings.label_temperature
    wanted = {name: value for name, value in wanted.items() if value is not None}
    if settings.new_audio_encoder is not None:
        if encoder.main_input_name != "pixel_values":
            # Features of encoders that take no pictures need not be spectrograms.
            extractor = ASTFeatureExtractor(num_mel_bins=64, max_length=round(100 * pipe.window_s))
        encoder = _build_resnet18()
        wanted |= {"num_prefix_tokens": 0, "num_frequency_patches": 1, **token_layout(encoder)}
    if encoder is not pipe.audio_encoder or wanted != {name: known[name] for name in wanted}:
        separator = AudioVisualSeparator(**known | wanted)
        with torch.no_grad():
            for own, given in zip(condition_weights(separator), condition_weights(pipe.separator), strict=True):
                own.copy_(given)
    return extractor, SeparationModel(encoder, separator)


def condition_layers(separator: AudioVisualSeparator) -> list[torch.nn.Module]:
    """Layers that make condition tokens of slots: the generator's training moves them, the separator's does not."""
    layers = (separator.token_head, separator.token_norm, separator.label_tokens)
    return [layer for layer in layers if layer is not None]


def condition_weights(separator: AudioVisualSeparator) -> list[torch.nn.Parameter]:
    """The weights of [`condition_layers`] and the null tokens."""
    layers = condition_layers(separator)
    return [separator.null_tokens, *(weight for layer in layers for weight in layer.parameters())]


def set_train_mode(model: SeparationModel) -> None:
    """Training mode, but for batch norms that are frozen: their statistics are, too."""
    model.train()
    for module in model.audio_encoder.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and not module.weight.requires_grad:
            module.eval()


def encode_sources(
    model: SeparationModel, inputs: dict[str, torch.Tensor], spectrogram: torch.Tensor | None, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, AudioVisualSeparatorOutput]:
    """
    Encode mixtures, and find the slot of every source by its label. A separator with one slot has it for the first
    source, and it stands for all.

    Args:
        model ([`SeparationModel`]): What encodes.
        inputs (`dict[str, torch.Tensor]`): The audio encoder's, of B mixtures.
        spectrogram (`torch.Tensor` of shape `(M, F, T)`, *optional*): What the mask decoder gets.
        labels (`torch.Tensor` of shape `(B, N)`): Of the sources; -1 where there is none.

    Returns:
        Slots `(B, N, D)`, whether a source has one `(B, N)`, and the separator's output.
    """
    output = AudioVisualSeparatorOutput(*model(inputs, spectrogram))
    if output.presence_logits.shape[1] == 1:
        numbers = torch.full_like(labels, -1)
        numbers[:, 0] = 0
    else:
        numbers = match_sources(output, SeparationTargets(labels))
    rows = torch.arange(len(labels), device=labels.device)[:, None]
    return output.slots[rows, numbers.clamp(min=0)], numbers >= 0, output


def _build_resnet18() -> ResNetModel:
    """AV-GAS's, for spectrograms."""
    return ResNetModel(
        ResNetConfig(
            num_channels=1,
            embedding_size=64,
            hidden_sizes=[64, 128, 256, 512],
            depths=[2, 2, 2, 2],
            layer_type="basic",
        )
    )
