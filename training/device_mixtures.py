"""Mixtures made on the accelerator, a batch at a time: all that keeps a GPU waiting otherwise."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from device_effects import vary
from randomness import DeviceRandom
from soundscape_dataset import Collator
from tqdm.auto import tqdm

from avgas_pipeline.data.augment import MAX_SPEED, SPEED_PROBABILITY
from avgas_pipeline.data.loudness import ACTIVE_RANGE_DB, FRAME_S, active_moments
from avgas_pipeline.data.mixtures import (
    FADE_S,
    GAP_LENGTHS,
    GAP_S,
    MOMENT_SHARE,
    REFERENCE_LEVEL,
    REPEAT_PROBABILITY,
    REPEATED_SHARE,
    MixtureSampler,
)


class DeviceMixer:
    """
    Makes batches of mixtures as a [`MixtureSampler`] makes mixtures, from the same clips with the same chances, but
    with other random numbers, so that no plan says what is in them. Clips are played faster and slower with cubic
    interpolation, and varied once they are placed; none goes through Opus.

    Args:
        sampler ([`MixtureSampler`]): What to draw from, and how.
        label2id (`Mapping[str, int]`): Index of every label.
        device (`torch.device`): Where mixtures are made, and all clips kept, 4 bytes per sample.

    Raises:
        ValueError: If a clip is silent.
    """

    def __init__(self, sampler: MixtureSampler, label2id: Mapping[str, int], device: torch.device) -> None:
        self.sampler = sampler
        self.device = device
        self.length = round(sampler.duration_s * sampler.sampling_rate)
        self.weights = torch.tensor(sampler.label_weights, dtype=torch.float32, device=device)
        self.label_ids = torch.tensor([label2id[label] for label in sampler.labels], device=device)
        self.clips = [(clip, label) for label in sampler.labels for group in sampler.groups[label] for clip in group]
        numbers = {clip: number for number, (clip, _) in enumerate(self.clips)}
        groups = [[numbers[clip] for clip in group] for label in sampler.labels for group in sampler.groups[label]]
        first = np.cumsum([0] + [len(sampler.groups[label]) for label in sampler.labels])
        self.label_groups = self._table([list(range(*pair)) for pair in pairwise(first)])
        self.group_clips = self._table(groups)
        waveforms, moments = [], []
        for clip, _ in tqdm(self.clips, desc="Decoding clips", unit="clip"):
            waveforms.append(sampler.clip_waveform(clip))
            sounding_s = active_moments(waveforms[-1], sampler.sampling_rate)
            moments.append(np.round(sounding_s * sampler.sampling_rate).astype(int).tolist())
            if not moments[-1]:
                raise ValueError(f"Clip {clip!r} is silent.")
        self.moments = self._table(moments)
        self.samples = torch.from_numpy(np.concatenate(waveforms)).to(device)
        lengths = [len(waveform) for waveform in waveforms]
        self.lengths = torch.tensor(lengths, device=device)
        self.starts = self.lengths.cumsum(0) - self.lengths
        shortest_gap = min(lengths) / MAX_SPEED * (1 + GAP_LENGTHS[0]) + GAP_S[0] * sampler.sampling_rate
        self.most_repetitions = math.ceil(self.length / shortest_gap)
        self.pictures = None

    def show(self, picture_rows: Mapping[str, int]) -> None:
        """From now on, batches say which picture each source has, by its row."""
        candidates = [self.sampler.picture_candidates(clip, label) for clip, label in self.clips]
        self.pictures = self._table([[picture_rows[name] for name in names] for names in candidates])

    def batches(self, collate: Collator, batch_size: int, numbers: range) -> Iterator[dict[str, Any]]:
        """The batches with some numbers, as a [`Collator`] gives them, but without target pictures."""
        for number in numbers:
            waveform, stems, labels, rows = self.mix(number, batch_size)
            batch = {"waveform": waveform, "stems": stems, "labels": labels}
            batch["encoder"] = collate.encoder_inputs(waveform.cpu().numpy(), self.device)
            if collate.with_stems:
                batch["clean_encoder"] = collate.encoder_inputs(stems[labels >= 0].cpu().numpy(), self.device)
            if rows is not None:
                batch["picture_rows"] = rows
            yield send_to_device(batch, self.device)

    @torch.no_grad()
    def mix(
        self, number: int, batch_size: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """
        A batch: it depends on the sampler's seed, its number and size alone.

        Returns:
            Waveforms `(B, T)`, stems `(B, N, T)`, labels `(B, N)` with -1 for no source, and rows of pictures
            `(B, N)`, likewise, if they are wanted.
        """
        sampler = self.sampler
        random = DeviceRandom(sampler.seed, number, self.device)
        fewest, most = sampler.num_sources
        drawn = torch.multinomial(self.weights.expand(batch_size, -1), most, generator=random.generator)
        counts = fewest + random.below(torch.full((batch_size,), most - fewest + 1, device=self.device))
        rows, places = (torch.arange(most, device=self.device) < counts[:, None]).nonzero(as_tuple=True)
        classes = drawn[rows, places]
        clips = self._pick(self.group_clips, self._pick(self.label_groups, classes, random), random)

        is_varied = (random.uniform(0, 1, batch_size) < float(sampler.augment))[rows]
        sounds, sounding = self._place(clips, is_varied, random)
        varied = is_varied.nonzero().flatten()
        if len(varied):
            sounds[varied] = vary(sounds[varied], sounding[varied], sampler.sampling_rate, random)
        gains_db = random.uniform(-sampler.gain_range_db, sampler.gain_range_db, len(clips))
        levels = active_rms(sounds, sampler.sampling_rate)
        sounds *= (REFERENCE_LEVEL * 10.0 ** (gains_db / 20) / levels.clamp_min(1e-8))[:, None]

        stems = sounds.new_zeros(batch_size, most, self.length)
        stems[rows, places] = sounds
        peaks = torch.maximum(stems.sum(dim=1).abs().amax(dim=1), stems.abs().amax(dim=(1, 2)))
        stems *= (0.99 / peaks.clamp_min(1e-8)).clamp_max(1.0)[:, None, None]
        labels = torch.full((batch_size, most), -1, device=self.device)
        labels[rows, places] = self.label_ids[classes]
        pictures = None
        if self.pictures is not None:
            pictures = torch.full_like(labels, -1)
            pictures[rows, places] = self._pick(self.pictures, clips, random)
        return stems.sum(dim=1), stems, labels, pictures

    def _place(
        self, clips: torch.Tensor, is_varied: torch.Tensor, random: DeviceRandom
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Clips `(N,)` in their windows `(N, T)`, those that are varied at their own speeds, and where they sound."""
        rate, window, count = self.sampler.sampling_rate, self.length, len(clips)
        lengths = self.lengths[clips]
        slack = (lengths - window).clamp_min(0)
        moments = self._pick(self.moments, clips, random)
        latest, earliest = (
            torch.minimum((moments - round(share * window)).clamp_min(0), slack) for share in MOMENT_SHARE
        )
        begins = self.starts[clips] + earliest + random.below(latest - earliest + 1)
        is_short = lengths < REPEATED_SHARE * window
        is_repeated = is_short & (random.uniform(0, 1, count) < REPEAT_PROBABILITY)
        lengths = lengths.clamp_max(window)
        room_left = window - lengths
        # A repeated sound begins early, so that there is time for more.
        offsets = random.below(torch.where(is_repeated, torch.minimum(room_left, lengths), room_left) + 1)
        is_changed = is_varied & (random.uniform(0, 1, count) < SPEED_PROBABILITY)
        speeds = torch.where(is_changed, random.uniform(1 / MAX_SPEED, MAX_SPEED, count), 1.0)
        played = (lengths / speeds).floor().clamp_min(1)

        shape = (count, self.most_repetitions)
        gaps = played[:, None] * (1 + random.uniform(*GAP_LENGTHS, *shape)) + rate * random.uniform(*GAP_S, *shape)
        positions = (offsets[:, None] + gaps.cumsum(dim=1) - gaps).floor()
        # Later than any window.
        positions[:, 1:] = torch.where(is_repeated[:, None], positions[:, 1:], 2.0 * window + positions[:, 1:])
        time = torch.arange(window, device=self.device, dtype=torch.float32).expand(count, -1).contiguous()
        repetition = torch.searchsorted(positions, time, right=True) - 1
        since = time - positions.gather(1, repetition.clamp_min(0))
        sounding = (repetition >= 0) & (since < played[:, None])

        sounds = self._interpolate(since * speeds[:, None], begins, lengths) * sounding
        fade = torch.minimum(played / 2, torch.tensor(FADE_S * rate, device=self.device)).floor().clamp_min(1)[:, None]
        return sounds * ((since + 1) / fade).clamp(0, 1) * ((played[:, None] - since) / fade).clamp(0, 1), sounding

    def _interpolate(self, places: torch.Tensor, begins: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Samples `(N, T)` of pieces at places between theirs, by Catmull-Rom splines; as they are at whole places."""
        whole = places.floor()
        share = places - whole
        last = (lengths - 1)[:, None]
        before, left, right, after = (
            self.samples[begins[:, None] + (whole.long() + tap).clamp_min(0).minimum(last)] for tap in (-1, 0, 1, 2)
        )
        cubic = 3 * (left - right) + after - before
        square = 2 * before - 5 * left + 4 * right - after
        return left + 0.5 * share * (right - before + share * (square + share * cubic))

    def _table(self, lists: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Lists of different lengths as `(L, longest)`, and their lengths."""
        counts = torch.tensor([len(each) for each in lists], device=self.device)
        rows = [torch.tensor(each, device=self.device) for each in lists]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), counts

    def _pick(
        self, table: tuple[torch.Tensor, torch.Tensor], lists: torch.Tensor, random: DeviceRandom
    ) -> torch.Tensor:
        """One entry of each of some lists of a table."""
        entries, counts = table
        return entries[lists, random.below(counts[lists])]


def active_rms(sounds: torch.Tensor, sampling_rate: int) -> torch.Tensor:
    """[`avgas_pipeline.data.loudness.active_rms`] of sounds `(N, T)`; for whole numbers of frames the same."""
    frame = max(round(FRAME_S * sampling_rate), 1)
    padded = torch.nn.functional.pad(sounds, (0, -sounds.shape[-1] % frame))
    power = padded.unflatten(-1, (-1, frame)).square().mean(dim=-1)
    floor = power.amax(dim=-1, keepdim=True) * 10.0 ** (-ACTIVE_RANGE_DB / 10)
    active = (power > 0) & (power >= floor)
    return ((power * active).sum(dim=-1) / active.sum(dim=-1).clamp_min(1)).sqrt()
