"""The pipeline's steps between condition tokens and images: noise, the U-Net's calls, decoding."""

import torch
from diffusers.utils.torch_utils import randn_tensor

from .conditioning import Rows
from .models.latent_scale import unscale_latents


class DenoisingMixin:
    """`prepare_latents`, `predict_noise` and `decode_latents` of the pipeline."""

    def prepare_latents(
        self,
        batch_size: int,
        rows: Rows,
        num_channels_latents: int,
        height: int,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Noise for every row, `(R, channels, height, width)`: the mixed image and its separated ones share theirs.

        `latents` may be given for the mixed images, `(batch_size, ...)`, or for every row, `(R, ...)`.
        """
        if isinstance(generator, list) and len(generator) != batch_size:
            raise ValueError(f"{len(generator)} generators do not fit a batch of {batch_size} mixed images.")
        num_rows = len(rows)
        shape = (num_channels_latents, height // self.vae_scale_factor, width // self.vae_scale_factor)
        if latents is None:
            latents = randn_tensor((batch_size, *shape), generator=generator, device=device, dtype=dtype)
        elif latents.shape[1:] != shape or latents.shape[0] not in (batch_size, num_rows):
            raise ValueError(
                f"`latents` has to be of shape ({batch_size}, *{shape}) for the mixed images or ({num_rows}, *{shape})"
                f" for every image, but is of shape {tuple(latents.shape)}."
            )
        latents = latents.to(device=device, dtype=dtype)
        if latents.shape[0] != num_rows:
            latents = latents[rows.mixed_numbers()]
        # Flow-matching schedulers start from unit noise and have no `init_noise_sigma`.
        return latents * getattr(self.scheduler, "init_noise_sigma", 1.0)

    def predict_noise(
        self,
        model_input: torch.Tensor,
        timestep: torch.Tensor,
        hidden_states: torch.Tensor,
        mask: torch.Tensor | None,
        timestep_cond: torch.Tensor | None = None,
        added_cond: dict[str, torch.Tensor] | None = None,
        max_batch_rows: int | None = None,
    ) -> torch.Tensor:
        """One call of the U-Net for all rows, or one for each `max_batch_rows` of them."""
        num_rows = model_input.shape[0]
        predictions = []
        for start in range(0, num_rows, max_batch_rows or num_rows):
            part = slice(start, start + (max_batch_rows or num_rows))
            prediction = self.unet(
                model_input[part],
                timestep,
                encoder_hidden_states=hidden_states[part],
                timestep_cond=None if timestep_cond is None else timestep_cond[part],
                cross_attention_kwargs=self.cross_attention_kwargs,
                added_cond_kwargs=added_cond and {name: values[part] for name, values in added_cond.items()},
                encoder_attention_mask=None if mask is None else mask[part],
                return_dict=False,
            )[0]
            predictions.append(prediction)
        return torch.cat(predictions)

    def decode_latents(self, latents: torch.Tensor, max_batch_rows: int | None = None) -> torch.Tensor:
        """
        Images `(rows, 3, height, width)` in [-1, 1], `max_batch_rows` at a time.

        Raises:
            ValueError: If what the VAE makes of them is not finite, which would be a black image.
        """
        latents = unscale_latents(self.vae, latents.to(self.vae.dtype))
        parts = latents.split(max_batch_rows or latents.shape[0])
        images = torch.cat([self.vae.decode(part, return_dict=False)[0] for part in parts])
        if not images.isfinite().all():
            raise ValueError(
                f"What `vae` ({self.vae.dtype}) decodes is not finite: its weights are damaged, or the data type does"
                " not hold its values, as float16 in some autoencoders: `pipe.vae.to(torch.float32)` then helps."
            )
        return images


def check_finite_latents(latents: torch.Tensor) -> None:
    """Raises `ValueError` if there is NaN or infinity in what was denoised."""
    if not latents.isfinite().all():
        raise ValueError(
            "The denoised latents are not finite: the weights of `unet`, its LoRA layers or the latents given hold NaN"
            " or infinity, the data type does not hold their values, or `guidance_scale` is too large."
        )
