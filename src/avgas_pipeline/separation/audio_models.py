"""The models that encode audio, with what windows and rendering take from their configurations."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import FeatureExtractionMixin, PreTrainedModel

from ..audio.loudness import reference_gain
from ..audio.windows import Window, iter_windows
from ..models.encoder_adapters import window_length
from ..models.separator import AudioVisualSeparator
from ..pipeline_output import SoundSource
from .rendering import render
from .tracking import Track


@dataclass(frozen=True)
class AudioModels:
    """
    What encodes audio.

    Attributes:
        feature_extractor ([`~transformers.FeatureExtractionMixin`]): The audio encoder's feature extractor.
        audio_encoder ([`~transformers.PreTrainedModel`]): Turns features into tokens.
        separator ([`AudioVisualSeparator`]): Turns tokens into slots.
        device (`torch.device`): Where the models run.
        speed_variation (`float`, defaults to 0): If above 0, every window is encoded in three augmented views: as it
            is, and played slower and faster by this share.
        tagger ([`~transformers.PreTrainedModel`], *optional*): An audio classifier whose scores the separator takes;
            else those of the audio encoder's own classifier, if it has one.
        tagger_feature_extractor ([`~transformers.FeatureExtractionMixin`], *optional*): The tagger's.
        label_threshold (`float`, defaults to 0): Sources whose label is less probable are unknown sounds.
    """

    feature_extractor: FeatureExtractionMixin
    audio_encoder: PreTrainedModel
    separator: AudioVisualSeparator
    device: torch.device
    speed_variation: float = 0.0
    label_threshold: float = 0.0
    tagger: PreTrainedModel | None = None
    tagger_feature_extractor: FeatureExtractionMixin | None = None

    def cut_windows(self, waveform: np.ndarray) -> list[Window]:
        """
        A waveform `(T,)`, at the feature extractor's rate, as windows that overlap by half. Their gain brings the
        active loudness of the whole waveform to a reference level, so that the models take loud and quiet alike.
        """
        length = window_length(self.feature_extractor)
        # On the grid of the masks' frames, so that activities line up.
        grid = self.separator.config.hop_length
        gain = reference_gain(waveform, self.feature_extractor.sampling_rate)
        return list(iter_windows(waveform, length, max(length // 2 // grid, 1) * grid, gain))

    def render(
        self, tracks: Sequence[Track], waveform: np.ndarray, windows: Sequence[Window], return_audio: bool = True
    ) -> list[SoundSource]:
        """[`~avgas_pipeline.separation.rendering.render`] with the separator's labels and frames."""
        config = self.separator.config
        return render(
            tracks,
            waveform,
            windows,
            self.separator.id2label,
            self.feature_extractor.sampling_rate,
            config.n_fft,
            config.hop_length,
            return_audio,
            self.label_threshold,
        )
