"""Mixtures made on the accelerator, a batch at a time, where a loader's processes would keep it waiting."""

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

from avgas_pipeline.data.augment import MAX_SPEED, ROOM_DECAY_S, ROOM_PROBABILITY, SPEED_PROBABILITY
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


# Samples on either side that the sinc of a sound played faster or slower reaches to.
SINC_REACH = 24
# Its cutoff as a share of half the lower of both rates, so that what it lets through beyond that is little.
SINC_ROLLOFF = 0.93

# Lists one after the other, where each begins, and how long each is.
Lists = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class DeviceMixer:
    """
    Makes batches of mixtures as a [`MixtureSampler`] makes mixtures, from the same clips with the same chances, but
    with random numbers of its own, so that they have no plans. Sounds are placed first and varied then, and none goes
    through Opus.

    Args:
        sampler ([`MixtureSampler`]): What to draw from, and how.
        label2id (`Mapping[str, int]`): Index of every label.
        device (`torch.device`): Where mixtures are made, and all clips kept, 4 bytes per sample.
        picture_rows (`Mapping[str, int]`, *optional*): Row of every picture in a table, if batches are to say which
            picture each source has.
        show_progress (`bool`, defaults to `True`): A bar while clips are decoded.

    Raises:
        ValueError: If a clip is silent.
    """

    def __init__(
        self,
        sampler: MixtureSampler,
        label2id: Mapping[str, int],
        device: torch.device,
        picture_rows: Mapping[str, int] | None = None,
        show_progress: bool = True,
    ) -> None:
        self.sampler = sampler
        self.device = device
        self.length = round(sampler.duration_s * sampler.sampling_rate)
        self.weights = torch.tensor(sampler.label_weights, dtype=torch.float32, device=device)
        self.label_ids = torch.tensor([label2id[label] for label in sampler.labels], device=device)
        clips = [(clip, label) for label in sampler.labels for group in sampler.groups[label] for clip in group]
        numbers = {clip: number for number, (clip, _) in enumerate(clips)}
        groups = [[numbers[clip] for clip in group] for label in sampler.labels for group in sampler.groups[label]]
        first = np.cumsum([0] + [len(sampler.groups[label]) for label in sampler.labels])
        self.label_groups = self._lists([list(range(*pair)) for pair in pairwise(first)])
        self.group_clips = self._lists(groups)
        waveforms, moments = [], []
        for clip, _ in tqdm(clips, desc="Decoding clips", unit="clip", disable=not show_progress):
            waveform = sampler.clip_waveform(clip)
            sounding_s = active_moments(waveform, sampler.sampling_rate)
            if not len(sounding_s):
                raise ValueError(f"Clip {clip!r} is silent.")
            waveforms.append(torch.from_numpy(waveform).to(device))
            is_long = len(waveform) * MAX_SPEED >= self.length
            moments.append(np.round(sounding_s * sampler.sampling_rate).astype(int).tolist() if is_long else [0])
        self.moments = self._lists(moments)
        self.samples = torch.cat(waveforms)
        self.lengths = torch.tensor([len(waveform) for waveform in waveforms], device=device)
        self.starts = self.lengths.cumsum(0) - self.lengths
        shortest_gap = int(self.lengths.min()) / MAX_SPEED * (1 + GAP_LENGTHS[0]) + GAP_S[0] * sampler.sampling_rate
        self.most_repetitions = math.ceil(self.length / shortest_gap)
        self.pictures: Lists | None = None
        if picture_rows is not None:
            candidates = [sampler.picture_candidates(clip, label) for clip, label in clips]
            self.pictures = self._lists([[picture_rows[name] for name in names] for names in candidates])

    def batches(self, collate: Collator, batch_size: int, numbers: range) -> Iterator[dict[str, Any]]:
        """
        The batches with some numbers, as a [`Collator`] gives them, but without target pictures. Feature extractors
        that can't compute on a device (AST, CLAP) take their time on the CPU, which no loader's processes share.
        """
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
        in_room = is_varied & (random.uniform(0, 1, len(clips)) < ROOM_PROBABILITY)
        decays_s = torch.where(in_room, random.uniform(*ROOM_DECAY_S, len(clips)), 0.0)
        sounds, envelopes = self._place(clips, is_varied, decays_s, random)
        if len(varied := is_varied.nonzero().flatten()):
            settings = (decays_s[varied], sampler.sampling_rate, random)
            sounds[varied] = vary(sounds[varied], envelopes[varied], *settings)
        gains_db = random.uniform(-sampler.gain_range_db, sampler.gain_range_db, len(clips))
        levels = active_rms(sounds, sampler.sampling_rate)
        sounds *= (REFERENCE_LEVEL * 10.0 ** (gains_db / 20) / levels.clamp_min(1e-8))[:, None]

        stems = sounds.new_zeros(batch_size, most, self.length)
        stems[rows, places] = sounds
        peaks = torch.maximum(stems.sum(dim=1).abs().amax(dim=1), stems.abs().amax(dim=(1, 2)))
        stems *= (0.99 / peaks.clamp_min(1e-8)).clamp_max(1.0)[:, None, None]
        labels = torch.full((batch_size, most), -1, device=self.device)
        # Silence is no source.
        labels[rows, places] = torch.where(levels > 0, self.label_ids[classes], -1)
        pictures = None
        if self.pictures is not None:
            pictures = torch.full_like(labels, -1)
            pictures[rows, places] = torch.where(levels > 0, self._pick(self.pictures, clips, random), -1)
        return stems.sum(dim=1), stems, labels, pictures

    def _place(
        self, clips: torch.Tensor, is_varied: torch.Tensor, decays_s: torch.Tensor, random: DeviceRandom
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Clips `(N,)` in their windows `(N, T)`, those that are varied at their own speeds, and their envelopes: 1 where
        they sound, 0 elsewhere, and faded between. `decays_s` `(N,)` is for how long rooms will ring after them.
        """
        rate, window, count = self.sampler.sampling_rate, self.length, len(clips)
        is_changed = is_varied & (random.uniform(0, 1, count) < SPEED_PROBABILITY)
        speeds = torch.where(is_changed, random.uniform(1 / MAX_SPEED, MAX_SPEED, count), 1.0)
        lengths = self.lengths[clips]
        is_short = lengths < REPEATED_SHARE * window
        # Of a slower clip, less fits into the window.
        slack = (lengths - (window * speeds.clamp_max(1)).ceil().long()).clamp_min(0)
        moments = self._pick(self.moments, clips, random)
        latest, earliest = (
            torch.minimum((moments - (share * window * speeds.clamp_max(1)).long()).clamp_min(0), slack)
            for share in MOMENT_SHARE
        )
        skipped = earliest + random.below(latest - earliest + 1)
        begins = self.starts[clips] + skipped
        is_repeated = is_short & (random.uniform(0, 1, count) < REPEAT_PROBABILITY)
        lengths = (lengths - skipped).clamp_max(window)
        played = (lengths / speeds).floor().clamp(1, window)
        room_left = window - torch.maximum(played.long(), lengths)
        # A repeated sound begins early, so that there is time for more.
        offsets = random.below(torch.where(is_repeated, torch.minimum(room_left, lengths), room_left) + 1)

        shape = (count, self.most_repetitions)
        lasting = (played + decays_s * rate)[:, None]
        gaps = lasting * (1 + random.uniform(*GAP_LENGTHS, *shape)) + rate * random.uniform(*GAP_S, *shape)
        positions = (offsets[:, None] + gaps.cumsum(dim=1) - gaps).floor()
        # Later than any window.
        positions[:, 1:] = torch.where(is_repeated[:, None], positions[:, 1:], 2.0 * window + positions[:, 1:])
        time = torch.arange(window, device=self.device, dtype=torch.float32).expand(count, -1).contiguous()
        repetition = torch.searchsorted(positions, time, right=True) - 1
        since = time - positions.gather(1, repetition.clamp_min(0))

        fade = torch.minimum(played / 2, torch.tensor(FADE_S * rate, device=self.device)).floor().clamp_min(1)[:, None]
        envelopes = ((since + 1) / fade).clamp(0, 1) * ((played[:, None] - since) / fade).clamp(0, 1)
        envelopes *= repetition >= 0
        whole = (begins[:, None] + since.long().clamp_min(0).minimum((lengths - 1)[:, None])).clamp_min(0)
        sounds = self.samples[whole]
        if len(changed := is_changed.nonzero().flatten()):
            settings = (speeds[changed], begins[changed], lengths[changed])
            sounds[changed] = self._at_speed(since[changed], *settings)
        return sounds * envelopes, envelopes

    def _at_speed(
        self, since: torch.Tensor, speeds: torch.Tensor, begins: torch.Tensor, lengths: torch.Tensor
    ) -> torch.Tensor:
        """
        Pieces `(N,)` of clips played at their speeds, at times `(N, T)` since their beginnings, in samples: windowed
        sincs, which leave out what is above half the sampling rate.
        """
        # What is ahead of the time since, not the place itself: in float32, late places would be a hundredth off.
        ahead = since * (speeds - 1)[:, None]
        whole = since.long() + ahead.floor().long()
        share = ahead - ahead.floor()
        cutoff = SINC_ROLLOFF * (1 / speeds).clamp_max(1.0)[:, None]
        played = torch.zeros_like(share)
        for tap in range(1 - SINC_REACH, SINC_REACH + 1):
            index = whole + tap
            distance = share - tap
            weight = cutoff * torch.sinc(cutoff * distance) * torch.cos(math.pi / 2 * distance / SINC_REACH).square()
            inside = (index >= 0) & (index < lengths[:, None]) & (distance.abs() < SINC_REACH)
            index = begins[:, None] + index.clamp_min(0).minimum((lengths - 1)[:, None])
            played += torch.where(inside, weight, 0.0) * self.samples[index]
        return played

    def _lists(self, lists: Sequence[Sequence[int]]) -> Lists:
        counts = torch.tensor([len(each) for each in lists], device=self.device)
        entries = torch.tensor([entry for each in lists for entry in each], device=self.device)
        return entries, counts.cumsum(0) - counts, counts

    def _pick(self, lists: Lists, numbers: torch.Tensor, random: DeviceRandom) -> torch.Tensor:
        """One entry of each of some lists, by their numbers."""
        entries, starts, counts = lists
        return entries[starts[numbers] + random.below(counts[numbers])]


def active_rms(sounds: torch.Tensor, sampling_rate: int) -> torch.Tensor:
    """[`avgas_pipeline.data.loudness.active_rms`] of sounds `(N, T)`."""
    frame = max(round(FRAME_S * sampling_rate), 1)
    padded = torch.nn.functional.pad(sounds, (0, -sounds.shape[-1] % frame))
    power = padded.unflatten(-1, (-1, frame)).square().mean(dim=-1)
    floor = power.amax(dim=-1, keepdim=True) * 10.0 ** (-ACTIVE_RANGE_DB / 10)
    active = (power > 0) & (power >= floor)
    return ((power * active).sum(dim=-1) / active.sum(dim=-1).clamp_min(1)).sqrt()
