"""What Stable Diffusion XL's U-Net takes beside condition tokens: a pooled embedding, and sizes."""

import torch
from diffusers import UNet2DConditionModel


# Height and width as they were, what was cut off above and left, and height and width as they are.
_NUM_TIME_IDS = 6


def pooled_dim(unet: UNet2DConditionModel) -> int:
    """Width of the pooled embedding that a U-Net takes beside the tokens; 0 if it takes none."""
    config = unet.config
    if config.addition_embed_type != "text_time":
        return 0
    return config.projection_class_embeddings_input_dim - _NUM_TIME_IDS * config.addition_time_embed_dim


def time_ids(sizes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """
    Stable Diffusion XL's micro-conditioning (arXiv 2307.01952), `(R, 6)`.

    Args:
        sizes (`torch.Tensor` of shape `(R, 4)`): Of every picture, in pixels: height and width before it was scaled,
            and what was cut off above and on the left.
        height, width (`int`): Of what is drawn, in pixels.
    """
    target = sizes.new_tensor([height, width]).expand(len(sizes), 2)
    return torch.cat([sizes, target], dim=1)


def added_conditions(pooled: torch.Tensor | None, height: int, width: int) -> dict[str, torch.Tensor] | None:
    """What a U-Net takes beside the tokens for whole pictures of a size; `None` without pooled embeddings `(R, P)`."""
    if pooled is None:
        return None
    sizes = pooled.new_tensor([height, width, 0, 0]).expand(len(pooled), 4)
    return {"text_embeds": pooled, "time_ids": time_ids(sizes, height, width)}
