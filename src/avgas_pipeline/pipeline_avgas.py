"""`AVGASPipeline`: from a soundscape to pictures of every source in it."""

import dataclasses
from collections.abc import Callable
from functools import partial
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
from diffusers.utils import USE_PEFT_BACKEND, replace_example_docstring, scale_lora_layers, unscale_lora_layers
from transformers import CLIPTextModel, CLIPTokenizer, FeatureExtractionMixin, PreTrainedModel

from .audio.loading import DEFAULT_MAX_DURATION_S, Recording, as_batch, load_recordings
from .composition import composed_rows
from .conditioning import (
    pack_sources,
    prepare_conditions,
    row_seeds,
    step_generators,
    texts_per_soundscape,
    weights_per_soundscape,
)
from .denoising import DenoisingMixin, check_finite_latents
from .exclusive import one_call_at_a_time, reading
from .input_checks import (
    NOTHING_NEGATIVE,
    InputChecksMixin,
    callback_results,
    check_any_source,
    check_audio_models,
    check_drawing_models,
    check_negatives,
    check_not_silent,
)
from .loaders.from_parts import FromPartsMixin
from .loaders.hub import HubMixin
from .loaders.lora import AVGASLoraLoaderMixin
from .loaders.tagger import matched_with
from .models.added_conditions import added_conditions, pooled_dim
from .models.encoder_adapters import window_length
from .models.separator import AudioVisualSeparator
from .painting import PaintingMixin
from .pipeline_output import AVGASPipelineOutput, EncodedAudio, SoundSource
from .separation.audio_models import AudioModels
from .separation.encoding import encode
from .separation.tracking import present_slots, track
from .settings import resolve_settings


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


class AVGASPipeline(
    HubMixin,
    FromPartsMixin,
    InputChecksMixin,
    DenoisingMixin,
    PaintingMixin,
    DiffusionPipeline,
    StableDiffusionMixin,
    AVGASLoraLoaderMixin,
):
    r"""
    Pipeline for soundscape-to-image generation: one mixed image with every present source, and, on demand, one
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
        tagger ([`~transformers.PreTrainedModel`], *optional*):
            An audio classifier whose scores over time are evidence for presence and labels: any of
            `AutoModelForAudioClassification`. A separator that was made without one then knows its labels as well, as
            far as [`~.loaders.sounds`] has names for them. Without it, the audio encoder's own classifier is used, if
            it has one and the separator takes its scores.
        tagger_feature_extractor ([`~transformers.FeatureExtractionMixin`], *optional*):
            The tagger's feature extractor.
        text_encoder ([`~transformers.CLIPTextModel`], *optional*):
            Encodes `prompt`; its tokens go before those of the audio.
        tokenizer ([`~transformers.CLIPTokenizer`], *optional*):
            The text encoder's tokenizer.
        default_num_inference_steps (`int`, *optional*):
            Denoising steps of a call that does not say how many. If not given, this and the next two are those of the
            pipeline that the separator was part of before, if it was, and 50, 7.5 and 0 otherwise.
        default_guidance_scale (`float`, *optional*):
            Weight of guidance of a call that does not give one.
        label_threshold (`float`, *optional*):
            A source whose label is less probable than this, in [0, 1], is an unknown sound.
        speed_variation (`float`, *optional*):
            Test-time augmentation, in [0, 0.5]. If above 0, every window of a recording is encoded in three views: as
            it is, and played slower and faster by this share. A source's presence and label are the mean of the three,
            its separated audio, its embedding and a tagger's scores are those of the recording as it is.
        compose_sources (`bool`, *optional*):
            Whether mixed images are composed of their sources' own ([`~.layout`]), each in a box whose size its weight
            decides, rather than drawn at once: for U-Nets that have learnt to draw one thing at a time.
    """

    model_cpu_offload_seq = "audio_encoder->tagger->separator->text_encoder->unet->vae"
    _optional_components = ["text_encoder", "tokenizer", "tagger", "tagger_feature_extractor"]  # noqa: RUF012
    _callback_tensor_inputs = ["latents", "audio_embeds", "negative_audio_embeds"]  # noqa: RUF012

    # What Stable Diffusion's pipeline does in the same way, as read-only properties and methods.
    guidance_scale = StableDiffusionPipeline.guidance_scale
    guidance_rescale = StableDiffusionPipeline.guidance_rescale
    do_classifier_free_guidance = StableDiffusionPipeline.do_classifier_free_guidance
    cross_attention_kwargs = StableDiffusionPipeline.cross_attention_kwargs
    num_timesteps = StableDiffusionPipeline.num_timesteps
    interrupt = StableDiffusionPipeline.interrupt
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
        tagger: PreTrainedModel | None = None,
        tagger_feature_extractor: FeatureExtractionMixin | None = None,
        default_num_inference_steps: int | None = None,
        default_guidance_scale: float | None = None,
        speed_variation: float | None = None,
        label_threshold: float | None = None,
        compose_sources: bool | None = None,
    ) -> None:
        super().__init__()
        settings = resolve_settings(
            separator,
            default_num_inference_steps=default_num_inference_steps,
            default_guidance_scale=default_guidance_scale,
            speed_variation=speed_variation,
            label_threshold=label_threshold,
            compose_sources=compose_sources,
        )
        self.register_to_config(**settings)
        if (tagger is None) != (tagger_feature_extractor is None):
            raise ValueError("`tagger` and `tagger_feature_extractor` go together.")
        if tagger is not None and separator is not None:
            separator = matched_with(separator, tagger)
        if separator is not None:
            # So that a pipeline made of this one's components has them, too.
            separator.register_to_config(pipeline_settings=settings)
        self.register_modules(
            vae=vae,
            unet=unet,
            scheduler=scheduler,
            audio_encoder=audio_encoder,
            audio_feature_extractor=audio_feature_extractor,
            separator=separator,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            tagger=tagger,
            tagger_feature_extractor=tagger_feature_extractor,
        )
        self.vae_scale_factor = 8
        if getattr(self, "vae", None) is not None:
            # AutoencoderDC names its blocks otherwise.
            blocks = self.vae.config.get("block_out_channels") or self.vae.config.encoder_block_out_channels
            self.vae_scale_factor = 2 ** (len(blocks) - 1)
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)

    @property
    def sampling_rate(self) -> int:
        """Rate at which audio is encoded and separated, in Hz."""
        return self.audio_feature_extractor.sampling_rate

    @property
    def window_s(self) -> float:
        """Length of the window that the audio encoder takes at once, in seconds."""
        return window_length(self.audio_feature_extractor) / self.sampling_rate

    def audio_models(self, device: torch.device | None = None) -> AudioModels:
        """What encodes audio on a device, the pipeline's if not given, for [`~.separation.encoding.encode`]."""
        return AudioModels(
            self.audio_feature_extractor,
            self.audio_encoder,
            self.separator,
            device or self._execution_device,
            self.config.speed_variation,
            self.config.label_threshold,
            self.tagger,
            self.tagger_feature_extractor,
        )

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
        audio_track: int | None = None,
        draw_unknown: bool = False,
        lora_scale: float | None = None,
        device: torch.device | None = None,
    ) -> EncodedAudio:
        r"""
        Encode soundscapes: separate their sources and get what draws them. `pipe(**pipe.encode_audio(audio))` draws
        without encoding again. Needs neither U-Net nor VAE. As diffusers' `encode_prompt`, it keeps gradients, and
        with them what every window went through (about 0.2 GB in avgas-mini, more in larger encoders): call it under
        `torch.no_grad()` where they are not needed.

        Args:
            audio, sampling_rate, num_sources, presence_threshold, negative_audio, return_audio, max_duration_s,
            audio_track, draw_unknown:
                See [`~AVGASPipeline.__call__`].
            max_batch_rows (`int`, *optional*):
                The most windows that go through the audio encoder at a time, at all speeds together; never more than
                12.
            lora_scale (`float`, *optional*), device (`torch.device`, *optional*):
                Factor on the separator's LoRA layers, and where the models run, if not on the pipeline's device.

        Returns:
            [`EncodedAudio`], whose names are those of `__call__`'s arguments.
        """
        check_audio_models(self, num_sources, presence_threshold, max_batch_rows)
        # 1. Load
        soundscapes = load_recordings(audio, sampling_rate, self.sampling_rate, max_duration_s, audio_track)
        if num_sources is None:
            check_not_silent(soundscapes, "pass `num_sources` to draw anyway")
        negatives: list[Recording] = []
        if negative_audio is not None:
            negatives = load_recordings(negative_audio, sampling_rate, self.sampling_rate, max_duration_s)
            check_negatives(negatives, len(soundscapes))

        # 2. Cut into windows
        models = self.audio_models(device)
        windows = [models.cut_windows(recording.waveform) for recording in (*soundscapes, *negatives)]

        # 3. Encode them; tokens and masks only of slots that can become sources
        keep = partial(present_slots, presence_threshold=presence_threshold) if num_sources is None else None
        with reading((self.audio_encoder, self.separator), lora_scale):
            # peft is needed for LoRA layers alone.
            if USE_PEFT_BACKEND:
                scale_lora_layers(self.separator, weight=1.0 if lora_scale is None else lora_scale)
            try:
                encoding = encode(windows, models, max_batch_rows, keep, getattr(self, "_progress_bar_config", {}))
            finally:
                if USE_PEFT_BACKEND:
                    unscale_lora_layers(self.separator, weight=lora_scale)

        # 4. Track the sources
        found = [track(each, num_sources, presence_threshold) for each in encoding.recordings[: len(soundscapes)]]
        check_any_source(soundscapes, found, presence_threshold, "pass `num_sources` to draw anyway")
        away_from = [track(each, None, presence_threshold) for each in encoding.recordings[len(soundscapes) :]]
        check_any_source(negatives, away_from, presence_threshold, NOTHING_NEGATIVE)

        # 5. Render labels, activity and separated audio
        sources = [
            models.render(tracks, recording.waveform, pieces, return_audio)
            for tracks, recording, pieces in zip(found, soundscapes, windows, strict=False)
        ]
        # A picture that is composed of its sources' own is led away from one by leaving it out.
        unwanted = away_from if self.config.compose_sources else []
        for number, (tracks, each) in enumerate(zip(found, sources, strict=True)):
            labels = {other.label_index for other in unwanted[number % len(unwanted)]} if unwanted else set()
            for one, source in zip(tracks, each, strict=True):
                is_known = not source.is_unknown or draw_unknown or num_sources is not None
                source.is_drawn = is_known and one.label_index not in labels
        tokens, negative_tokens = (
            [[source.condition_tokens for source in tracks] for tracks in each] for each in (found, away_from)
        )
        return pack_sources(tokens, sources, encoding.null_tokens, negative_tokens)

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
        audio_track: int | None = None,
    ) -> list[list[SoundSource]]:
        r"""
        Separate soundscapes without drawing them. Arguments as of [`~AVGASPipeline.encode_audio`].

        Returns:
            `list[list[SoundSource]]`: for every soundscape its sources without images, the highest score first.
        """
        encoded = self.encode_audio(
            audio,
            sampling_rate=sampling_rate,
            num_sources=num_sources,
            presence_threshold=presence_threshold,
            return_audio=return_audio,
            max_duration_s=max_duration_s,
            max_batch_rows=max_batch_rows,
            audio_track=audio_track,
        )
        self.maybe_free_model_hooks()
        return encoded.sources

    def _with_null_tokens(self, encoded: EncodedAudio) -> EncodedAudio:
        if encoded.null_audio_embeds is not None:
            return encoded
        if self.separator is None or self.separator.null_tokens.is_meta:
            raise ValueError(
                "Where the separator is missing or offloaded, guidance and `source_weights` need `null_audio_embeds`,"
                " which `encode_audio` returns."
            )
        return encoded.with_overrides(EncodedAudio(null_audio_embeds=self.separator.null_tokens))

    @torch.no_grad()
    @one_call_at_a_time
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
        audio_track: int | None = None,
        draw_unknown: bool = False,
        callback_on_step_end: Callable[..., dict] | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006
    ) -> AVGASPipelineOutput | tuple:
        r"""
        The call function to the pipeline for generation.

        Args:
            audio (path, `bytes`, file object, `np.ndarray`, `torch.Tensor`, `tuple`, `dict`, or a `list` of these):
                The soundscape or soundscapes: audio or video files, samples of shape `(T,)`, `(channels, T)` or
                `(T, channels)`, alone or with their rate, as `(rate, samples)` or `(samples, rate)`, or `datasets`
                Audio values. See [`~avgas_pipeline.audio.loading.load_audio`].
            sampling_rate (`int`, *optional*):
                Rate of samples given as arrays or tensors, in Hz.
            separate (`bool`, defaults to `False`):
                Whether to draw each source alone, too.
            prompt (`str` or `list[str]`, *optional*):
                Text put before the audio, if the pipeline has a text encoder.
            height, width (`int`, *optional*, default to `unet.config.sample_size * vae_scale_factor`):
                The size in pixels of the images.
            num_inference_steps (`int`, *optional*, defaults to the checkpoint's `default_num_inference_steps`, or 50):
                The number of denoising steps.
            timesteps (`list[int]`, *optional*), sigmas (`list[float]`, *optional*):
                Custom timesteps, descending, or sigmas, for schedulers that take them.
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
                How strongly sources show in the mixed image, or how large they are in it where it is composed
                (`compose_sources`): by label, or one number per source in the order of `sources`; for a batch, a dict
                for all, or a list with one of these for each soundscape. 1 changes nothing, 0 leaves the source out
                altogether, of `sources` too.
            eta (`float`, *optional*, defaults to 0.0):
                Corresponds to parameter eta (η) of the DDIM paper; other schedulers ignore it.
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*):
                Makes generation deterministic: one, or one for each mixed image.
            latents (`torch.Tensor`, *optional*):
                Noise to begin with, for the mixed images, whose separated images then share it, or for every image:
                for each mixed image itself, unless it is composed, then its separated ones.
            audio_embeds, audio_attention_mask, negative_audio_embeds, negative_audio_attention_mask,
            null_audio_embeds, sources (*optional*):
                What [`~AVGASPipeline.encode_audio`] returned, instead of `audio` and `negative_audio`; their shapes
                are those of [`EncodedAudio`]. Masks that are not given are `True` everywhere; null tokens are those of
                the separator.
            prompt_embeds, negative_prompt_embeds (`torch.Tensor`, *optional*):
                Text embeddings `(B, tokens, cross_attention_dim)` instead of `prompt` and `negative_prompt`.
            return_audio (`bool`, *optional*, defaults to `True`):
                Whether sources come with their separated audio.
            output_type (`str`, *optional*, defaults to `"pil"`):
                `"pil"`, `"np"` (in [0, 1], channels last), `"pt"` (in [0, 1], channels first) or `"latent"`, which
                composed images have not.
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
            audio_track (`int`, *optional*):
                Which audio track of `audio`'s files to take, counted from 0. `None` takes the one marked as the best,
                or else the first that can be decoded and is not silent.
            draw_unknown (`bool`, defaults to `False`):
                Whether to draw unknown sounds as well, as what they are most like. With `num_sources` they always are.
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
            ValueError: If a recording can't be read, is silent or has no present source, arguments do not fit, or what
                the models compute is not finite.
            RuntimeError: If another thread is drawing with this pipeline or its scheduler.
        """
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs

        # 0. Defaults of the checkpoint, height and width those of its U-Net
        check_drawing_models(self, output_type)
        if num_inference_steps is None:
            num_inference_steps = self.config.default_num_inference_steps
        if guidance_scale is None:
            guidance_scale = self.config.default_guidance_scale
        if height is None or width is None:
            if self.default_size is None:
                raise ValueError("`height` and `width` are needed: the U-Net's configuration has no `sample_size`.")
            height = self.default_size[0] if height is None else height
            width = self.default_size[1] if width is None else width

        encoded = EncodedAudio(
            audio_embeds=audio_embeds,
            audio_attention_mask=audio_attention_mask,
            negative_audio_embeds=negative_audio_embeds,
            negative_audio_attention_mask=negative_audio_attention_mask,
            null_audio_embeds=null_audio_embeds,
            sources=sources,
        )

        # 1. Check inputs. Raise error if not correct
        batch_size = encoded.batch_size or len(as_batch(audio))
        self.check_inputs(
            audio,
            encoded,
            batch_size,
            height,
            width,
            prompt=prompt,
            negative_prompt=negative_prompt,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            negative_audio=negative_audio,
            num_sources=num_sources,
            presence_threshold=presence_threshold,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            num_images_per_prompt=num_images_per_prompt,
            generator=generator,
            max_batch_rows=max_batch_rows,
            output_type=output_type,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
        )
        height, width, num_inference_steps = int(height), int(width), int(num_inference_steps)
        num_images_per_prompt = int(num_images_per_prompt)
        max_batch_rows = None if max_batch_rows is None else int(max_batch_rows)
        labels = set(self.separator.id2label.values()) if self.separator is not None else None
        weights = weights_per_soundscape(source_weights, batch_size, labels)
        self._guidance_scale = guidance_scale
        self._guidance_rescale = guidance_rescale
        self._cross_attention_kwargs = cross_attention_kwargs
        self._interrupt = False
        device = self._execution_device
        lora_scale = (cross_attention_kwargs or {}).get("scale")

        # 2. Encode the soundscapes; what was passed in goes before what they say
        if audio is not None:
            found = self.encode_audio(
                audio,
                sampling_rate=sampling_rate,
                num_sources=num_sources,
                presence_threshold=presence_threshold,
                negative_audio=negative_audio,
                return_audio=return_audio,
                max_duration_s=max_duration_s,
                max_batch_rows=max_batch_rows,
                audio_track=audio_track,
                draw_unknown=draw_unknown,
                lora_scale=lora_scale,
                device=device,
            )
            if negative_audio is None:
                # Guidance then leads away from the null tokens, which may be the caller's.
                found = dataclasses.replace(found, negative_audio_embeds=None, negative_audio_attention_mask=None)
            encoded = found.with_overrides(encoded)

        # 3. Lay out one row for every image, and the tokens it is drawn from
        is_guided = self.do_classifier_free_guidance
        text_embeds = negative_text_embeds = None
        texts = (prompt, prompt_embeds, *((negative_prompt, negative_prompt_embeds) if is_guided else ()))
        if any(text is not None for text in texts):
            prompts, negative_prompts = texts_per_soundscape(prompt, negative_prompt, prompt_embeds, batch_size)
            text_embeds, negative_text_embeds = self.encode_prompt(
                prompts,
                device,
                1,
                is_guided,
                negative_prompts,
                prompt_embeds=prompt_embeds,
                negative_prompt_embeds=negative_prompt_embeds,
                # The text encoder's, of which there may be none.
                lora_scale=None if self.text_encoder is None else lora_scale,
            )
        if source_weights is not None or (is_guided and encoded.negative_audio_embeds is None):
            encoded = self._with_null_tokens(encoded)
        conditions, sources = prepare_conditions(
            encoded.to(device, self.unet.dtype),
            weights,
            num_images_per_prompt,
            separate,
            is_guided,
            text_embeds,
            negative_text_embeds,
            pooled_dim(self.unet),
            composed_rows if self.config.compose_sources else None,
        )
        rows = conditions.rows

        # 4. Prepare timesteps
        timesteps, num_inference_steps = retrieve_timesteps(
            self.scheduler, num_inference_steps, device, timesteps, sigmas
        )

        # 5. Prepare latent variables
        latents = self.prepare_latents(
            batch_size * num_images_per_prompt,
            rows,
            self.unet.config.in_channels,
            height,
            width,
            conditions.tokens.dtype,
            device,
            generator,
            latents,
        )

        # 6. Prepare extra step kwargs and the guidance embedding of distilled U-Nets
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

        # 7. Denoising loop
        hidden_states, mask, pooled = conditions.for_unet(self.do_classifier_free_guidance)
        added_cond = added_conditions(pooled, height, width)
        num_warmup_steps = len(timesteps) - num_inference_steps * self.scheduler.order
        self._num_timesteps = len(timesteps)
        with self.progress_bar(total=num_inference_steps) as progress_bar:
            for i, t in enumerate(timesteps):
                if self.interrupt:
                    continue

                model_input = torch.cat([latents] * 2) if self.do_classifier_free_guidance else latents
                if hasattr(self.scheduler, "scale_model_input"):
                    model_input = self.scheduler.scale_model_input(model_input, t)
                noise_pred = self.predict_noise(
                    model_input, t, hidden_states, mask, timestep_cond, added_cond, max_batch_rows
                )

                if self.do_classifier_free_guidance:
                    noise_pred_null, noise_pred_audio = noise_pred.chunk(2)
                    noise_pred = noise_pred_null + self.guidance_scale * (noise_pred_audio - noise_pred_null)
                    if self.guidance_rescale > 0.0:
                        noise_pred = rescale_noise_cfg(noise_pred, noise_pred_audio, self.guidance_rescale)

                latents = self.scheduler.step(noise_pred, t, latents, **extra_step_kwargs, return_dict=False)[0]

                if callback_on_step_end is not None:
                    tensors = {
                        "latents": latents,
                        "audio_embeds": conditions.tokens,
                        "negative_audio_embeds": conditions.negative_tokens,
                    }
                    callback_kwargs = {k: tensors[k] for k in callback_on_step_end_tensor_inputs}
                    tensors |= callback_results(callback_on_step_end(self, i, t, callback_kwargs))
                    latents = tensors["latents"]
                    conditions = dataclasses.replace(
                        conditions, tokens=tensors["audio_embeds"], negative_tokens=tensors["negative_audio_embeds"]
                    )
                    # Callbacks may turn guidance off, too.
                    hidden_states, mask, pooled = conditions.for_unet(self.do_classifier_free_guidance)
                    added_cond = added_conditions(pooled, height, width)

                if i == len(timesteps) - 1 or ((i + 1) > num_warmup_steps and (i + 1) % self.scheduler.order == 0):
                    progress_bar.update()

        # 8. Decode
        check_finite_latents(latents)
        images = latents if output_type == "latent" else rows.complete(self.decode_latents(latents, max_batch_rows))
        images = self.image_processor.postprocess(images, output_type=output_type)

        # 9. Give every source its images
        images, sources = rows.share_out(images, sources)

        self.maybe_free_model_hooks()
        if not return_dict:
            return images, sources
        return AVGASPipelineOutput(images=images, sources=sources)
