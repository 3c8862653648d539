"""A trained separator whose labels are drawn as a Stable Diffusion model draws their phrases, without training."""

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline

from ..models.added_conditions import pooled_dim
from ..models.separator import UNKNOWN_LABEL, AudioVisualSeparator
from .phrases import phrase_of


# So near 0 that a source is drawn as its most probable label, and not as something between two.
_TEMPERATURE = 1e-4
# Phrases that go through the text encoders at a time.
_BATCH_SIZE = 32
# Of a separator, what is made anew: `token_head.0` makes condition tokens, too, but of whatever width.
_CONDITION = ("token_head.2.", "token_norm.", "label_tokens.", "null_tokens")


@torch.no_grad()
def with_phrases_of(separator: AudioVisualSeparator, base: DiffusionPipeline) -> AudioVisualSeparator:
    """
    A separator that hears as the given one does, and whose condition tokens are the base's own text embeddings of the
    labels' phrases, with all their tokens; what a slot adds to them begins at zero. Null tokens are what the base
    leads away from when nothing else is said: the empty prompt, or zeros.

    Args:
        separator ([`AudioVisualSeparator`]): A trained one.
        base ([`DiffusionPipeline`]): Stable Diffusion 1.x, 2.x or XL, with its text encoders.

    Raises:
        ValueError: If the base has no text encoders, or its U-Net takes other pooled embeddings than they make.
    """
    if getattr(base, "text_encoder", None) is None or getattr(base, "tokenizer", None) is None:
        raise ValueError("The base needs its text encoders: they say what its U-Net draws of each label.")
    labels = [separator.id2label[number] for number in range(len(separator.id2label))]
    # Its own embedding is never used: an unknown sound is drawn as what it is most like.
    phrases = ["" if label == UNKNOWN_LABEL else phrase_of(label) for label in labels]
    embeds = [_encode(base, phrases[start : start + _BATCH_SIZE])[0] for start in range(0, len(phrases), _BATCH_SIZE)]
    null_tokens = _encode(base, [""])[1][0]
    width = pooled_dim(base.unet)
    config = {name: value for name, value in separator.config.items() if not name.startswith("_")}
    config |= {
        "cross_attention_dim": base.unet.config.cross_attention_dim,
        "num_condition_tokens": len(null_tokens) - bool(width),
        "pooled_projection_dim": width,
        "norm_condition_tokens": False,
        "label_temperature": _TEMPERATURE,
        "pipeline_settings": None,
    }
    drawn = AudioVisualSeparator(**config)
    weights = drawn.state_dict()
    weights |= {name: value for name, value in separator.state_dict().items() if not name.startswith(_CONDITION)}
    weights["label_tokens.weight"] = torch.cat(embeds).flatten(1).T
    weights["null_tokens"] = null_tokens
    for name in ("token_head.2.weight", "token_head.2.bias"):
        weights[name].zero_()
    drawn.load_state_dict(weights)
    drawn = drawn.to(base.unet.device).eval()
    # diffusers warns of every cast.
    return drawn if drawn.dtype == base.unet.dtype else drawn.to(base.unet.dtype)


def _encode(base: DiffusionPipeline, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens `(B, M, C)` of texts, and of what guidance leads away from; pooled embeddings are one more token."""
    width, options = pooled_dim(base.unet), {"num_images_per_prompt": 1, "do_classifier_free_guidance": True}
    tokens, negative, *pooled = base.encode_prompt(texts, device=base._execution_device, **options)
    if not width:
        return tokens, negative
    if pooled[0].shape[-1] != width:
        raise ValueError(
            f"The base's U-Net takes {width} pooled values and six sizes, but its text encoder gives"
            f" {pooled[0].shape[-1]} (a refiner?)."
        )
    return tuple(
        torch.cat([each, F.pad(vector, (0, each.shape[-1] - width))[:, None]], dim=1)
        for each, vector in zip((tokens, negative), pooled, strict=True)
    )
