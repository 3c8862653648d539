"""`AVGASPipeline`: from a soundscape to pictures of everything heard in it."""

import dataclasses
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from numbers import Real
from typing import Any

import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny, DiffusionPipeline, UNet2DConditionModel
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.pipeline_utils import StableDiffusionMixin
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
    StableDiffusionPipeline,
    rescale_noise_cfg,
    retrieve_timesteps,
)
from diffusers.schedulers import KarrasDiffusionSchedulers
from diffusers.utils import logging, replace_example_docstring, scale_lora_layers, unscale_lora_layers
from diffusers.utils.torch_utils import randn_tensor
from transformers import CLIPTextModel, CLIPTokenizer, FeatureExtractionMixin, PreTrainedModel
from typing_extensions import Self

from .audio.loading import DEFAULT_MAX_DURATION_S
from .conditioning import (
    Rows,
    build_rows,
    match_length,
    pad_tokens,
    prepend_text,
    row_seeds,
    step_generators,
    weigh_sources,
    weight_tensor,
    weights_per_soundscape,
)
from .hooks import common_device, data_type, has_hooks, inference_mode
from .input_checks import check_count, check_embeds, check_hearing, check_negative_embeds, check_text
from .loaders.from_parts import build_separator, check_parts, load_audio_encoder
from .loaders.hub import HubMixin
from .loaders.lora import AVGASLoraLoaderMixin
from .models.encoder_adapters import window_length
from .models.separator import AudioVisualSeparator
from .pipeline_output import AVGASPipelineOutput, EncodedAudio, SoundSource
from .separation.encoding import Listener, Recording


logger = logging.get_logger(__name__)


EXAMPLE_DOC_STRING = """
    Examples:
        ```py
        >>> import torch
        >>> from avgas_pipeline import AVGASPipeline

        >>> pipe = AVGASPipeline.from_pretrained("path/to/checkpoint", dtype=torch.float16).to("cuda")

        >>> out = pipe("recording.wav", separate=True, generator=torch.Generator("cuda").manual_seed(0))
        >>> out.images[0].save("mixed.png")
        >>> for number, source in enumerate(out.sources[0], start=1):
        ...     print(source.label, source.score)
        ...     source.images[0].save(f"source-{number}.png")
        ```
"""


class AVGASPipeline(HubMixin, DiffusionPipeline, StableDiffusionMixin, AVGASLoraLoaderMixin):
    r"""
    Pipeline for soundscape-to-image generation: one mixed image with every source heard, and, on demand, one
    separated image per source. It implements AV-GAS (arXiv 2504.18283) on latent diffusion, for any number of sources.

    This model inherits from [`DiffusionPipeline`]. Check the superclass documentation for the generic methods
    implemented for all pipelines (downloading, saving, running on a particular device, etc.).

    The pipeline also inherits the following loading methods:
        - [`AVGASLoraLoaderMixin.load_lora_weights`] for loading LoRA weights
        - [`AVGASLoraLoaderMixin.save_lora_weights`] for saving LoRA weights

    Args:
        vae ([`AutoencoderKL`], [`AutoencoderTiny`] or [`AutoencoderDC`]):
            Decodes latents to images.
        unet ([`UNet2DConditionModel`]):
            Denoises latents under the condition tokens of the sources.
        scheduler ([`SchedulerMixin`]):
            Any Karras-style scheduler.
        audio_encoder ([`~transformers.PreTrainedModel`]):
            Turns audio features into tokens: any model with a `last_hidden_state` (AST, `ClapAudioModel`,
            [`WhisperAudioEncoder`], Wav2Vec2, or a `ResNetModel` on spectrograms).
        audio_feature_extractor ([`~transformers.FeatureExtractionMixin`]):
            The audio encoder's feature extractor.
        separator ([`AudioVisualSeparator`]):
            Turns audio tokens into sources.
        text_encoder ([`~transformers.CLIPTextModel`], *optional*):
            Encodes `prompt`; its tokens go before those of the audio.
        tokenizer ([`~transformers.CLIPTokenizer`], *optional*):
            The text encoder's tokenizer.
        default_num_inference_steps (`int`, *optional*, defaults to 50):
            Denoising steps of a call that does not say how many.
        default_guidance_scale (`float`, *optional*, defaults to 7.5):
            Weight of guidance of a call that does not give one.
        speed_variation (`float`, *optional*, defaults to 0):
            Test-time augmentation, in [0, 0.5]. If above 0, every window of a recording is heard three times: as it
            is, and played slower and faster by this share. A source's presence and label are the mean of the three,
            its separated audio and its embedding those of the recording as it is.
    """

    model_cpu_offload_seq = "audio_encoder->separator->text_encoder->unet->vae"
    _optional_components = ["text_encoder", "tokenizer"]  # noqa: RUF012
    _callback_tensor_inputs = ["latents", "audio_embeds", "negative_audio_embeds"]  # noqa: RUF012

    encode_prompt = StableDiffusionPipeline.encode_prompt
    prepare_extra_step_kwargs = StableDiffusionPipeline.prepare_extra_step_kwargs
    get_guidance_scale_embedding = StableDiffusionPipeline.get_guidance_scale_embedding

    def __init__(
        self,
        vae: AutoencoderKL | AutoencoderTiny | AutoencoderDC,
        unet: UNet2DConditionModel,
        scheduler: KarrasDiffusionSchedulers,
        audio_encoder: PreTrainedModel,
        audio_feature_extractor: FeatureExtractionMixin,
        separator: AudioVisualSeparator,
        text_encoder: CLIPTextModel | None = None,
        tokenizer: CLIPTokenizer | None = None,
        default_num_inference_steps: int = 50,
        default_guidance_scale: float = 7.5,
        speed_variation: float = 0.0,
    ) -> None:
        super().__init__()
        if not isinstance(speed_variation, Real) or not 0 <= speed_variation <= 0.5:
            raise ValueError(f"`speed_variation` has to be a number from 0 to 0.5 but is {speed_variation!r}.")
        self.register_to_config(
            default_num_inference_steps=default_num_inference_steps,
            default_guidance_scale=default_guidance_scale,
            speed_variation=speed_variation,
        )
        self.register_modules(
            vae=vae,
            unet=unet,
            scheduler=scheduler,
            audio_encoder=audio_encoder,
            audio_feature_extractor=audio_feature_extractor,
            separator=separator,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
        )
        self.vae_scale_factor = 8
        if getattr(self, "vae", None) is not None:
            # AutoencoderDC names its blocks otherwise.
            blocks = self.vae.config.get("block_out_channels") or self.vae.config.encoder_block_out_channels
            self.vae_scale_factor = 2 ** (len(blocks) - 1)
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)

    @classmethod
    def from_stable_diffusion(
        cls,
        pretrained_model_name_or_pipe: str | DiffusionPipeline,
        audio_encoder: str | PreTrainedModel,
        audio_feature_extractor: FeatureExtractionMixin | None = None,
        separator: AudioVisualSeparator | None = None,
        use_text_encoder: bool = False,
        dtype: torch.dtype | None = None,
        **separator_kwargs: Any,
    ) -> Self:
        r"""
        Assemble a pipeline from public parts: a trained Stable Diffusion 1.x/2.x U-Net, VAE and scheduler, a trained
        audio encoder, and an untrained separator between them, ready for training.

        Args:
            pretrained_model_name_or_pipe (`str` or [`DiffusionPipeline`]):
                A Stable Diffusion checkpoint (Hub repository or folder), or a loaded pipeline.
            audio_encoder (`str` or [`~transformers.PreTrainedModel`]):
                An audio encoder (Hub repository or folder; of a CLAP or Whisper model the audio side is taken), or a
                loaded one.
            audio_feature_extractor ([`~transformers.FeatureExtractionMixin`], *optional*):
                Its feature extractor; needed if the audio encoder is a loaded model.
            separator ([`AudioVisualSeparator`], *optional*):
                A separator to use instead of a new one.
            use_text_encoder (`bool`, defaults to `False`):
                Whether to keep the text encoder and tokenizer, for `prompt`.
            dtype (`torch.dtype`, *optional*):
                Data type of what is loaded; float32 if not given.
            separator_kwargs (`dict`, *optional*):
                Configuration of the new [`AudioVisualSeparator`], such as `num_slots`, `num_layers` or `id2label`
                (VGGSound's 309 labels if not given); what follows from the other parts is filled in.

        Raises:
            ValueError: If a loaded audio encoder comes without feature extractor, or the parts do not fit.
        """
        if isinstance(pretrained_model_name_or_pipe, DiffusionPipeline):
            if dtype is not None:
                raise ValueError("`dtype` is for what is loaded; convert a loaded pipeline with `.to(dtype)`.")
            base = pretrained_model_name_or_pipe
        else:
            base = DiffusionPipeline.from_pretrained(
                pretrained_model_name_or_pipe,
                dtype=dtype or torch.float32,
                use_safetensors=True,
                safety_checker=None,
            )
        audio_encoder, audio_feature_extractor = load_audio_encoder(audio_encoder, audio_feature_extractor, dtype)
        if separator is None:
            separator = build_separator(audio_encoder, audio_feature_extractor, base.unet, **separator_kwargs)
            if separator.dtype != base.unet.dtype:
                separator = separator.to(dtype=base.unet.dtype)
        elif separator_kwargs:
            raise ValueError(f"{sorted(separator_kwargs)} configure a new separator, but `separator` is given.")
        check_parts(base.unet, base.vae, separator)
        return cls(
            vae=base.vae,
            unet=base.unet,
            scheduler=base.scheduler,
            audio_encoder=audio_encoder,
            audio_feature_extractor=audio_feature_extractor,
            separator=separator,
            text_encoder=base.text_encoder if use_text_encoder else None,
            tokenizer=base.tokenizer if use_text_encoder else None,
        )

    @property
    def _execution_device(self) -> torch.device:
        models = [part for part in self.components.values() if isinstance(part, torch.nn.Module)]
        # diffusers' own search among hooks takes milliseconds, and most pipelines have none.
        return super()._execution_device if any(map(has_hooks, models)) else common_device(models)

    @property
    def sampling_rate(self) -> int:
        """Rate at which audio is heard and separated, in Hz."""
        return self.audio_feature_extractor.sampling_rate

    @property
    def window_s(self) -> float:
        """Length of the window the audio encoder hears at once, in seconds."""
        return window_length(self.audio_feature_extractor) / self.sampling_rate

    @property
    def default_size(self) -> tuple[int, int] | None:
        """Height and width the U-Net was made for, in pixels; `None` without U-Net or `sample_size`."""
        sample_size = None if getattr(self, "unet", None) is None else self.unet.config.sample_size
        if sample_size is None:
            return None
        height, width = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
        return height * self.vae_scale_factor, width * self.vae_scale_factor

    def encode_audio(
        self,
        audio: Any,
        sampling_rate: int | None = None,
        num_sources: int | None = None,
        presence_threshold: float | None = None,
        negative_audio: Any = None,
        return_audio: bool = True,
        max_duration_s: float = DEFAULT_MAX_DURATION_S,
        max_batch_rows: int | None = None,
        lora_scale: float | None = None,
        device: torch.device | None = None,
    ) -> EncodedAudio:
        r"""
        Hear soundscapes: separate their sources and get what draws them. `pipe(**pipe.encode_audio(audio))` draws
        without hearing again. Needs neither U-Net nor VAE. As diffusers' `encode_prompt`, it keeps gradients, and with
        them what every window went through (about 0.2 GB in avgas-mini, more in larger encoders): call it under
        `torch.no_grad()` where they are not needed.

        Args:
            audio, sampling_rate, num_sources, presence_threshold, negative_audio, return_audio, max_duration_s:
                See [`~AVGASPipeline.__call__`].
            max_batch_rows (`int`, *optional*):
                The most windows that go through the audio encoder at a time, at all speeds together; never more than
                32.
            lora_scale (`float`, *optional*):
                Factor on the separator's LoRA layers.
            device (`torch.device`, *optional*):
                Where the models run; the pipeline's device, or that of its offloading, if not given.

        Returns:
            [`EncodedAudio`], whose names are those of `__call__`'s arguments.
        """
        check_hearing(self, num_sources, presence_threshold)
        if max_batch_rows is not None:
            check_count("max_batch_rows", max_batch_rows)
        device = device or self._execution_device
        listener = Listener(
            self.audio_feature_extractor, self.audio_encoder, self.separator, device, self.config.speed_variation
        )
        hint = "; pass `num_sources` to draw anyway"
        soundscapes = listener.load(audio, sampling_rate, max_duration_s, num_sources, presence_threshold, hint)
        negatives = []
        if negative_audio is not None:
            hint = ", so there is nothing to lead away from: leave `negative_audio` out"
            negatives = listener.load(negative_audio, sampling_rate, max_duration_s, None, presence_threshold, hint)
            if len(negatives) not in (1, len(soundscapes)):
                raise ValueError(
                    f"{len(negatives)} `negative_audio` recordings do not fit {len(soundscapes)} soundscapes: give"
                    " one, or one for each."
                )

        scale_lora_layers(self.separator, weight=1.0 if lora_scale is None else lora_scale)
        try:
            null_tokens = listener.hear(soundscapes + negatives, max_batch_rows)
        finally:
            unscale_lora_layers(self.separator, weight=lora_scale)

        audio_embeds, audio_attention_mask = _condition_tokens(soundscapes)
        if negatives:
            negative_audio_embeds, negative_audio_attention_mask = _condition_tokens(negatives)
            repeats = len(soundscapes) // len(negatives)
            negative_audio_embeds = negative_audio_embeds.repeat_interleave(repeats, dim=0)
            negative_audio_attention_mask = negative_audio_attention_mask.repeat_interleave(repeats, dim=0)
        else:
            negative_audio_embeds = null_tokens.expand(len(soundscapes), 1, -1, -1)
            negative_audio_attention_mask = audio_attention_mask.new_ones((len(soundscapes), 1))
        return EncodedAudio(
            audio_embeds=audio_embeds,
            audio_attention_mask=audio_attention_mask,
            negative_audio_embeds=negative_audio_embeds,
            negative_audio_attention_mask=negative_audio_attention_mask,
            null_audio_embeds=null_tokens,
            sources=[listener.render(recording, return_audio) for recording in soundscapes],
        )

    @torch.no_grad()
    def separate_audio(
        self,
        audio: Any,
        sampling_rate: int | None = None,
        num_sources: int | None = None,
        presence_threshold: float | None = None,
        return_audio: bool = True,
        max_duration_s: float = DEFAULT_MAX_DURATION_S,
        max_batch_rows: int | None = None,
    ) -> list[list[SoundSource]]:
        r"""
        Hear soundscapes without drawing them. Arguments as of [`~AVGASPipeline.encode_audio`].

        Returns:
            `list[list[SoundSource]]`: for every soundscape its sources, the most certain first, without images.
        """
        encoded = self.encode_audio(
            audio,
            sampling_rate=sampling_rate,
            num_sources=num_sources,
            presence_threshold=presence_threshold,
            return_audio=return_audio,
            max_duration_s=max_duration_s,
            max_batch_rows=max_batch_rows,
        )
        self.maybe_free_model_hooks()
        return encoded.sources

    def check_inputs(
        self,
        audio: Any,
        audio_embeds: torch.Tensor | None,
        height: int,
        width: int,
        prompt: str | list[str] | None = None,
        negative_prompt: str | list[str] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        audio_attention_mask: torch.Tensor | None = None,
        negative_audio: Any = None,
        negative_audio_embeds: torch.Tensor | None = None,
        negative_audio_attention_mask: torch.Tensor | None = None,
        null_audio_embeds: torch.Tensor | None = None,
        sources: list[list[SoundSource]] | None = None,
        num_sources: int | None = None,
        presence_threshold: float | None = None,
        source_weights: Any = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        max_batch_rows: int | None = None,
        output_type: str = "pil",
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> None:
        """Raises `ValueError` for arguments that do not fit each other or the models, before anything is computed."""
        factor = self.vae_scale_factor
        if not all(isinstance(side, int) and side > 0 and side % factor == 0 for side in (height, width)):
            raise ValueError(
                f"`height` and `width` have to be positive multiples of {factor} but are {height} and {width}."
            )
        if not isinstance(guidance_scale, Real) or not math.isfinite(guidance_scale):
            raise ValueError(f"`guidance_scale` has to be a finite number but is {guidance_scale!r}.")
        check_count("num_inference_steps", num_inference_steps)
        if output_type not in ("pil", "np", "pt", "latent"):
            raise ValueError(f"`output_type` has to be 'pil', 'np', 'pt' or 'latent' but is {output_type!r}.")
        unknown = set(callback_on_step_end_tensor_inputs or []) - set(self._callback_tensor_inputs)
        if unknown:
            raise ValueError(
                f"`callback_on_step_end_tensor_inputs` has to be in {self._callback_tensor_inputs}, but found"
                f" {sorted(unknown)}."
            )
        check_count("num_images_per_prompt", num_images_per_prompt)
        if max_batch_rows is not None:
            check_count("max_batch_rows", max_batch_rows)
        if (audio is None) == (audio_embeds is None):
            raise ValueError("Pass exactly one of `audio` and `audio_embeds`.")
        if audio_embeds is not None and (
            negative_audio is not None or num_sources is not None or presence_threshold is not None
        ):
            raise ValueError(
                "With `audio_embeds`, pass `negative_audio`, `num_sources` and `presence_threshold` to `encode_audio`."
            )
        if negative_audio is not None and negative_audio_embeds is not None:
            raise ValueError("Pass only one of `negative_audio` and `negative_audio_embeds`.")
        width_of_tokens = self.unet.config.cross_attention_dim
        if audio is not None:
            batch_size = len(audio) if isinstance(audio, (list, tuple)) else 1
            check_hearing(self, num_sources, presence_threshold)
            if audio_attention_mask is not None or sources is not None:
                raise ValueError("`audio_attention_mask` and `sources` go with `audio_embeds`, not with `audio`.")
        else:
            batch_size = check_embeds(width_of_tokens, audio_embeds, audio_attention_mask, sources)
        check_negative_embeds(
            width_of_tokens,
            batch_size,
            negative_audio_embeds,
            negative_audio_attention_mask,
            null_audio_embeds,
        )
        if not isinstance(generator, (torch.Generator, list, type(None))):
            raise ValueError(f"`generator` has to be a generator or a list of them but is {type(generator)}.")
        if isinstance(generator, list) and len(generator) != batch_size * num_images_per_prompt:
            raise ValueError(
                f"You have passed a list of {len(generator)} generators for {batch_size} soundscapes with"
                f" {num_images_per_prompt} images each: it takes one generator for each mixed image."
            )
        check_text(
            self.text_encoder is not None,
            width_of_tokens,
            guidance_scale > 1,
            batch_size,
            prompt,
            negative_prompt,
            prompt_embeds,
            negative_prompt_embeds,
        )
        labels = set(self.separator.id2label.values()) if self.separator is not None else None
        weights_per_soundscape(source_weights, batch_size, labels)

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

    @property
    def guidance_scale(self) -> float:
        """Weight of guidance; a callback may change `_guidance_scale` in a call that began with guidance."""
        return self._guidance_scale

    @property
    def guidance_rescale(self) -> float:
        """Guidance rescale factor."""
        return self._guidance_rescale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether each step has unconditional rows, too."""
        return self._guidance_scale > 1 and self.unet.config.time_cond_proj_dim is None

    @property
    def cross_attention_kwargs(self) -> dict[str, Any] | None:
        """What is passed to the U-Net's attention processors."""
        return self._cross_attention_kwargs

    @property
    def num_timesteps(self) -> int:
        """Number of timesteps of the running call."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """Set `_interrupt` in a callback to stop denoising; what there is gets decoded."""
        return self._interrupt

    @torch.no_grad()
    @replace_example_docstring(EXAMPLE_DOC_STRING)
    def __call__(
        self,
        audio: Any = None,
        sampling_rate: int | None = None,
        separate: bool = False,
        prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | list[str] | None = None,
        negative_audio: Any = None,
        num_images_per_prompt: int = 1,
        num_sources: int | None = None,
        presence_threshold: float | None = None,
        source_weights: dict[str, float] | list | None = None,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        audio_embeds: torch.Tensor | None = None,
        audio_attention_mask: torch.Tensor | None = None,
        negative_audio_embeds: torch.Tensor | None = None,
        negative_audio_attention_mask: torch.Tensor | None = None,
        null_audio_embeds: torch.Tensor | None = None,
        sources: list[list[SoundSource]] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        return_audio: bool = True,
        output_type: str = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        guidance_rescale: float = 0.0,
        max_duration_s: float = DEFAULT_MAX_DURATION_S,
        max_batch_rows: int | None = None,
        callback_on_step_end: Callable[..., dict] | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006
    ) -> AVGASPipelineOutput | tuple:
        r"""
        The call function to the pipeline for generation.

        Args:
            audio (path, `bytes`, file object, `np.ndarray`, `torch.Tensor`, `dict`, or a `list` of these):
                The soundscape or soundscapes: audio or video files, samples of shape `(T,)`, `(channels, T)` or
                `(T, channels)`, or `datasets` Audio values. See [`~avgas_pipeline.audio.load_audio`].
            sampling_rate (`int`, *optional*):
                Rate of samples given as arrays or tensors, in Hz.
            separate (`bool`, defaults to `False`):
                Whether to draw each source alone, too.
            prompt (`str` or `list[str]`, *optional*):
                Text put before the audio, if the pipeline has a text encoder.
            height (`int`, *optional*, defaults to `unet.config.sample_size * vae_scale_factor`):
                The height in pixels of the images.
            width (`int`, *optional*, defaults to `unet.config.sample_size * vae_scale_factor`):
                The width in pixels of the images.
            num_inference_steps (`int`, *optional*, defaults to the checkpoint's `default_num_inference_steps`, or 50):
                The number of denoising steps.
            timesteps (`list[int]`, *optional*):
                Custom timesteps, descending, for schedulers that take them.
            sigmas (`list[float]`, *optional*):
                Custom sigmas for schedulers that take them.
            guidance_scale (`float`, *optional*, defaults to the checkpoint's `default_guidance_scale`, or 7.5):
                Weight of classifier-free guidance; guidance is on above 1.
            negative_prompt (`str` or `list[str]`, *optional*):
                Text to lead away from.
            negative_audio (as `audio`, *optional*):
                Sound to lead away from, one recording for all soundscapes or one for each. Without it guidance leads
                away from the separator's null tokens.
            num_images_per_prompt (`int`, *optional*, defaults to 1):
                The number of images per soundscape, and per source with `separate`.
            num_sources (`int`, *optional*):
                How many sources to draw: the most probable ones. `None` takes those that are present.
            presence_threshold (`float`, *optional*):
                Probability from which on a source is present, in [0, 1]. `None` takes as many sources as are to be
                expected in each window, the sum of all presence probabilities, rounded: the most probable ones, but
                none below 0.2.
            source_weights (`dict[str, float]` or `list`, *optional*):
                How strongly sources show in the mixed image: by label, or one number per source in the order of
                `sources`; for a batch, a dict for all, or a list with one of these for each soundscape. 1 changes
                nothing, 0 leaves the source out altogether, of `sources` too.
            eta (`float`, *optional*, defaults to 0.0):
                Corresponds to parameter eta (η) of the DDIM paper; other schedulers ignore it.
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*):
                Makes generation deterministic: one, or one for each mixed image.
            latents (`torch.Tensor`, *optional*):
                Noise to begin with, for the mixed images, whose separated images then share it, or for every image:
                for each mixed image itself, then its separated ones.
            audio_embeds (`torch.Tensor` of shape `(B, S, M, cross_attention_dim)`, *optional*):
                Condition tokens of the sources, instead of `audio`. This and the next five are what
                [`~AVGASPipeline.encode_audio`] returned; see [`EncodedAudio`].
            audio_attention_mask (`torch.Tensor` of shape `(B, S)`, *optional*):
                Where `audio_embeds` has a source; everywhere if not given.
            negative_audio_embeds (`torch.Tensor` of shape `(B, S', M, cross_attention_dim)`, *optional*):
                Condition tokens to lead away from, instead of `negative_audio`.
            negative_audio_attention_mask (`torch.Tensor` of shape `(B, S')`, *optional*):
                Where `negative_audio_embeds` has a source; everywhere if not given.
            null_audio_embeds (`torch.Tensor` of shape `(M, cross_attention_dim)`, *optional*):
                Null tokens; those of the separator if not given.
            sources (`list[list[SoundSource]]`, *optional*):
                The sources that `audio_embeds` stands for, to be returned with their images.
            prompt_embeds (`torch.Tensor` of shape `(B, tokens, cross_attention_dim)`, *optional*):
                Text embeddings instead of `prompt`.
            negative_prompt_embeds (`torch.Tensor` of the same shape, *optional*):
                Text embeddings instead of `negative_prompt`.
            return_audio (`bool`, *optional*, defaults to `True`):
                Whether sources come with their separated audio.
            output_type (`str`, *optional*, defaults to `"pil"`):
                `"pil"`, `"np"` (in [0, 1], channels last), `"pt"` (in [0, 1], channels first) or `"latent"`.
            return_dict (`bool`, *optional*, defaults to `True`):
                Whether to return an [`AVGASPipelineOutput`] or a tuple of its values.
            cross_attention_kwargs (`dict`, *optional*):
                Passed to the U-Net's attention processors. `{"scale": s}` scales all LoRA layers.
            guidance_rescale (`float`, *optional*, defaults to 0.0):
                Guidance rescale factor of "Common Diffusion Noise Schedules and Sample Steps are Flawed".
            max_duration_s (`float`, *optional*, defaults to 3600):
                The longest recording accepted, in seconds.
            max_batch_rows (`int`, *optional*):
                The most rows that go through the U-Net, and images through the VAE, at a time. All of them if `None`.
            callback_on_step_end (`Callable`, `PipelineCallback`, `MultiPipelineCallbacks`, *optional*):
                Called after each step as `callback_on_step_end(self, step, timestep, callback_kwargs)`; returns a dict
                of the tensors to replace.
            callback_on_step_end_tensor_inputs (`list`, *optional*):
                The tensors it gets: among `latents`, `audio_embeds`, `negative_audio_embeds`. They have one row for
                every image, in the order of `latents`; the latter two are `(rows, tokens, cross_attention_dim)`, with
                the text's tokens first.

        Examples:

        Returns:
            [`AVGASPipelineOutput`] or `tuple`:
                The mixed images, and the sources of every soundscape.

        Raises:
            FileNotFoundError: If an audio file does not exist.
            ValueError: If a recording can't be read, is silent or has no present source, or arguments do not fit.
        """
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs

        # 0. Defaults of the checkpoint, height and width those of its U-Net
        if num_inference_steps is None:
            num_inference_steps = self.config.default_num_inference_steps
        if guidance_scale is None:
            guidance_scale = self.config.default_guidance_scale
        if height is None or width is None:
            if self.default_size is None:
                raise ValueError("`height` and `width` are needed: the U-Net's configuration has no `sample_size`.")
            height = self.default_size[0] if height is None else height
            width = self.default_size[1] if width is None else width

        # 1. Check inputs. Raise error if not correct
        self.check_inputs(
            audio,
            audio_embeds,
            height,
            width,
            prompt=prompt,
            negative_prompt=negative_prompt,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            audio_attention_mask=audio_attention_mask,
            negative_audio=negative_audio,
            negative_audio_embeds=negative_audio_embeds,
            negative_audio_attention_mask=negative_audio_attention_mask,
            null_audio_embeds=null_audio_embeds,
            sources=sources,
            num_sources=num_sources,
            presence_threshold=presence_threshold,
            source_weights=source_weights,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            num_images_per_prompt=num_images_per_prompt,
            generator=generator,
            max_batch_rows=max_batch_rows,
            output_type=output_type,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
        )
        self._guidance_scale = guidance_scale
        self._guidance_rescale = guidance_rescale
        self._cross_attention_kwargs = cross_attention_kwargs
        self._interrupt = False

        # 2. Define call parameters
        # Looking for it among offloading hooks takes milliseconds.
        device = self._execution_device
        lora_scale = (cross_attention_kwargs or {}).get("scale")

        # 3. Hear the soundscapes
        if audio_embeds is None:
            encoded = self.encode_audio(
                audio,
                sampling_rate=sampling_rate,
                num_sources=num_sources,
                presence_threshold=presence_threshold,
                negative_audio=negative_audio,
                return_audio=return_audio,
                max_duration_s=max_duration_s,
                max_batch_rows=max_batch_rows,
                lora_scale=lora_scale,
                device=device,
            )
            audio_embeds = encoded.audio_embeds
            audio_attention_mask = encoded.audio_attention_mask
            sources = encoded.sources
            null_audio_embeds = encoded.null_audio_embeds if null_audio_embeds is None else null_audio_embeds
            if negative_audio is not None:
                negative_audio_embeds = encoded.negative_audio_embeds
                negative_audio_attention_mask = encoded.negative_audio_attention_mask
        batch_size = audio_embeds.shape[0]

        # 4. Lay out one row for every image, and the tokens it is drawn from
        rows, sources = self._prepare_rows(
            audio_embeds,
            audio_attention_mask,
            null_audio_embeds,
            sources,
            weights_per_soundscape(source_weights, batch_size, None),
            num_images_per_prompt,
            separate,
            device,
        )
        audio_embeds, attention_mask, negative_audio_embeds, negative_attention_mask = self._prepare_conditions(
            rows,
            negative_audio_embeds,
            negative_audio_attention_mask,
            null_audio_embeds,
            prompt,
            negative_prompt,
            prompt_embeds,
            negative_prompt_embeds,
            batch_size,
            lora_scale,
            device,
        )

        # 5. Prepare timesteps
        timesteps, num_inference_steps = retrieve_timesteps(
            self.scheduler, num_inference_steps, device, timesteps, sigmas
        )

        # 6. Prepare latent variables
        latents = self.prepare_latents(
            batch_size * num_images_per_prompt,
            rows,
            self.unet.config.in_channels,
            height,
            width,
            # The U-Net's, which takes it milliseconds to say.
            rows.hidden_states.dtype,
            device,
            generator,
            latents,
        )

        # 7. Prepare extra step kwargs and the guidance embedding of distilled U-Nets
        generators = step_generators(generator, rows, device)
        extra_step_kwargs = self.prepare_extra_step_kwargs(generators, eta)
        if "noise_sampler_seed" in self.scheduler.config and self.scheduler.config.noise_sampler_seed is None:
            # DPMSolverSDE has a noise source of its own and takes no generators.
            self.scheduler.noise_sampler_seed = row_seeds(generators)
        timestep_cond = None
        if self.unet.config.time_cond_proj_dim is not None:
            timestep_cond = self.get_guidance_scale_embedding(
                torch.tensor(self.guidance_scale - 1).repeat(len(rows)),
                embedding_dim=self.unet.config.time_cond_proj_dim,
            ).to(device=device, dtype=latents.dtype)

        # 8. Denoising loop
        hidden_states, mask = self._guided_conditions(
            audio_embeds, attention_mask, negative_audio_embeds, negative_attention_mask
        )
        unet_mode = inference_mode(self.unet)
        num_warmup_steps = len(timesteps) - num_inference_steps * self.scheduler.order
        self._num_timesteps = len(timesteps)
        with self.progress_bar(total=num_inference_steps) as progress_bar:
            for i, t in enumerate(timesteps):
                if self.interrupt:
                    continue

                model_input = torch.cat([latents] * 2) if self.do_classifier_free_guidance else latents
                if hasattr(self.scheduler, "scale_model_input"):
                    model_input = self.scheduler.scale_model_input(model_input, t)
                noise_pred = self._predict_noise(
                    model_input, t, hidden_states, mask, timestep_cond, max_batch_rows, unet_mode
                )

                if self.do_classifier_free_guidance:
                    noise_pred_null, noise_pred_audio = noise_pred.chunk(2)
                    noise_pred = noise_pred_null + self.guidance_scale * (noise_pred_audio - noise_pred_null)
                    if self.guidance_rescale > 0.0:
                        noise_pred = rescale_noise_cfg(noise_pred, noise_pred_audio, self.guidance_rescale)

                latents = self.scheduler.step(noise_pred, t, latents, **extra_step_kwargs, return_dict=False)[0]

                if callback_on_step_end is not None:
                    callback_kwargs = {}
                    for k in callback_on_step_end_tensor_inputs:
                        callback_kwargs[k] = locals()[k]
                    callback_outputs = callback_on_step_end(self, i, t, callback_kwargs)

                    latents = callback_outputs.pop("latents", latents)
                    audio_embeds = callback_outputs.pop("audio_embeds", audio_embeds)
                    negative_audio_embeds = callback_outputs.pop("negative_audio_embeds", negative_audio_embeds)
                    # Callbacks may turn guidance off, too.
                    hidden_states, mask = self._guided_conditions(
                        audio_embeds, attention_mask, negative_audio_embeds, negative_attention_mask
                    )

                if i == len(timesteps) - 1 or ((i + 1) > num_warmup_steps and (i + 1) % self.scheduler.order == 0):
                    progress_bar.update()

        # 9. Decode
        images = latents if output_type == "latent" else self._decode(latents, max_batch_rows)
        images = self.image_processor.postprocess(images, output_type=output_type)
        sources = [
            [
                dataclasses.replace(source, images=_pick(images, rows.of_source(number, position)))
                for position, source in enumerate(found)
            ]
            for number, found in enumerate(sources)
        ]
        images = _pick(images, rows.mixed())

        # Offload all models
        self.maybe_free_model_hooks()

        if not return_dict:
            return images, sources
        return AVGASPipelineOutput(images=images, sources=sources)

    def _prepare_rows(
        self,
        audio_embeds: torch.Tensor,
        audio_attention_mask: torch.Tensor | None,
        null_audio_embeds: torch.Tensor | None,
        sources: list[list[SoundSource]] | None,
        weights: list[dict[str, float] | list[float] | None],
        num_images_per_prompt: int,
        separate: bool,
        device: torch.device,
    ) -> tuple[Rows, list[list[SoundSource]]]:
        """Weighs the sources and lays out the rows; returns them with the sources that are left."""
        audio_embeds = audio_embeds.to(device, data_type(self.unet))
        if audio_attention_mask is None:
            audio_attention_mask = torch.ones(audio_embeds.shape[:2])
        mask = audio_attention_mask.to(audio_embeds.device, torch.bool)
        if sources is None:
            sources = [[SoundSource() for _ in range(count)] for count in mask.sum(dim=1).tolist()]

        mixed_embeds = audio_embeds
        if any(entry is not None for entry in weights):
            weight = weight_tensor(weights, sources, mask)
            kept = weight > 0
            sources = [
                [source for source, keep in zip(found, kept[number, mask[number]].tolist(), strict=True) if keep]
                for number, found in enumerate(sources)
            ]
            null_tokens = self._null_tokens(null_audio_embeds).to(audio_embeds)
            mixed_embeds = weigh_sources(audio_embeds, weight.to(audio_embeds.dtype), null_tokens)
            mask = mask & kept
        return build_rows(mixed_embeds, audio_embeds, mask, num_images_per_prompt, separate), sources

    def _prepare_conditions(
        self,
        rows: Rows,
        negative_audio_embeds: torch.Tensor | None,
        negative_audio_attention_mask: torch.Tensor | None,
        null_audio_embeds: torch.Tensor | None,
        prompt: str | list[str] | None,
        negative_prompt: str | list[str] | None,
        prompt_embeds: torch.Tensor | None,
        negative_prompt_embeds: torch.Tensor | None,
        batch_size: int,
        lora_scale: float | None,
        device: torch.device,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Tokens and mask of every row, and those that guidance leads away from, `None` without guidance."""
        hidden_states, mask = rows.hidden_states, rows.mask
        negative, negative_mask = None, None
        if self.do_classifier_free_guidance:
            if negative_audio_embeds is None:
                negative_audio_embeds = self._null_tokens(null_audio_embeds).expand(batch_size, 1, -1, -1)
                negative_audio_attention_mask = None
            if negative_audio_attention_mask is None:
                negative_audio_attention_mask = torch.ones(negative_audio_embeds.shape[:2])
            num_tokens = negative_audio_embeds.shape[2]
            negative = negative_audio_embeds.to(hidden_states).flatten(1, 2)[rows.soundscapes]
            negative_mask = negative_audio_attention_mask.to(mask.device, torch.bool)
            negative_mask = negative_mask.repeat_interleave(num_tokens, dim=1)[rows.soundscapes]

        texts = [prompt, prompt_embeds]
        if self.do_classifier_free_guidance:
            texts += [negative_prompt, negative_prompt_embeds]
        if any(text is not None for text in texts):
            if prompt_embeds is None:
                prompt = [prompt or ""] * batch_size if not isinstance(prompt, list) else prompt
            if isinstance(negative_prompt, str):
                negative_prompt = [negative_prompt] * batch_size
            text, negative_text = self.encode_prompt(
                prompt,
                device,
                1,
                self.do_classifier_free_guidance,
                negative_prompt,
                prompt_embeds=prompt_embeds,
                negative_prompt_embeds=negative_prompt_embeds,
                # The text encoder's, of which there may be none.
                lora_scale=None if self.text_encoder is None else lora_scale,
            )
            hidden_states, mask = prepend_text(hidden_states, mask, text[rows.soundscapes])
            if negative is not None:
                negative, negative_mask = prepend_text(negative, negative_mask, negative_text[rows.soundscapes])

        if negative is not None:
            hidden_states, mask, negative, negative_mask = match_length(hidden_states, mask, negative, negative_mask)
        return hidden_states, mask, negative, negative_mask

    def _guided_conditions(
        self,
        hidden_states: torch.Tensor,
        mask: torch.Tensor,
        negative: torch.Tensor | None,
        negative_mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Tokens and mask of all that goes through the U-Net in one step; no mask where it would hide nothing."""
        if self.do_classifier_free_guidance:
            hidden_states = torch.cat([negative, hidden_states])
            mask = torch.cat([negative_mask, mask])
        return hidden_states, None if bool(mask.all()) else mask

    def _null_tokens(self, null_audio_embeds: torch.Tensor | None) -> torch.Tensor:
        if null_audio_embeds is not None:
            return null_audio_embeds
        if self.separator is None or self.separator.null_tokens.is_meta:
            raise ValueError(
                "Where the separator is missing or offloaded, guidance and `source_weights` need `null_audio_embeds`,"
                " which `encode_audio` returns."
            )
        return self.separator.null_tokens

    def _predict_noise(
        self,
        model_input: torch.Tensor,
        timestep: torch.Tensor,
        hidden_states: torch.Tensor,
        mask: torch.Tensor | None,
        timestep_cond: torch.Tensor | None,
        max_batch_rows: int | None,
        unet_mode: AbstractContextManager,
    ) -> torch.Tensor:
        """One call of the U-Net for all rows, or one for each `max_batch_rows` of them."""
        num_rows = model_input.shape[0]
        predictions = []
        for start in range(0, num_rows, max_batch_rows or num_rows):
            part = slice(start, start + (max_batch_rows or num_rows))
            with unet_mode:
                prediction = self.unet(
                    model_input[part],
                    timestep,
                    encoder_hidden_states=hidden_states[part],
                    timestep_cond=None if timestep_cond is None else timestep_cond[part],
                    cross_attention_kwargs=self.cross_attention_kwargs,
                    encoder_attention_mask=None if mask is None else mask[part],
                    return_dict=False,
                )[0]
            predictions.append(prediction)
        # A new tensor even of one part: schedulers and callbacks may write to it.
        return torch.cat(predictions)

    def _decode(self, latents: torch.Tensor, max_batch_rows: int | None) -> torch.Tensor:
        config = self.vae.config
        latents = latents.to(data_type(self.vae)) / config.scaling_factor + (config.get("shift_factor") or 0.0)
        with inference_mode(self.vae):
            parts = [
                self.vae.decode(part, return_dict=False)[0]
                for part in latents.split(max_batch_rows or latents.shape[0])
            ]
        return torch.cat(parts)


def _condition_tokens(recordings: list[Recording]) -> tuple[torch.Tensor, torch.Tensor]:
    """Condition tokens `(B, S, M, C)` of heard recordings' sources, with a mask `(B, S)`."""
    return pad_tokens(
        [torch.stack([track.condition_tokens for track in recording.tracks]) for recording in recordings]
    )


def _pick(images: Any, rows: list[int]) -> Any:
    return [images[row] for row in rows] if isinstance(images, list) else images[rows]
