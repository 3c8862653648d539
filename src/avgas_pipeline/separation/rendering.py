"""From tracked sources to labels, activity and separated audio over the whole recording."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from ..audio.spectrogram import frame_activity, istft, mask_to_bins, power, stft
from ..audio.windows import Window
from ..models.separator import UNKNOWN_LABEL
from ..pipeline_output import SoundSource
from .tracking import Track


@torch.autocast("cpu", enabled=False)
def render(
    tracks: Sequence[Track],
    waveform: np.ndarray,
    windows: Sequence[Window],
    id2label: Mapping[int, str],
    sampling_rate: int,
    n_fft: int,
    hop_length: int,
    return_audio: bool = True,
    label_threshold: float = 0.0,
) -> list[SoundSource]:
    """
    Turn tracks into [`SoundSource`]s: label, activity and separated audio over the whole recording.

    Each window's STFT is masked and inverted; windows are cross-faded with triangles. Where a source is not present
    in a window, that window adds silence.

    Args:
        tracks (`Sequence[Track]`): The sources, as [`~avgas_pipeline.separation.tracking.track`] finds them.
        waveform (`np.ndarray` of shape `(T,)`): The recording.
        windows (`Sequence[Window]`): The windows that the tracks' masks refer to by number.
        id2label (`Mapping[int, str]`): Label of every class index.
        sampling_rate (`int`): Of the waveform, in Hz.
        n_fft (`int`): Frame of the masks' spectrogram, in samples.
        hop_length (`int`): Distance between its frames, in samples.
        return_audio (`bool`, defaults to `True`): Whether to compute the separated audio.
        label_threshold (`float`, defaults to 0): Sources whose label is less probable get none.
    """
    sources = []
    for track in tracks:
        label = track.label_index
        label_probs = torch.from_numpy(track.class_probs / track.class_probs.sum())
        is_known = id2label[label] != UNKNOWN_LABEL and float(label_probs[label]) >= label_threshold
        sources.append(
            SoundSource(
                label=id2label[label] if is_known else None,
                score=track.score,
                label_score=float(label_probs[label]),
                label_probs=label_probs,
                sampling_rate=sampling_rate,
                soundscape=waveform if return_audio else None,
                audio_embed=F.normalize(torch.from_numpy(track.audio_embed), dim=-1),
            )
        )
    if not any(track.masks for track in tracks):
        return sources

    num_samples = len(waveform)
    num_frames = num_samples // hop_length + 1

    @lru_cache(maxsize=1)
    def spectra(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Complex STFT `(bins, frames)` of a window, and its power."""
        spectrum = stft(torch.from_numpy(np.ascontiguousarray(windows[number].samples)), n_fft, hop_length)
        return spectrum, power(spectrum)

    loudest_frame = max(float(spectra(window)[1].sum(dim=0).amax()) for window in range(len(windows)))
    sample_weight = np.zeros(num_samples if return_audio else 0, dtype=np.float32)
    frame_weight = np.zeros(num_frames, dtype=np.float32)
    for source in sources:
        source.activity = np.zeros(num_frames, dtype=np.float32)
        source.activity_hop_s = hop_length / sampling_rate
        source.audio = np.zeros(num_samples, dtype=np.float32) if return_audio else None

    for number, window in enumerate(windows):
        span = slice(window.start, min(window.start + len(window.samples), num_samples))
        first_frame = window.start // hop_length
        frames = slice(first_frame, min(first_frame + len(window.samples) // hop_length + 1, num_frames))
        sample_fade = _triangle(len(window.samples))[: span.stop - span.start]
        frame_fade = _triangle(len(window.samples) // hop_length + 1)[: frames.stop - frames.start]
        if return_audio:
            sample_weight[span] += sample_fade
        frame_weight[frames] += frame_fade
        sounding = [source for track, source in zip(tracks, sources, strict=True) if number in track.masks]
        if not sounding:
            continue
        bands = np.stack([track.masks[number] for track in tracks if number in track.masks])
        masks = mask_to_bins(torch.from_numpy(bands).float(), n_fft, sampling_rate)
        spectrum, energy = spectra(number)
        for source, activity in zip(sounding, frame_activity(energy, masks, loudest_frame), strict=True):
            source.activity[frames] += frame_fade * activity.numpy()[: len(frame_fade)]
        if return_audio:
            audios = istft(spectrum * masks, n_fft, hop_length, len(window.samples))
            for source, audio in zip(sounding, audios, strict=True):
                source.audio[span] += sample_fade * audio.numpy()[: len(sample_fade)]

    for source in sources:
        source.activity = np.clip(source.activity / frame_weight, 0.0, 1.0)
        if return_audio:
            source.audio /= sample_weight
            np.clip(source.audio, -1.0, 1.0, out=source.audio)
    return sources


@lru_cache(maxsize=4)
def _triangle(length: int) -> np.ndarray:
    """Symmetric cross-fade weights, above 0 everywhere."""
    rise = np.arange(1, length + 1, dtype=np.float32)
    return np.minimum(rise, rise[::-1]) / length
