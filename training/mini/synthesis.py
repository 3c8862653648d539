"""
Synthetic sounds: chirps, and water that ripples, breaks, drips and splashes.

They are drawn from wide ranges, so that most are no particular sound, and some are good ones;
`make_synthetic_clips.py` keeps those that a tagger gives a name. All are mono at 16 kHz, of 1 to 6 s, without a
particular level.
"""

from collections.abc import Callable

import numpy as np
import scipy.interpolate
import scipy.signal


SAMPLING_RATE = 16000
HIGHEST_HZ = 7800.0
LOWEST_NOISE_HZ = 30.0
DB_PER_OCTAVE = 20 * np.log10(2)
# More bubbles are one noise.
MOST_BUBBLES = 12000


def chirps(rng: np.random.Generator) -> np.ndarray:
    """
    Phrases of repeated syllables `(T,)` by one to three voices, as birds, crickets and rodents have them: tones whose
    frequency runs between two to four values around 1.8 to 6 kHz, or warbles.
    """
    length = round(rng.uniform(1.0, 5.0) * SAMPLING_RATE)
    waveform = np.zeros(length)
    for voice in range(rng.choice([1, 1, 1, 2, 3])):
        base = _log_uniform(rng, 1800, 6000)
        level = _gain(-rng.uniform(0, 15)) if voice else 1.0
        syllables = [_Syllable(rng, base * rng.uniform(0.8, 1.25)) for _ in range(rng.integers(1, 5))]
        position = round(rng.uniform(0, 0.3) * SAMPLING_RATE)
        while position < length:
            syllable = syllables[rng.integers(len(syllables))]
            repetitions, gap_s = rng.choice([1, 1, 2, 3, 3, 4, 6, 10]), _log_uniform(rng, 0.01, 0.2)
            for _ in range(repetitions):
                sound = syllable.render(rng) * level * rng.uniform(0.6, 1)
                _add(waveform, sound, position)
                position += len(sound) + round(gap_s * rng.uniform(0.9, 1.1) * SAMPLING_RATE)
            position += round(_log_uniform(rng, 0.05, 1.0) * SAMPLING_RATE)
    if rng.random() < 0.7:
        waveform = _in_room(waveform, rng)
    waveform /= np.abs(waveform).max()
    waveform += _noise(length, rng.uniform(0, 6), rng) * _gain(-rng.uniform(30, 65))
    if rng.random() < 0.3:
        # Squeaks have stronger harmonics.
        waveform = np.tanh(rng.uniform(1, 8) * waveform) + rng.uniform(0, 0.5) * waveform**2
    return waveform


class _Syllable:
    """A tone that is sung again and again, each time a little different."""

    def __init__(self, rng: np.random.Generator, base_hz: float) -> None:
        corners = rng.integers(2, 5)
        self.times = np.array([0, *np.sort(rng.uniform(0.1, 0.9, corners - 2)), 1])
        span = rng.choice([0.05, 0.2, 0.5, 0.9])
        self.frequencies = base_hz * (1 + span * rng.uniform(-0.5, 0.5, corners))
        self.duration_s = _log_uniform(rng, 0.025, 0.35)
        self.warble_hz = base_hz * rng.uniform(0.03, 0.25) if rng.random() < 0.35 else 0.0
        self.warble_rate, self.warble_phase = _log_uniform(rng, 15, 150), rng.uniform(0, 2 * np.pi)
        self.tremolo = rng.uniform(0.2, 1) if rng.random() < 1 / 3 else 0.0
        self.tremolo_rate = rng.uniform(20, 120)
        self.harmonics = [
            1.0,
            rng.uniform(0.01, 0.2) * (rng.random() < 0.6),
            rng.uniform(0.01, 0.1) * (rng.random() < 0.2),
        ]
        self.attack, self.release = rng.uniform(0.05, 0.6, 2)

    def render(self, rng: np.random.Generator) -> np.ndarray:
        """It once `(T,)`, in [-1.3, 1.3]."""
        seconds = np.arange(round(self.duration_s * rng.uniform(0.9, 1.1) * SAMPLING_RATE)) / SAMPLING_RATE
        share = seconds / seconds[-1]
        frequency = np.interp(share, self.times, self.frequencies) * rng.uniform(0.97, 1.03)
        frequency += self.warble_hz * np.sin(2 * np.pi * self.warble_rate * seconds + self.warble_phase)
        frequency = np.clip(frequency, 700, HIGHEST_HZ)
        phase = 2 * np.pi * np.cumsum(frequency) / SAMPLING_RATE
        tone = sum(
            gain * np.sin(number * phase) * (number * frequency < HIGHEST_HZ)
            for number, gain in enumerate(self.harmonics, start=1)
        )
        envelope = np.clip(np.minimum(share / self.attack, 1) * np.minimum((1 - share) / self.release, 1), 0, 1)
        tremolo = 1 - self.tremolo * (0.5 + 0.5 * np.sin(2 * np.pi * self.tremolo_rate * seconds))
        return tone * np.sin(np.pi / 2 * envelope) ** 1.5 * tremolo


def water(rng: np.random.Generator) -> np.ndarray:
    """Noise that swells, bubbles, splashes and drops `(T,)`, not all of them each time."""
    length = round(rng.uniform(2, 6) * SAMPLING_RATE)
    waveform = _noise(length, 0.0, rng) * _gain(-60)
    swell = _swell(length, _log_uniform(rng, 0.4, 6), rng.uniform(3, 25), rng)
    if rng.random() < 0.85:
        waveform += (
            _noise(length, rng.uniform(0, 8), rng) * _gain(-rng.uniform(0, 20)) * swell ** rng.choice([0, 0.5, 1])
        )
        waveform += _noise(length, rng.uniform(0, 4), rng) * _gain(-rng.uniform(0, 25)) * swell
    if rng.random() < 0.8:
        lowest = _log_uniform(rng, 150, 900)
        highest = min(lowest * _log_uniform(rng, 2, 15), 6000)
        sound = _bubbles(length, _log_uniform(rng, 20, 2500), lowest, highest, rng)
        waveform += sound * _gain(rng.uniform(-20, 3)) * swell
    if rng.random() < 0.5:
        waveform += _splashes(length, _log_uniform(rng, 0.15, 2), rng) * _gain(rng.uniform(-12, 6))
    if rng.random() < 0.4:
        waveform += _drops(length, _log_uniform(rng, 5, 200), rng) * _gain(-rng.uniform(0, 20))
    return _in_room(waveform, rng) if rng.random() < 0.4 else waveform


def _bubbles(length: int, rate: float, lowest_hz: float, highest_hz: float, rng: np.random.Generator) -> np.ndarray:
    """
    `rate` air bubbles a second: sines that decay, and rise where a bubble is near the surface (van den Doel,
    "Physically based models for liquid sounds", 2005; a bubble's radius is 3 m/s over its frequency, after Minnaert).
    """
    waveform = np.zeros(length)
    count = min(rng.poisson(rate * length / SAMPLING_RATE), MOST_BUBBLES)
    for frequency in np.exp(rng.uniform(np.log(lowest_hz), np.log(highest_hz), count)):
        radius = 3 / frequency
        decay = 0.13 / radius + 0.0072 * radius**-1.5
        rise = rng.uniform(0, 0.3) * decay if rng.random() < 0.4 else 0.0
        seconds = np.arange(round(min(0.3, 6 / decay) * SAMPLING_RATE)) / SAMPLING_RATE
        sound = np.exp(-decay * seconds) * np.sin(2 * np.pi * frequency * seconds * (1 + 0.5 * rise * seconds))
        # Big bubbles are louder, and few are much louder than the others; none begins with a click.
        loudness = radius * min(rng.pareto(2), 8)
        _add(waveform, loudness * sound * np.minimum(seconds / 0.0005, 1), rng.integers(length))
    return _unit(waveform)


def _splashes(length: int, mean_gap_s: float, rng: np.random.Generator) -> np.ndarray:
    waveform = np.zeros(length)
    position = round(rng.uniform(0, 0.5) * SAMPLING_RATE)
    while position < length:
        share = np.linspace(0, 1, round(_log_uniform(rng, 0.05, 0.9) * SAMPLING_RATE))
        envelope = np.minimum(share / rng.uniform(0.02, 0.4), 1) * np.exp(-share * rng.uniform(2, 7))
        _add(waveform, _noise(len(share), rng.uniform(0, 6), rng) * envelope * _gain(-rng.uniform(0, 14)), position)
        position += round((rng.exponential(mean_gap_s) + 0.03) * SAMPLING_RATE)
    return waveform


def _drops(length: int, rate: float, rng: np.random.Generator) -> np.ndarray:
    """`rate` clicks a second, all of one short noise."""
    count = rng.poisson(rate * length / SAMPLING_RATE)
    clicks = np.zeros(length)
    clicks[rng.integers(0, length, count)] = rng.pareto(2, count)
    click = np.exp(-np.arange(200) / rng.uniform(5, 50)) * rng.standard_normal(200)
    return _unit(scipy.signal.fftconvolve(clicks, click)[:length])


def _swell(length: int, period_s: float, depth_db: float, rng: np.random.Generator) -> np.ndarray:
    """Gains that go smoothly up and down, in [0, 1]."""
    count = max(3, round(2 * length / SAMPLING_RATE / period_s) + 2)
    curve = scipy.interpolate.PchipInterpolator(np.linspace(0, 1, count), rng.uniform(-depth_db, 0, count))
    return _gain(curve(np.linspace(0, 1, length)))


def _noise(length: int, slope_db: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of RMS 1 whose power falls by so many dB per octave."""
    frequencies = np.maximum(np.fft.rfftfreq(length, 1 / SAMPLING_RATE), LOWEST_NOISE_HZ)
    spectrum = np.fft.rfft(rng.standard_normal(length)) * frequencies ** (-slope_db / DB_PER_OCTAVE)
    return _unit(np.fft.irfft(spectrum, length))


def _in_room(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """With reverberation of 0.15 to 1.5 s, 3 to 20 dB below."""
    length = round(_log_uniform(rng, 0.15, 1.5) * SAMPLING_RATE)
    response = rng.standard_normal(length) * _gain(np.linspace(0, -60, length))
    response *= _gain(-rng.uniform(3, 20)) / np.sqrt(np.square(response).sum())
    return waveform + scipy.signal.fftconvolve(waveform, response)[: len(waveform)]


def _add(waveform: np.ndarray, sound: np.ndarray, position: int) -> None:
    """Add what fits of a sound, in place."""
    piece = waveform[position : position + len(sound)]
    piece += sound[: len(piece)]


def _unit(waveform: np.ndarray) -> np.ndarray:
    """At an RMS of 1; silence as it is."""
    return waveform / (np.sqrt(np.mean(np.square(waveform))) or 1.0)


def _log_uniform(rng: np.random.Generator, lowest: float, highest: float) -> float:
    return float(np.exp(rng.uniform(np.log(lowest), np.log(highest))))


def _gain(db: float | np.ndarray) -> float | np.ndarray:
    return 10 ** (db / 20)


KINDS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {"chirps": chirps, "water": water}
