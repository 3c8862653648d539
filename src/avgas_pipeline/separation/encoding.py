"""From windows to slots: feature extractor, audio encoder and separator."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from tqdm.auto import tqdm

from ..audio.spectrogram import frame_activity, mel_bands, power, relative_log_mel, stft
from ..audio.windows import Window, change_speed, sounding_windows
from ..models.encoder_adapters import audio_tokens, encoder_inputs
from ..models.separator import AudioVisualSeparatorOutput
from ..models.taggers import tag_windows
from .audio_models import AudioModels
from .slots import SlotEncoding, WindowEncoding
from .tracking import LEAST_WEIGHT


# What has nowhere a larger share of the energy is not heard as a source.
LEAST_SHARE = 0.03
# Windows that go through the audio encoder at a time, so that an hour of audio fits in memory.
MAX_WINDOWS = 12

# Presence and most probable label of every slot of a window, to the slots whose tokens and masks are needed.
KeepRule = Callable[[Sequence[float], Sequence[int]], Collection[int]]


@dataclass(frozen=True)
class WindowViews:
    """
    What the separator says of one window's K slots in each of its V augmented views, slots in the first view's order.

    Attributes:
        number (`int`): The window's place in its recording.
        presence_logits (`torch.Tensor` of shape `(V, K)`): On the CPU, as the next two.
        class_probs (`torch.Tensor` of shape `(V, K, num_labels)`): Label probabilities.
        audio_embeds (`torch.Tensor` of shape `(K, E)`): Unit vectors of the first view.
        condition_tokens (`tuple[torch.Tensor, ...]`): One of shape `(K, M, C)` for each view, on the separator's
            device, with their gradients.
        mask_logits (`torch.Tensor` of shape `(K, bands, frames)`, *optional*): Of the first view.
        shares (`torch.Tensor` of shape `(K,)`, *optional*): Of the first view: the largest share of a frame's energy
            that a slot's mask lets through, in [0, 1].
        null_tokens (`torch.Tensor` of shape `(M, C)`): The separator's.
    """

    number: int
    presence_logits: torch.Tensor
    class_probs: torch.Tensor
    audio_embeds: torch.Tensor
    condition_tokens: tuple[torch.Tensor, ...]
    mask_logits: torch.Tensor | None
    shares: torch.Tensor | None
    null_tokens: torch.Tensor


@dataclass(frozen=True)
class AudioEncoding:
    """
    Encoded recordings.

    Attributes:
        recordings (`tuple[tuple[WindowEncoding, ...], ...]`): The windows of each one that are not silent.
        null_tokens (`torch.Tensor` of shape `(M, C)`): The separator's.
    """

    recordings: tuple[tuple[WindowEncoding, ...], ...]
    null_tokens: torch.Tensor


def encode(
    recordings: Sequence[Sequence[Window]],
    models: AudioModels,
    batch_size: int | None = None,
    keep: KeepRule | None = None,
    bar_config: Mapping[str, Any] | None = None,
) -> AudioEncoding:
    """
    Put the windows of all recordings through the models, together, in as few calls as fit.

    Args:
        recordings (`Sequence[Sequence[Window]]`): The windows of one recording or more, as
            [`AudioModels.cut_windows`] gives them. Silent windows are left out, unless all of a recording are.
        models ([`AudioModels`]): The models.
        batch_size (`int`, *optional*): The most windows at a time, all views together; never more than 12.
        keep (`Callable`, *optional*): Of which slots to keep tokens and mask, which take most of the memory, by
            presence and label of all: see [`~avgas_pipeline.separation.tracking.present_slots`]. All if not given.
        bar_config (`Mapping`, *optional*): Of the progress bar, as tqdm takes it; there is one where the windows take
            more than one call. None if not given.

    Raises:
        ValueError: If what the models compute is not finite.
    """
    encoded: list[list[WindowEncoding]] = [[] for _ in recordings]
    with ExitStack() as stack:
        bar = None
        total = sum(1 for windows in recordings for _ in sounding_windows(windows))
        if bar_config is not None and total > MAX_WINDOWS:
            title = ", ".join(filter(None, (bar_config.get("desc"), "listening")))
            bar = stack.enter_context(tqdm(total=total, unit="window", **{**bar_config, "desc": title}))
        for place, views in encode_views(recordings, models, batch_size):
            encoded[place].append(average_views(views, keep))
            if bar is not None:
                bar.update()
    return AudioEncoding(tuple(map(tuple, encoded)), views.null_tokens)


def encode_views(
    recordings: Sequence[Sequence[Window]], models: AudioModels, batch_size: int | None = None
) -> Iterator[tuple[int, WindowViews]]:
    """What [`encode`] averages: the number of a recording and the views of its next window, until all are through."""
    queue = [(place, *pair) for place, windows in enumerate(recordings) for pair in sounding_windows(windows)]
    batch_size = min(batch_size or MAX_WINDOWS, MAX_WINDOWS)
    for start in range(0, len(queue), batch_size):
        batch = queue[start : start + batch_size]
        windows = [window for _, _, window in batch]
        windows += _other_speeds(windows, models.speed_variation)
        rows: list[tuple[AudioVisualSeparatorOutput, int]] = []
        shares: list[torch.Tensor | None] = []
        tag_logits = None
        for first in range(0, len(windows), batch_size):
            part = windows[first : first + batch_size]
            # Masks and tags are those of the windows as they are, which come first.
            num_original = max(len(batch) - first, 0)
            tokens, found_tags = _audio_tokens(part, models, num_original)
            tag_logits = found_tags if tag_logits is None else tag_logits
            tags = None
            if tag_logits is not None:
                tags = tag_logits[torch.arange(first, first + len(part), device=tag_logits.device) % len(batch)]
            output, found = _separate(part, tokens, tags, models, num_original)
            rows += [(output, row) for row in range(len(part))]
            shares += found
        for offset, (place, number, _) in enumerate(batch):
            yield place, align_views(number, rows[offset :: len(batch)], shares[offset])


# Autocast is for models: what is computed of their results is not rounded.
@torch.autocast("cpu", enabled=False)
def align_views(
    number: int, rows: Sequence[tuple[AudioVisualSeparatorOutput, int]], shares: torch.Tensor | None = None
) -> WindowViews:
    """A window's row in the output of every view, slots in the first one's order, by cosine of audio embeddings."""
    first, first_row = rows[0]
    embeds = first.audio_embeds[first_row].detach().float().cpu()
    presence, class_probs, condition_tokens = [], [], []
    for place, (output, row) in enumerate(rows):
        order = torch.arange(len(embeds))
        if place:
            similarity = embeds @ output.audio_embeds[row].detach().float().cpu().T
            order = torch.from_numpy(linear_sum_assignment(similarity.numpy(), maximize=True)[1])
        presence.append(output.presence_logits[row].detach().cpu()[order])
        class_probs.append(output.class_logits[row].detach().cpu()[order])
        condition_tokens.append(output.condition_tokens[row][order.to(output.condition_tokens.device)])
    return WindowViews(
        number=number,
        presence_logits=torch.stack(presence).float(),
        class_probs=torch.stack(class_probs).float().softmax(dim=-1),
        audio_embeds=embeds,
        condition_tokens=tuple(condition_tokens),
        mask_logits=None if first.mask_logits is None else first.mask_logits[first_row],
        shares=shares,
        null_tokens=first.null_tokens,
    )


@torch.autocast("cpu", enabled=False)
def average_views(views: WindowViews, keep: KeepRule | None = None) -> WindowEncoding:
    """
    A window's slots: presence is the mean over views, and so are label probabilities, weighted by presence. A slot
    that has nowhere more than 3 % of the energy holds no source. Condition tokens are those of the most certain view
    of a label, masks and embeddings the first view's.

    Args:
        views ([`WindowViews`]): Of the window.
        keep (`Callable`, *optional*): As of [`encode`].
    """
    presence = views.presence_logits.sigmoid()
    if views.shares is not None:
        presence = presence * (views.shares >= LEAST_SHARE)
    weight = presence.clamp_min(LEAST_WEIGHT)[..., None]
    class_probs = (weight * views.class_probs).mean(dim=0)
    mean_presence: list[float] = presence.mean(dim=0).tolist()
    kept = range(len(mean_presence)) if keep is None else keep(mean_presence, class_probs.argmax(dim=-1).tolist())
    masks = _masks(views.mask_logits, kept)
    certainty, labels = presence.tolist(), views.class_probs.argmax(dim=-1).tolist()
    slots = []
    for slot, slot_presence in enumerate(mean_presence):
        tokens_by_label: dict[int, tuple[float, torch.Tensor]] = {}
        for view, tokens in enumerate(views.condition_tokens if slot in kept else ()):
            label, own = labels[view][slot], certainty[view][slot]
            if label not in tokens_by_label or own > tokens_by_label[label][0]:
                tokens_by_label[label] = (own, tokens[slot])
        slots.append(
            SlotEncoding(
                presence=slot_presence,
                class_probs=class_probs[slot].numpy(),
                audio_embed=views.audio_embeds[slot].numpy(),
                # Copies: a row would keep the tokens of the whole batch.
                tokens_by_label={label: (own, tokens.clone()) for label, (own, tokens) in tokens_by_label.items()},
                mask=masks.get(slot),
            )
        )
    return WindowEncoding(views.number, tuple(slots))


def _masks(mask_logits: torch.Tensor | None, kept: Collection[int]) -> dict[int, np.ndarray]:
    if mask_logits is None:
        return {}
    return {slot: mask_logits[slot].detach().float().sigmoid().half().cpu().numpy() for slot in kept}


def _other_speeds(windows: list[Window], speed_variation: float) -> list[Window]:
    """All windows played slower, then all played faster; none without variation."""
    if not speed_variation:
        return []
    # The resampler frees the interpreter while it works.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        played = [pool.map(change_speed, windows, repeat(1 + sign * speed_variation)) for sign in (-1, 1)]
        return list(chain.from_iterable(played))


def _audio_tokens(
    windows: list[Window], models: AudioModels, num_tagged: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The encoder's tokens of all windows, and the scores of an audio classifier for the first `num_tagged`."""
    extractor, audio_encoder = models.feature_extractor, models.audio_encoder
    inputs = encoder_inputs(extractor, audio_encoder, windows)
    inputs = {
        name: value.to(models.device, audio_encoder.dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
    }
    if models.tagger is None:
        return audio_tokens(audio_encoder, inputs, num_tagged)
    tokens, _ = audio_tokens(audio_encoder, inputs, 0)
    if not num_tagged:
        return tokens, None
    tagger, own_extractor = models.tagger, models.tagger_feature_extractor
    return tokens, tag_windows(tagger, own_extractor, windows[:num_tagged], extractor.sampling_rate, models.device)


def _separate(
    windows: list[Window],
    tokens: torch.Tensor,
    tag_logits: torch.Tensor | None,
    models: AudioModels,
    num_masks: int,
) -> tuple[AudioVisualSeparatorOutput, list[torch.Tensor | None]]:
    """
    Masks of the first `num_masks` windows; of all, but as coarse as the audio tokens, if that is 0. And for every
    window its slots' largest shares of a frame's energy, if it has masks.
    """
    extractor, audio_encoder, separator = models.feature_extractor, models.audio_encoder, models.separator
    config, dtype = separator.config, separator.dtype
    spectrogram = None
    if config.mask_channels and num_masks:
        samples = torch.from_numpy(np.stack([window.samples for window in windows[:num_masks]])).to(models.device)
        spectrum = stft(samples, config.n_fft, config.hop_length)
        spectrogram = relative_log_mel(spectrum, extractor.sampling_rate, config.num_mask_bands).to(dtype)
    valid_fraction = None
    if any(window.num_valid < len(window.samples) for window in windows):
        fractions = [window.num_valid / len(window.samples) for window in windows]
        valid_fraction = torch.tensor(fractions, device=models.device)
    # Offloading hooks rebuild outputs, which only works for tuples.
    output = AudioVisualSeparatorOutput(
        *separator(
            tokens.to(dtype),
            valid_fraction=valid_fraction,
            spectrogram=spectrogram,
            tag_logits=tag_logits,
            return_dict=False,
        )
    )
    if not all(values.isfinite().all() for values in output.to_tuple() if values is not None):
        raise ValueError(
            f"What `audio_encoder` ({audio_encoder.dtype}) and `separator` ({dtype}) compute is not finite: their"
            " weights are damaged, or the data type does not hold their values."
        )
    shares: list[torch.Tensor | None] = [None] * len(windows)
    if spectrogram is not None:
        bands = mel_bands(config.n_fft, extractor.sampling_rate, config.num_mask_bands).to(spectrum.device)
        energy = bands @ power(spectrum)
        for number, mask_logits in enumerate(output.mask_logits):
            loudest = float(energy[number].sum(dim=0).amax())
            activity = frame_activity(energy[number], mask_logits.detach().float().sigmoid(), loudest)
            shares[number] = activity.amax(dim=-1).cpu()
    return output, shares
