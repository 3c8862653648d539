"""U-Net, separator and audio encoder in one module, and which of its weights `train.py` trains."""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig

from avgas_pipeline import AudioVisualSeparatorOutput
from avgas_pipeline.conditioning import pool, split_pooled

from ..settings import GeneratorSettings
from .latents import encode_pictures
from .separation import SeparationModel, condition_layers, condition_weights, encode_sources, set_train_mode


# Layers of the separator that get LoRA; the last only if it has them.
CONDITION_LAYERS = ["token_head.0", "token_head.2", "label_tokens"]


class Generator(torch.nn.Module):
    """
    U-Net, separator and audio encoder as one module, one call a step, as distributed training wants it.

    Args:
        unet (`UNet2DConditionModel`): Predicts the noise.
        separation ([`SeparationModel`]): Audio encoder and separator.
    """

    def __init__(self, unet: UNet2DConditionModel, separation: SeparationModel) -> None:
        super().__init__()
        self.unet = unet
        self.separation = separation

    def forward(
        self,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        shown: torch.Tensor,
        dropped: torch.Tensor,
        slots: torch.Tensor | None = None,
        class_logits: torch.Tensor | None = None,
        mixtures: dict[str, Any] | None = None,
        time_ids: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, AudioVisualSeparatorOutput | None]:
        """
        Args:
            noisy (`torch.Tensor` of shape `(B, C, H, W)`): Latents.
            timesteps (`torch.Tensor` of shape `(B,)`): Their noise levels.
            shown (`torch.Tensor` of shape `(B, N)`): Which sources the picture shows.
            dropped (`torch.Tensor` of shape `(B,)`): Which rows have the null tokens instead.
            slots (`torch.Tensor` of shape `(B, N, D)`, *optional*): The sources' slots, encoded before.
            class_logits (`torch.Tensor` of shape `(B, N, num_labels)`, *optional*): Their labels, if not by `slots`.
            mixtures (`dict`, *optional*): What to encode, in place of `slots`: arguments of [`encode_sources`].
            time_ids (`torch.Tensor` of shape `(B, 6)`, *optional*): Sizes of the pictures, for U-Nets that take them.

        Returns:
            The U-Net's prediction, and the separator's output if it has encoded mixtures.
        """
        output = None
        if mixtures is not None:
            slots, found, output = encode_sources(self.separation, **mixtures)
            shown = shown & found
        conditions = self.conditions(shown, dropped, slots, class_logits, time_ids)
        return self.unet(noisy, timesteps, **conditions, return_dict=False)[0], output

    def conditions(
        self,
        shown: torch.Tensor,
        dropped: torch.Tensor,
        slots: torch.Tensor,
        class_logits: torch.Tensor | None = None,
        time_ids: torch.Tensor | None = None,
    ) -> dict[str, Any]:
        """What the U-Net gets beside noisy latents; arguments as of `forward`."""
        separator = self.separation.separator
        # (B, N, M, C)
        tokens = separator.condition(slots.to(separator.null_tokens.dtype), class_logits)
        nothing = dropped | ~shown.any(dim=1)
        tokens = torch.where(nothing[:, None, None, None], separator.null_tokens.expand_as(tokens), tokens)
        first = torch.zeros_like(shown)
        first[:, 0] = True
        mask = torch.where(nothing[:, None], first, shown)
        added = None
        if separator.config.pooled_projection_dim:
            pooled, tokens = split_pooled(tokens, separator.config.pooled_projection_dim)
            added = {"text_embeds": pool(pooled, mask), "time_ids": time_ids}
        return {
            "encoder_hidden_states": tokens.flatten(1, 2),
            "encoder_attention_mask": mask.repeat_interleave(tokens.shape[2], dim=1),
            "added_cond_kwargs": added,
        }


def prepare_weights(settings: GeneratorSettings, generator: Generator) -> list[dict[str, Any]]:
    """Adds LoRA layers or frees what is trained; returns the optimiser's parameter groups."""
    unet, separation = generator.unet, generator.separation
    generator.requires_grad_(False)
    separator = separation.separator
    alpha = settings.rank if settings.lora_alpha is None else settings.lora_alpha
    lora = {"r": settings.rank, "lora_alpha": alpha, "lora_dropout": settings.lora_dropout}
    lora["init_lora_weights"] = "gaussian"
    if settings.full:
        unet.requires_grad_(True)
    else:
        unet.add_adapter(LoraConfig(target_modules=settings.lora_target_modules, **lora))
    if settings.train_separator:
        separation.requires_grad_(True)
    elif settings.full:
        for weight in condition_weights(separator):
            weight.requires_grad_(True)
    else:
        layers = CONDITION_LAYERS if separator.label_tokens is not None else CONDITION_LAYERS[:-1]
        separator.add_adapter(LoraConfig(target_modules=layers, **lora))
    draws = {id(weight) for weight in (*unet.parameters(), *condition_weights(separator))}
    trained = [weight for weight in generator.parameters() if weight.requires_grad]
    drawing = [weight for weight in trained if id(weight) in draws]
    encoding = [weight for weight in trained if id(weight) not in draws]
    groups = [{"params": drawing, "lr": settings.learning_rate}]
    return [*groups, {"params": encoding, "lr": settings.separator_learning_rate}] if encoding else groups


def set_generator_mode(generator: Generator, train_separator: bool) -> None:
    """Training mode, with its dropouts, for what is trained; what only encodes works as it does in use."""
    generator.train()
    if train_separator:
        set_train_mode(generator.separation)
    else:
        generator.separation.eval()
        for layer in condition_layers(generator.separation.separator):
            layer.train()


@torch.no_grad()
def encode_example(
    separation: SeparationModel, vae: Any, batch: dict[str, Any], device: torch.device
) -> dict[str, torch.Tensor]:
    """
    What an [`ExampleCache`] keeps of a batch: `latent_mean` and `latent_std` `(B, C, H, W)` of its pictures in half
    precision and their `picture_sizes` `(B, 4)`, `slots` `(B, N, D)` and `labels` `(B, N)` of its sources, and which
    are `shown` `(B, N)`.
    """
    inputs = {name: value.to(device) for name, value in batch["encoder"].items()}
    slots, found, _ = encode_sources(separation, inputs, None, batch["labels"].to(device))
    mean, deviation = encode_pictures(vae, batch["pixel_values"].to(device))
    return {
        "latent_mean": mean.half(),
        "latent_std": deviation.half(),
        "slots": slots.float(),
        "labels": batch["labels"],
        "shown": batch["shown"].to(device) & found,
        "picture_sizes": batch["picture_sizes"],
    }
