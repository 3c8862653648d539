"""From recordings to their sources: windows through feature extractor, audio encoder and separator."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any

import numpy as np
import torch
from transformers import FeatureExtractionMixin, PreTrainedModel

from ..audio.loading import describe, load_audio
from ..audio.spectrogram import relative_log_mel, stft
from ..audio.windows import Window, change_speed, iter_windows
from ..hooks import data_type
from ..models.encoder_adapters import encoder_inputs, window_length
from ..models.separator import AudioVisualSeparator, AudioVisualSeparatorOutput
from ..pipeline_output import SoundSource
from .rendering import render_sources
from .tracking import SourceTracker, Track


# Windows that go through the audio encoder at a time, so that an hour of audio fits in memory.
MAX_WINDOWS = 32
# What never exceeds this is silence: -100 dB of full scale, and -80 dB of the recording's own peak.
SILENT_PEAK = 1e-5
SILENT_RATIO = 1e-4


class NoSourceError(ValueError):
    """A recording is not silent, but no source in it is probable enough to be present."""


@dataclass
class Recording:
    """
    A recording to hear, and what was heard.

    Attributes:
        name (`str`): What errors call it.
        waveform (`np.ndarray` of shape `(T,)`): Mono, at the feature extractor's rate.
        tracker ([`SourceTracker`]): Chooses its sources.
        windows (`list[Window]`): Its pieces, as the audio encoder hears them.
        hint (`str`): What errors advise if nothing is heard.
        tracks (`list[Track]`): Its sources once it is heard, the most certain first.
    """

    name: str
    waveform: np.ndarray
    tracker: SourceTracker
    windows: list[Window]
    hint: str
    tracks: list[Track] = field(default_factory=list)

    def audible_windows(self) -> list[tuple[int, Window]]:
        """The windows that are not silent, with their numbers; all of them if all are."""
        peaks = [float(np.abs(window.samples).max()) for window in self.windows]
        floor = max(SILENT_PEAK, SILENT_RATIO * max(peaks))
        audible = [(number, window) for number, window in enumerate(self.windows) if peaks[number] > floor]
        return audible or list(enumerate(self.windows))


class Listener:
    """
    The hearing half of a pipeline.

    Args:
        feature_extractor ([`~transformers.FeatureExtractionMixin`]): The audio encoder's feature extractor.
        audio_encoder ([`~transformers.PreTrainedModel`]): Turns features into tokens.
        separator ([`AudioVisualSeparator`]): Turns tokens into slots.
        device (`torch.device`): Where the models run.
        speed_variation (`float`, defaults to 0): If above 0, every window is heard three times: as it is, and played
            slower and faster by this share.
    """

    def __init__(
        self,
        feature_extractor: FeatureExtractionMixin,
        audio_encoder: PreTrainedModel,
        separator: AudioVisualSeparator,
        device: torch.device,
        speed_variation: float = 0.0,
    ) -> None:
        self.feature_extractor = feature_extractor
        self.audio_encoder = audio_encoder
        self.separator = separator
        self.device = device
        self.other_speeds = (1 - speed_variation, 1 + speed_variation) if speed_variation else ()
        self.sampling_rate = feature_extractor.sampling_rate

    def load(
        self,
        audio: Any,
        sampling_rate: int | None,
        max_duration_s: float,
        num_sources: int | None,
        presence_threshold: float | None,
        hint: str,
    ) -> list[Recording]:
        """One recording, or a list or tuple of them, ready to hear; silence passes only with `num_sources`."""
        batch = list(audio) if isinstance(audio, (list, tuple)) else [audio]
        if not batch:
            raise ValueError("`audio` is an empty list.")
        recordings = []
        for number, item in enumerate(batch):
            if isinstance(item, (int, float)):
                raise ValueError("A list is a batch of recordings: give samples as an array or tensor.")
            name = describe(item)
            if len(batch) > 1 and not isinstance(item, (str, os.PathLike)):
                name = f"{name}, number {number} of the batch"
            waveform = load_audio(item, sampling_rate, self.sampling_rate, max_duration_s, name)
            if num_sources is None and float(np.abs(waveform).max()) <= SILENT_PEAK:
                raise ValueError(f"{name}: is silent{hint}.")
            tracker = SourceTracker(num_sources, presence_threshold)
            recordings.append(Recording(name, waveform, tracker, self._windows(waveform), hint))
        return recordings

    def hear(self, recordings: Sequence[Recording], batch_size: int | None = None) -> torch.Tensor:
        """
        Put the windows of all recordings through the models, together, in as few calls as fit.

        Args:
            recordings (`Sequence[Recording]`): Their trackers take in the slots.
            batch_size (`int`, *optional*): The most windows at a time, at all speeds together; never more than 32.

        Returns:
            `torch.Tensor` of shape `(M, C)`: the separator's null tokens.

        Raises:
            NoSourceError: If a recording has no present source.
        """
        queue = [(recording, *window) for recording in recordings for window in recording.audible_windows()]
        batch_size = min(batch_size or MAX_WINDOWS, MAX_WINDOWS)
        for start in range(0, len(queue), batch_size):
            batch = queue[start : start + batch_size]
            windows = [window for _, _, window in batch]
            windows += self._other_speeds(windows)
            hearings: list[tuple[AudioVisualSeparatorOutput, int]] = []
            for first in range(0, len(windows), batch_size):
                part = windows[first : first + batch_size]
                slots = self._separate(part, num_masks=max(len(batch) - first, 0))
                hearings += [(slots, row) for row in range(len(part))]
            for place, (recording, number, _) in enumerate(batch):
                recording.tracker.add_window(hearings[place :: len(batch)], number)
        for recording in recordings:
            recording.tracks = recording.tracker.tracks()
            if not recording.tracks:
                threshold = recording.tracker.presence_threshold
                why = "none is probable enough" if threshold is None else f"none reaches {threshold:g}"
                raise NoSourceError(f"{recording.name}: no source is present ({why}){recording.hint}.")
        return slots.null_tokens

    def render(self, recording: Recording, return_audio: bool) -> list[SoundSource]:
        """A heard recording's sources with labels, activity and, if asked for, separated audio."""
        config = self.separator.config
        return render_sources(
            recording.tracks,
            recording.waveform,
            recording.windows,
            self.separator.id2label,
            self.sampling_rate,
            config.n_fft,
            config.hop_length,
            return_audio,
        )

    def _windows(self, waveform: np.ndarray) -> list[Window]:
        length = window_length(self.feature_extractor)
        # Half overlap, on the grid of the masks' frames so that activities line up.
        grid = self.separator.config.hop_length
        return list(iter_windows(waveform, length, max(length // 2 // grid, 1) * grid))

    def _other_speeds(self, windows: list[Window]) -> list[Window]:
        """All windows at the first of the other speeds, then at the next."""
        # The resampler frees the interpreter while it works.
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            played = [pool.map(change_speed, windows, repeat(speed)) for speed in self.other_speeds]
            return list(chain.from_iterable(played))

    def _separate(self, windows: list[Window], num_masks: int) -> AudioVisualSeparatorOutput:
        """Masks of the first `num_masks` windows; of all, but as coarse as the audio tokens, if that is 0."""
        inputs = encoder_inputs(self.feature_extractor, self.audio_encoder, windows)
        inputs = {
            name: value.to(self.device, self.audio_encoder.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }
        tokens = self.audio_encoder(**inputs).last_hidden_state

        config, dtype = self.separator.config, data_type(self.separator)
        spectrogram = None
        if config.mask_channels and num_masks:
            samples = torch.from_numpy(np.stack([window.samples for window in windows[:num_masks]])).to(self.device)
            spectrum = stft(samples, config.n_fft, config.hop_length)
            spectrogram = relative_log_mel(spectrum, self.sampling_rate, config.num_mask_bands).to(dtype)
        valid_fraction = None
        if any(window.num_valid < len(window.samples) for window in windows):
            fractions = [window.num_valid / len(window.samples) for window in windows]
            valid_fraction = torch.tensor(fractions, device=self.device)
        # Offloading hooks rebuild outputs, which only works for tuples.
        slots = AudioVisualSeparatorOutput(
            *self.separator(
                tokens.to(dtype), valid_fraction=valid_fraction, spectrogram=spectrogram, return_dict=False
            )
        )
        if not slots.presence_logits.isfinite().all():
            raise ValueError(
                f"What `audio_encoder` ({self.audio_encoder.dtype}) and `separator` ({dtype}) compute is not finite:"
                " their weights are damaged, or the data type does not hold their values."
            )
        return slots
