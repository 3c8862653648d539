"""The A2V teacher: a frozen image encoder, asked once for every picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from tqdm.auto import tqdm
from transformers import AutoImageProcessor, AutoModel

from avgas_pipeline import AudioVisualSeparator
from avgas_pipeline.data.scenes import collage, open_picture


def load_picture_embeds(
    image_encoder: str | None,
    pictures: Sequence[Mapping[str, Any]],
    separator: AudioVisualSeparator,
    device: torch.device,
) -> tuple[torch.Tensor | None, dict[str, int] | None]:
    """
    Embeddings `(P, V)` of all pictures, and the row of each by its id; `None` for both without an image encoder.

    Raises:
        ValueError: If they are not of the separator's size.
    """
    if image_encoder is None:
        return None, None
    embeds = embed_pictures(image_encoder, pictures, device)
    if separator.config.visual_embed_dim != embeds.shape[1]:
        raise ValueError(
            f"{image_encoder}: has embeddings of {embeds.shape[1]}, but the separator's visual_embed_dim is"
            f" {separator.config.visual_embed_dim}."
        )
    return embeds, {name: number for number, name in enumerate(pictures["id"])}


@torch.no_grad()
def embed_pictures(
    path_or_repo: str, pictures: Sequence[Mapping[str, Any]], device: torch.device, batch_size: int = 32
) -> torch.Tensor:
    """
    Embeddings of all pictures of a data set, on white where they are transparent.

    Args:
        path_or_repo (`str`): An image encoder of transformers (CLIP, SigLIP, ViT, ResNet …), safetensors only.
        pictures (`Sequence[Mapping]`): Rows with `image`.
        device (`torch.device`): Where to encode.
        batch_size (`int`, defaults to 32): Pictures at a time.

    Returns:
        `torch.Tensor` of shape `(P, V)`: Unit vectors, in the order of the rows, on the CPU.
    """
    model = AutoModel.from_pretrained(path_or_repo, dtype=torch.float32, use_safetensors=True).to(device).eval()
    processor = AutoImageProcessor.from_pretrained(path_or_repo, backend="pil")
    embeds = []
    for start in tqdm(range(0, len(pictures), batch_size), desc="embedding pictures", leave=False):
        rows = [pictures[number] for number in range(start, min(start + batch_size, len(pictures)))]
        images = [collage([open_picture(row["image"])], 224) for row in rows]
        inputs = processor(images=images, return_tensors="pt").to(device)
        outputs = model.get_image_features(**inputs) if hasattr(model, "get_image_features") else model(**inputs)
        pooled = outputs.pooler_output
        if pooled is None:
            pooled = outputs.last_hidden_state[:, 0]
        embeds.append(F.normalize(pooled.flatten(1).float(), dim=-1).cpu())
    return torch.cat(embeds)
