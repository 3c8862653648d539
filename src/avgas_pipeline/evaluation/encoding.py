"""Encodes soundscapes once, and says what a pipeline recognises in them: labels, presence, separated audio."""

from collections.abc import Sequence

import numpy as np
import soxr
import torch

from ..audio.loading import load_audio
from ..conditioning import pack_sources
from ..metrics.sound import match_slots, si_sdr_improvement
from ..pipeline_avgas import AVGASPipeline
from ..pipeline_output import EncodedAudio, SoundSource
from ..separation.encoding import encode
from ..separation.tracking import Track, track
from .drawings import Drawing
from .soundscapes import Soundscape


@torch.no_grad()
def encode_soundscapes(
    pipe: AVGASPipeline, soundscapes: Sequence[Soundscape], presence_threshold: float | None = None
) -> tuple[EncodedAudio, list[Drawing]]:
    """
    Find the sources of mixtures as the pipeline does; where none is present, the most probable one stands in, and
    where none is known, the first one.

    Args:
        pipe ([`AVGASPipeline`]): Needs neither U-Net nor VAE.
        soundscapes (`Sequence[Soundscape]`): Mixtures or recordings; each goes through the encoder once.
        presence_threshold (`float`, *optional*): As of the pipeline.

    Returns:
        What draws them, and what was found in each, without images.
    """
    models = pipe.audio_models()
    waveforms = [_at_rate(soundscape.waveform, soundscape, pipe) for soundscape in soundscapes]
    windows = [models.cut_windows(waveform) for waveform in waveforms]
    encoding = encode(windows, models)
    tokens, sources, drawings = [], [], []
    for soundscape, waveform, pieces, encoded in zip(
        soundscapes, waveforms, windows, encoding.recordings, strict=True
    ):
        found = track(encoded, presence_threshold=presence_threshold)
        has_source = bool(found)
        found = found or track(encoded, num_sources=1, presence_threshold=presence_threshold)
        slots = track(encoded, num_sources=pipe.separator.config.num_slots)
        rendered = models.render(found, waveform, pieces)
        known = [number for number, source in enumerate(rendered) if not source.is_unknown] or [0]
        slot_scores, holds_source = _presence(slots, soundscape, pipe)
        tokens.append([found[number].condition_tokens for number in known])
        sources.append([rendered[number] for number in known])
        drawings.append(
            Drawing(
                labels=[source.label for source in rendered],
                drawn_labels=[rendered[number].label for number in known],
                label_scores=[source.certainty for source in rendered],
                no_source=not has_source,
                slot_scores=slot_scores,
                slot_holds_source=holds_source,
                si_sdri_db=_si_sdri(rendered if has_source else [], soundscape),
            )
        )
    return pack_sources(tokens, sources, encoding.null_tokens), drawings


@torch.no_grad()
def encode_stems(pipe: AVGASPipeline, soundscapes: Sequence[Soundscape]) -> tuple[EncodedAudio, list[Drawing]]:
    """
    Encode every clean source by itself, as its most probable slot; their tokens stand side by side, as if the mixture
    had been separated perfectly. All are drawn, unknown sounds too.
    """
    models = pipe.audio_models()
    tokens, sources, drawings = [], [], []
    for soundscape in soundscapes:
        stems = [_at_rate(stem, soundscape, pipe) for stem in soundscape.stems]
        windows = [models.cut_windows(stem) for stem in stems]
        encoding = encode(windows, models)
        found = [track(encoded, num_sources=1)[0] for encoded in encoding.recordings]
        rendered = [
            models.render([source], stem, pieces, return_audio=False)[0]
            for source, stem, pieces in zip(found, stems, windows, strict=True)
        ]
        tokens.append([source.condition_tokens for source in found])
        sources.append(rendered)
        labels, scores = zip(*((source.label, source.certainty) for source in rendered), strict=True)
        drawings.append(Drawing(labels=list(labels), drawn_labels=list(labels), label_scores=list(scores)))
    return pack_sources(tokens, sources, encoding.null_tokens), drawings


def _at_rate(waveform: np.ndarray, soundscape: Soundscape, pipe: AVGASPipeline) -> np.ndarray:
    return load_audio(waveform, soundscape.sampling_rate, pipe.sampling_rate, name=soundscape.id)


def _presence(slots: list[Track], soundscape: Soundscape, pipe: AVGASPipeline) -> tuple[list[float], list[bool]]:
    """
    Scores of the slots that count, and whether each holds a source. A free slot whose own most likely label is of what
    else is heard does not count.
    """
    label2id = {label: index for index, label in pipe.separator.id2label.items()}
    true, others = (
        [label2id[label] for label in labels if label in label2id]
        for labels in (soundscape.labels, soundscape.also_heard)
    )
    label_probs = np.stack([slot.class_probs / slot.class_probs.sum() for slot in slots])
    holds = match_slots(label_probs, true)
    counted = np.flatnonzero(holds | ~np.isin(label_probs.argmax(axis=1), others)).tolist()
    return [slots[number].score for number in counted], [bool(holds[number]) for number in counted]


def _si_sdri(sources: list[SoundSource], soundscape: Soundscape) -> list[float]:
    """At the soundscape's rate, at which its stems are."""
    if soundscape.stems is None or len(soundscape.stems) == 1 or any(source.audio is None for source in sources):
        return []
    stems, mixture = torch.from_numpy(soundscape.stems), torch.from_numpy(soundscape.waveform)
    estimates = [_resample(source, soundscape) for source in sources]
    estimates = torch.stack(estimates) if estimates else torch.zeros(0, len(mixture))
    return si_sdr_improvement(estimates, stems, mixture).tolist()


def _resample(source: SoundSource, soundscape: Soundscape) -> torch.Tensor:
    audio = source.audio
    if source.sampling_rate != soundscape.sampling_rate:
        audio = soxr.resample(audio, source.sampling_rate, soundscape.sampling_rate)
    length = len(soundscape.waveform)
    audio = torch.from_numpy(audio)[:length]
    return torch.nn.functional.pad(audio, (0, length - len(audio)))
