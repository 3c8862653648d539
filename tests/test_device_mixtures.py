"""`DeviceMixer` makes what `MixtureSampler` makes, a batch at a time, and training goes on with it exactly."""

from types import SimpleNamespace

import forked
import numpy as np
import pytest
import scipy.signal
import torch
import training_runs as runs
from device_effects import equaliser, noise_floor, ring_on, room, vary
from device_mixtures import DeviceMixer, active_rms
from hypothesis import given, settings
from hypothesis import strategies as st
from randomness import DeviceRandom, RowRandom
from run import Run
from training_inputs import write_training_inputs

from avgas_pipeline.data import augment, loudness
from avgas_pipeline.data.mixtures import REFERENCE_LEVEL, MixtureSampler


RATE = 16000
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Read-only by convention."""
    return write_training_inputs(tmp_path_factory.mktemp("training"))


def noise(seconds, seed):
    wave = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return {"array": wave.clip(-1, 1).astype(np.float32), "sampling_rate": RATE}


def seeded_noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def clips():
    """Long, middling and short ones, of labels with one, two and three recordings."""
    lengths = {"long": (9.0,), "middling": (3.5, 4.0), "short": (0.2, 0.3, 0.5), "tiny": (0.01, 1.0)}
    return [
        {
            "id": f"{label}-{number}",
            "label": label,
            "source_group": f"{label}-{number}",
            "audio": noise(seconds, number),
        }
        for label, all_seconds in lengths.items()
        for number, seconds in enumerate(all_seconds)
    ]


def mixer(**options):
    sampler = MixtureSampler(clips(), target=None, **options)
    return DeviceMixer(sampler, {label: 10 + number for number, label in enumerate(sampler.labels)}, CPU)


def is_active(stems):
    return stems.abs().amax(dim=-1) > 0


def test_mixtures_are_sums_with_as_many_sources_as_labels():
    waveform, stems, labels, rows = mixer(num_sources=(1, 3), augment=0.5).mix(0, 40)
    assert waveform.shape == (40, 80000) and stems.shape == (40, 3, 80000) and rows is None
    assert torch.equal(waveform, stems.sum(dim=1))
    assert torch.equal(is_active(stems), labels >= 0)
    assert set((labels >= 0).sum(dim=1).tolist()) == {1, 2, 3}
    assert set(labels[labels >= 0].tolist()) == {10, 11, 12, 13}
    for row in labels.tolist():
        known = [label for label in row if label >= 0]
        assert len(set(known)) == len(known)
    assert waveform.abs().max() <= 0.991


def test_batches_depend_on_seed_and_number_alone():
    first, again = mixer(augment=True).mix(5, 8), mixer(augment=True).mix(5, 8)
    assert all(torch.equal(one, other) for one, other in zip(first[:3], again[:3], strict=True))
    assert not torch.equal(first[0], mixer(augment=True).mix(6, 8)[0])
    assert not torch.equal(first[0], mixer(augment=True, seed=1).mix(5, 8)[0])


def test_levels_are_those_that_are_drawn():
    _, stems, labels, _ = mixer(num_sources=1, gain_range_db=0.0).mix(0, 16)
    for stem in stems[labels >= 0]:
        assert loudness.active_rms(stem.numpy(), RATE) == pytest.approx(REFERENCE_LEVEL, rel=1e-4)
    _, stems, labels, _ = mixer(num_sources=1, gain_range_db=6.0).mix(0, 200)
    decibels = 20 * torch.log10(active_rms(stems[labels >= 0], RATE) / REFERENCE_LEVEL)
    assert decibels.min() == pytest.approx(-6, abs=0.5) and decibels.max() == pytest.approx(6, abs=0.5)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 2000), st.integers(0, 2**31))
def test_active_rms_is_the_packages(length, seed):
    sound = np.random.default_rng(seed).standard_normal(length).astype(np.float32)
    sound[length // 3 : length // 2] *= 1e-4
    got = active_rms(torch.from_numpy(sound)[None], RATE).item()
    assert got == pytest.approx(loudness.active_rms(sound, RATE), rel=1e-4)


@pytest.mark.parametrize("label", ["long", "middling", "short"])
def test_what_is_not_varied_is_the_clip_as_it_was_recorded(label):
    """Up to its level, each sound is a piece of the clip: it correlates fully, away from fades."""
    only = [clip for clip in clips() if clip["label"] == label][:1]
    sampler = MixtureSampler(only, num_sources=1, target=None)
    _, stems, _, _ = DeviceMixer(sampler, {label: 0}, CPU).mix(0, 12)
    clip = only[0]["audio"]["array"]
    for stem in stems[:, 0].numpy():
        begin = np.flatnonzero(stem)[0]
        piece = stem[begin + 100 : begin + min(len(clip), len(stem) - begin) - 100]
        correlation = scipy.signal.correlate(clip, piece, mode="valid")
        at = int(np.abs(correlation).argmax())
        part = clip[at : at + len(piece)]
        assert correlation[at] / (np.linalg.norm(part) * np.linalg.norm(piece)) == pytest.approx(1, abs=1e-5)


def test_short_clips_are_repeated_and_others_not():
    sampler = MixtureSampler([clip for clip in clips() if clip["id"] == "short-1"], num_sources=1, target=None)
    _, stems, _, _ = DeviceMixer(sampler, {"short": 0}, CPU).mix(0, 200)
    sounding = (torch.nn.functional.max_pool1d(stems.abs(), 401, 1, 200) > 0)[:, 0].int()
    onsets = (sounding.diff(dim=1) == 1).sum(dim=1) + sounding[:, 0]
    assert (onsets == 1).float().mean() == pytest.approx(0.4, abs=0.12)
    # 0.3 s, and gaps of 0.3 to 1.5 times that and 0.05 to 0.4 s more.
    assert onsets.max() <= 5 / (0.3 * 1.3 + 0.05) + 1
    assert onsets.float().mean() > 3


def test_chances_of_labels():
    _, _, labels, _ = mixer(num_sources=1, duration_s=0.5).mix(0, 2000)
    shares = [(labels == number).float().mean().item() for number in range(10, 14)]
    assert shares == pytest.approx([1 / 4] * 4, abs=0.04)
    _, _, labels, _ = mixer(num_sources=1, duration_s=0.5, balance="source_group").mix(0, 2000)
    shares = [(labels == number).float().mean().item() for number in range(10, 14)]
    assert shares == pytest.approx([1 / 8, 2 / 8, 3 / 8, 2 / 8], abs=0.04)


def peak_hz(sound):
    return np.abs(np.fft.rfft(sound * np.hanning(len(sound)))).argmax() * RATE / len(sound)


def tone_clip(frequency, seconds=8.0):
    wave = 0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)
    return {
        "id": "tone",
        "label": "tone",
        "source_group": "tone",
        "audio": {"array": wave.astype(np.float32), "sampling_rate": RATE},
    }


def only_speed(monkeypatch):
    monkeypatch.setattr("device_mixtures.vary", lambda sounds, *_: sounds)
    monkeypatch.setattr("device_mixtures.SPEED_PROBABILITY", 1.0)


def test_speeds_move_a_tone_as_far_as_they_say(monkeypatch):
    only_speed(monkeypatch)
    sampler = MixtureSampler([tone_clip(1000.0)], num_sources=1, augment=True, target=None)
    stems = DeviceMixer(sampler, {"tone": 0}, CPU).mix(0, 32)[1][:, 0].numpy()
    found = [peak_hz(stem[16000:48000]) for stem in stems]
    assert 1000 / 1.15 - 2 <= min(found) < 910 and 1110 < max(found) <= 1150 + 2


@pytest.mark.parametrize("frequency", [4000.0, 6000.0, 7900.0])
def test_speeds_add_no_other_tones(monkeypatch, frequency):
    """Not of a tone that stays below half the sampling rate, nor of one that does not always."""
    only_speed(monkeypatch)
    clip, other = tone_clip(1000.0), tone_clip(frequency)
    clip["audio"]["array"] += other["audio"]["array"]
    sampler = MixtureSampler([clip], num_sources=1, augment=True, target=None)
    hertz = np.fft.rfftfreq(32000, 1 / RATE)
    for stem in DeviceMixer(sampler, {"tone": 0}, CPU).mix(0, 16)[1][:, 0].numpy():
        power = np.abs(np.fft.rfft(stem[16000:48000] * np.hanning(32000))) ** 2
        speed = hertz[power[hertz < 1500].argmax()] / 1000
        # Filters are not as steep as that a tone just above would be gone.
        is_other = (hertz < 7300) & (abs(hertz - 1000 * speed) > 20) & (abs(hertz - frequency * speed) > 20)
        assert 10 * np.log10(power[is_other].sum() / power.sum()) < -38


def test_only_a_fraction_is_varied_and_the_rest_is_not():
    options = {"num_sources": 1, "gain_range_db": 0.0, "duration_s": 1.0}
    plain, half, always = (mixer(augment=share, **options).mix(0, 100)[1] for share in (0.0, 0.5, 1.0))
    differs = [(plain != other).flatten(1).any(dim=1).float().mean().item() for other in (half, always)]
    # Some of those that are varied have no effect.
    assert 0.3 < differs[0] < 0.6 and differs[1] > 0.8


def test_pieces_are_cut_around_what_sounds():
    """A burst of half a second in 20 s of silence is in every window, whole or in part."""
    wave = np.zeros(20 * RATE, np.float32)
    wave[9 * RATE : 9 * RATE + RATE // 2] = 0.3 * np.random.default_rng(0).standard_normal(RATE // 2)
    clip = {**tone_clip(1.0), "audio": {"array": wave, "sampling_rate": RATE}}
    sampler = MixtureSampler([clip], num_sources=1, augment=0.5, target=None)
    _, stems, labels, _ = DeviceMixer(sampler, {"tone": 0}, CPU).mix(0, 100)
    assert (labels == 0).all()
    begins = (stems[:, 0].abs() > 1e-4).int().argmax(dim=1) / RATE
    # A moment of the burst is at 0.5 to 4.5 s, and rooms and noise come after it.
    assert begins.min() >= 0 and begins.max() <= 4.6 and begins.std() > 0.8


@pytest.mark.parametrize("seconds", [10.0, 4.9, 5.0])
def test_a_slower_clip_is_still_heard(seconds):
    """Its only sound is in its last 0.3 s."""
    wave = np.concatenate([np.zeros(round((seconds - 0.3) * RATE)), tone_clip(1000.0, 0.3)["audio"]["array"]])
    clip = {**tone_clip(1.0), "audio": {"array": wave.astype(np.float32), "sampling_rate": RATE}}
    sampler = MixtureSampler([clip], num_sources=1, augment=True, target=None)
    _, stems, labels, _ = DeviceMixer(sampler, {"tone": 0}, CPU).mix(0, 40)
    assert (labels == 0).all()
    power = torch.fft.rfft(stems[:, 0]).abs().square()
    assert (power[:, 840 * 5 : 1180 * 5].sum(dim=1) > 0.3 * power.sum(dim=1)).all()


def test_pictures_are_the_clips_own_or_of_its_label():
    own = [{**clip, "image": None} for clip in clips()]
    rows = {clip["id"]: number for number, clip in enumerate(own)}
    sampler = MixtureSampler(own, num_sources=(1, 2), target=None)
    label2id = {label: number for number, label in enumerate(sampler.labels)}
    _, _, labels, pictures = DeviceMixer(sampler, label2id, CPU, rows).mix(0, 64)
    assert torch.equal(pictures >= 0, labels >= 0)
    of_clips = [sampler.labels.index(clip["label"]) for clip in own]
    assert all(
        of_clips[row] == label for row, label in zip(pictures.flatten(), labels.flatten(), strict=True) if row >= 0
    )
    assert set(pictures[pictures >= 0].tolist()) == set(range(len(own)))

    shared = [
        {"id": f"{label}-picture-{number}", "label": label, "image": None}
        for label in sampler.labels
        for number in range(2)
    ]
    sampler = MixtureSampler(clips(), shared, num_sources=1, target=None)
    rows = {picture["id"]: number for number, picture in enumerate(shared)}
    _, _, labels, pictures = DeviceMixer(sampler, label2id, CPU, rows).mix(0, 64)
    assert torch.equal(pictures // 2, labels) and set((pictures % 2).flatten().tolist()) == {0, 1}


@pytest.mark.parametrize(("processes", "accumulation"), [(1, 1), (2, 1), (3, 2)])
def test_processes_and_resumed_runs_share_all_batches(processes, accumulation):
    def numbers(process, step):
        accelerator = SimpleNamespace(num_processes=processes, process_index=process)
        run = SimpleNamespace(
            accelerator=accelerator, accumulation=accumulation, config=SimpleNamespace(max_train_steps=5)
        )
        return list(Run.batch_numbers(run, step))

    everything = sorted(number for process in range(processes) for number in numbers(process, 0))
    assert everything == list(range(5 * processes * accumulation))
    for process in range(processes):
        assert numbers(process, 0)[2 * accumulation :] == numbers(process, 2)


def test_silent_clip():
    silent = [*clips(), {"id": "none", "label": "none", "source_group": "none", "audio": noise(1, 0)}]
    silent[-1]["audio"]["array"][:] = 0
    with pytest.raises(ValueError, match="'none' is silent"):
        DeviceMixer(
            MixtureSampler(silent, target=None), dict.fromkeys(["long", "middling", "none", "short", "tiny"], 0), CPU
        )


def test_what_one_seed_draws_another_does_not():
    """Generators on the CPU look at 32 bits of a seed alone."""
    drawn = [RowRandom(seed, range(4)).normal((4, 8), CPU) for seed in (0, 1, 2**31 - 1)]
    assert torch.equal(drawn[0][2:], RowRandom(0, range(2, 4)).normal((2, 8), CPU))
    assert len({tuple(row.tolist()) for rows in drawn for row in rows}) == 12


# -- effects --------------------------------------------------------------------------------------------------------


def test_equaliser_has_the_gains_of_the_packages():
    frequencies = torch.fft.rfftfreq(4096, 1 / RATE)
    gains_db = 20 * torch.log10(equaliser(200, frequencies, RATE, DeviceRandom(0, 0, CPU)))
    assert gains_db.abs().max() <= augment.EQUALISER_DB + 1e-3
    assert gains_db.min() < -8 and gains_db.max() > 8
    # Below the first anchor all is alike, and between anchors nothing jumps.
    assert torch.allclose(gains_db[:, 0], gains_db[:, 10], atol=1e-3)
    assert gains_db[:, 15:].diff(dim=1).abs().max() < 2


def test_rooms_decay():
    impulses = room(torch.full((100,), 0.4), RATE, DeviceRandom(0, 0, CPU))
    assert torch.equal(impulses[:, 0], torch.ones(100))
    tails_db = 20 * torch.log10(impulses[:, 1:].norm(dim=1))
    assert tails_db.min() > -16 and tails_db.max() < -2
    early, late = impulses[:, 1:800].square().mean(dim=1), impulses[:, 3201:4000].square().mean(dim=1)
    # 30 dB after half of the decay.
    assert torch.allclose(10 * torch.log10(late / early), torch.full((100,), -30.0), atol=3)
    assert (impulses[:, round(0.4 * RATE) :] == 0).all()


def test_rooms_ring_on_after_every_sound_and_no_longer():
    envelopes = torch.zeros(1, 1000)
    envelopes[0, 100:200] = envelopes[0, 600:700] = 1
    longer = ring_on(envelopes, torch.tensor([100.0]))[0]
    assert (longer[:100] == 0).all() and (longer[100:285] == 1).all() and (longer[300:600] == 0).all()
    assert (longer[600:785] == 1).all() and (longer[800:] == 0).all() and longer.diff().abs()[200:500].max() < 0.11


def test_noise_floor_is_as_far_below_as_it_says_and_only_where_a_sound_is():
    sounds, envelopes = seeded_noise(100, RATE), torch.ones(100, RATE)
    envelopes[:, : RATE // 2] = 0
    floor = noise_floor(sounds * envelopes, envelopes, DeviceRandom(0, 0, CPU))
    assert (floor[:, : RATE // 2] == 0).all()
    below_db = -20 * torch.log10(floor[:, RATE // 2 :].square().mean(dim=1).sqrt())
    assert 24 < below_db.min() < 30 and 55 < below_db.max() < 61


def test_a_short_sound_in_a_room_gets_no_noise_before_it_and_long_after_it():
    sounds, envelopes = torch.zeros(100, 3 * RATE), torch.zeros(100, 3 * RATE)
    sounds[:, RATE : RATE + 4000] = seeded_noise(100, 4000)
    envelopes[:, RATE : RATE + 4000] = 1
    varied = vary(sounds, envelopes, torch.full((100,), 0.2), RATE, DeviceRandom(0, 0, CPU))
    loudest = varied.abs().amax(dim=1, keepdim=True)
    # Zero-phase filters ring a little.
    assert ((varied / loudest)[:, : RATE - 2000].abs() < 1e-2).all()
    assert ((varied / loudest)[:, RATE + 4000 + round(0.25 * RATE) :].abs() < 1e-2).all()


def test_equaliser_at_low_rates_is_finite():
    frequencies = torch.fft.rfftfreq(4096, 1 / 8000)
    assert torch.isfinite(equaliser(10, frequencies, 8000, DeviceRandom(0, 0, CPU))).all()


def test_vary_keeps_some_sounds_and_changes_others():
    sounds = seeded_noise(200, RATE)
    varied = vary(sounds, torch.ones_like(sounds), torch.zeros(200), RATE, DeviceRandom(0, 0, CPU))
    assert varied.shape == sounds.shape and torch.isfinite(varied).all()
    same = ((varied - sounds).abs().amax(dim=1) < 1e-4).float().mean().item()
    # Neither equaliser, noise nor band limit.
    assert same == pytest.approx(0.5 * 0.6 * 0.7, abs=0.09)
    # Only a band limit takes away all of the highest frequencies.
    top = torch.fft.rfft(varied).abs()[:, -400:].mean(dim=1) / torch.fft.rfft(sounds).abs()[:, -400:].mean(dim=1)
    assert (top < 0.02).float().mean().item() == pytest.approx(augment.BAND_PROBABILITY, abs=0.1)


# -- training -------------------------------------------------------------------------------------------------------


def command(inputs, out, **changed):
    options = {"image_encoder": inputs / "image-encoder", "encoder_learning_rate": 1e-3, "mix_on_device": True}
    options |= {"max_train_steps": 8, "checkpointing_steps": 4}
    return runs.command("train_separator.py", inputs, out, **options, **changed)


def test_killed_run_goes_on_exactly(inputs, tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    result = forked.run(command(inputs, straight))
    assert result.returncode == 0, result.stderr
    runs.kill_after(killed / "checkpoint-4", command(inputs, killed))
    result = forked.run(command(inputs, killed, resume_from_checkpoint="latest"))
    assert result.returncode == 0, result.stderr
    expected = runs.curve(straight, "loss")
    assert runs.curve(killed, "loss") == pytest.approx(expected, abs=1e-6)
    for name in ("a2a", "a2v", "mask", "label"):
        assert np.isfinite(list(runs.curve(straight, name).values())).all()
    for name, tensor in runs.weights(straight, "separator").items():
        assert torch.equal(tensor, runs.weights(killed, "separator")[name]), name


def test_repeated_examples_are_refused(inputs, tmp_path):
    result = forked.run(command(inputs, tmp_path / "run", repeat_examples=True))
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "mix_on_device makes new mixtures for every batch" in result.stderr
