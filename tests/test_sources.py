import numpy as np
import pytest
import torch
import torch.nn.functional as F

from avgas_pipeline.audio.spectrogram import istft, mask_to_bins, mel_bands, relative_log_mel, stft
from avgas_pipeline.audio.windows import iter_windows
from avgas_pipeline.models.separator import AudioVisualSeparatorOutput
from avgas_pipeline.separation.encoding import align_views, average_views
from avgas_pipeline.separation.rendering import render
from avgas_pipeline.separation.tracking import present_slots
from avgas_pipeline.separation.tracking import track as track_windows


RATE, N_FFT, HOP, BANDS = 16000, 512, 128, 40
LABELS = {0: "low", 1: "high", 2: "other"}


def slots(presence, labels, directions, masks=None):
    """A separator's output for W windows of K slots: probabilities, label indices, embedding axes, masks."""
    presence, labels = torch.tensor(presence, dtype=torch.float32), torch.tensor(labels)
    embeds = F.normalize(
        torch.stack([torch.stack([torch.tensor(v, dtype=torch.float32) for v in w]) for w in directions]), dim=-1
    )
    return AudioVisualSeparatorOutput(
        presence_logits=torch.logit(presence),
        class_logits=10.0 * F.one_hot(labels, 4).float(),
        audio_embeds=embeds,
        visual_embeds=embeds,
        condition_tokens=torch.arange(presence.numel()).float().view(*presence.shape, 1, 1),
        null_tokens=torch.zeros(1, 1),
        mask_logits=None if masks is None else torch.logit(masks, eps=1e-7),
    )


def track_views(*outputs, **options):
    """The sources of one window, of which each output is a view."""
    return track_windows([average_views(align_views(0, [(output, 0) for output in outputs]))], **options)


def track(output, **options):
    windows = [average_views(align_views(row, [(output, row)])) for row in range(len(output.presence_logits))]
    return track_windows(windows, **options)


X, Y, Z = (1, 0, 0), (0, 1, 0), (0, 0, 1)


def test_slots_from_the_threshold_on_are_present_most_certain_first():
    found = track(slots([[0.6, 0.2, 0.9]], [[0, 1, 2]], [[X, Y, Z]]))
    assert [t.label_index for t in found] == [2, 0]
    assert [t.score for t in found] == pytest.approx([0.9, 0.6], abs=1e-5)
    assert track(slots([[0.6, 0.2, 0.9]], [[0, 1, 2]], [[X, Y, Z]]), presence_threshold=0.95) == []


@pytest.mark.parametrize(
    ("presence", "labels", "expected"),
    [
        # 1.9 are expected.
        ([0.9, 0.45, 0.35, 0.2], [0, 1, 2, 3], [0, 1]),
        # 1.4, and 1.6.
        ([0.9, 0.3, 0.2, 0.0], [0, 1, 2, 3], [0]),
        ([0.9, 0.45, 0.25, 0.0], [0, 1, 2, 3], [0, 1]),
        # 0.49, and 0.51.
        ([0.3, 0.1, 0.05, 0.04], [0, 1, 2, 3], []),
        ([0.3, 0.1, 0.06, 0.05], [0, 1, 2, 3], [0]),
        # None is likely, however many there are.
        ([0.19, 0.18, 0.17, 0.16], [0, 1, 2, 3], []),
        # Another label takes the place of one that is there already.
        ([0.9, 0.8, 0.3, 0.25], [0, 0, 1, 2], [0, 1]),
        # The likelier of two that are expected as one.
        ([0.55, 0.52, 0.1, 0.1], [0, 1, 2, 3], [0]),
    ],
)
def test_as_many_sources_as_are_expected_without_a_threshold(presence, labels, expected):
    output = slots([presence], [labels], [np.eye(4)])
    assert [t.label_index for t in track(output)] == expected


def test_only_slots_that_can_become_sources_keep_tokens_and_masks():
    output = slots([[0.9, 0.3, 0.25]], [[0, 1, 2]], [[X, Y, Z]], torch.full((1, 3, BANDS, 5), 0.5))
    window = average_views(align_views(0, [(output, 0)]), present_slots)
    assert [slot.mask is not None for slot in window.slots] == [True, False, False]
    assert [bool(slot.tokens_by_label) for slot in window.slots] == [True, False, False]
    # Their presence still counts.
    assert [slot.presence for slot in window.slots] == pytest.approx([0.9, 0.3, 0.25], abs=1e-5)
    assert [t.label_index for t in track_windows([window])] == [0]


def test_tracking_changes_nothing_that_it_is_given():
    masks = torch.full((2, 2, BANDS, 5), 0.5)
    output = slots([[0.9, 0.8], [0.7, 0.9]], [[0, 0], [0, 1]], [[X, X], [X, Y]], masks)
    windows = [average_views(align_views(row, [(output, row)])) for row in range(2)]
    assert [t.score for t in track_windows(windows)] == [t.score for t in track_windows(windows)]
    assert all(np.all(slot.mask == np.float16(0.5)) for window in windows for slot in window.slots)


def test_expected_sources_have_all_the_sound_of_their_labels():
    masks = torch.stack([torch.full((BANDS, 5), value) for value in (0.6, 0.8, 0.9, 0.5)])[None]
    first, second = track(slots([[0.9, 0.4, 0.8, 0.1]], [[0, 0, 1, 0]], [np.eye(4)], masks))
    assert np.allclose(first.masks[0], 1.0, atol=1e-3) and np.allclose(second.masks[0], 0.9, atol=1e-3)


def test_num_sources_takes_the_most_probable():
    output = slots([[0.1, 0.2, 0.05], [0.3, 0.1, 0.9]], [[0, 1, 2], [0, 1, 2]], [[X, Y, Z], [X, Y, Z]])
    assert [t.label_index for t in track(output, num_sources=1)] == [2]
    assert [t.label_index for t in track(output, num_sources=2)] == [2, 0]
    assert len(track(output, num_sources=3)) == 3


def test_num_sources_keeps_a_present_source_in_every_window():
    swapping = slots([[0.95, 0.9], [0.9, 0.95]] * 2, [[0, 1]] * 4, [[X, Y]] * 4, torch.full((4, 2, BANDS, 5), 0.5))
    (kept,) = track(swapping, num_sources=1)
    assert sorted(kept.masks) == [0, 1, 2, 3]


def test_slots_that_are_not_present_stand_by_only():
    masks = torch.full((2, 3, BANDS, 5), 0.5)
    output = slots([[0.95, 0.9, 0.01], [0.001, 0.002, 0.1]], [[0, 1, 2]] * 2, [[X, Y, Z]] * 2, masks)
    two, three = track(output, num_sources=2), track(output, num_sources=3)
    # The quiet window adds nothing to present sources, and fills up what is missing.
    assert [(t.label_index, sorted(t.masks)) for t in two] == [(0, [0]), (1, [0])]
    assert [(t.label_index, sorted(t.masks)) for t in three[:2]] == [(0, [0]), (1, [0])]
    assert three[2].label_index == 2 and three[2].score == pytest.approx(0.1, abs=1e-5)


def test_pairs_that_are_too_far_apart_do_not_spoil_the_others():
    # Similarities .60 .45 / .48 -.60: the sum is largest for pairs that are both below 0.5.
    first = [(1, 0, 0, 0), (0, 1, 0, 0)]
    second = [(0.6, 0.48, 0.64, 0), (0.45, -0.6, 0, 0.66)]
    output = slots([[0.9, 0.9], [0.9, 0.9]], [[0, 1], [2, 3]], [first, second])
    assert len(track(output)) == 3


def test_windows_are_merged_by_embedding_whatever_the_slot():
    near_x = (0.9, 0.3, 0.1)
    found = track(slots([[0.9, 0.8], [0.7, 0.95]], [[0, 1], [1, 0]], [[X, Y], [Y, near_x]]))
    assert [t.label_index for t in found] == [0, 1]
    assert found[0].score == pytest.approx(0.95, abs=1e-5)
    # The tokens are those of the window where it is most certain: slot 1 of window 1.
    assert found[0].condition_tokens.item() == 3


def test_a_source_is_drawn_as_the_label_that_it_is_given():
    # Most certain in window 1, as label 2; in all, label 0.
    found = track(slots([[0.8, 0.1], [0.9, 0.1], [0.7, 0.1]], [[0, 1], [2, 1], [0, 1]], [[X, Y]] * 3))
    assert [(t.label_index, t.condition_tokens.item()) for t in found] == [(0, 0)]
    assert found[0].score == pytest.approx(0.9, abs=1e-5)


def test_different_sources_stay_apart():
    found = track(slots([[0.9, 0.1], [0.8, 0.1]], [[0, 1], [1, 2]], [[X, Y], [Y, Z]]))
    assert [t.label_index for t in found] == [0, 1]


def test_a_shared_label_is_one_source():
    assert len(track(slots([[0.9, 0.1], [0.8, 0.1]], [[0, 1], [0, 2]], [[X, Y], [Z, Y]]))) == 1


def test_slots_of_one_window_with_one_label_are_one_source():
    masks = torch.stack([torch.full((BANDS, 5), value) for value in (0.6, 0.8, 0.9)])[None]
    found = track(slots([[0.8, 0.9, 0.7]], [[0, 0, 1]], [[X, Y, Z]], masks))
    assert [(t.label_index, t.condition_tokens.item()) for t in found] == [(0, 1), (1, 2)]
    assert found[0].score == pytest.approx(0.9, abs=1e-5)
    # Their shares of energy add up: 0.36 and 0.64.
    assert np.allclose(found[0].masks[0], 1.0, atol=1e-3) and np.allclose(found[1].masks[0], 0.9, atol=1e-3)


@pytest.mark.parametrize(
    ("presence", "labels", "expected"),
    [
        ([0.95, 0.9, 0.1], [0, 0, 1], [[0], [0, 1], [0, 0, 1]]),
        ([0.95, 0.9, 0.85, 0.1], [0, 0, 0, 1], [[0], [0, 1], [0, 0, 1], [0, 0, 0, 1]]),
        ([0.95, 0.3, 0.25, 0.1], [0, 0, 0, 1], [[0], [0, 1], [0, 0, 1]]),
        ([0.95, 0.3, 0.25, 0.1], [0, 1, 1, 2], [[0], [0, 1], [0, 1, 2], [0, 1, 1, 2]]),
    ],
)
def test_num_sources_takes_other_labels_before_one_twice(presence, labels, expected):
    output = slots([presence], [labels], [np.eye(4)[: len(labels)]])
    for count, wanted in enumerate(expected, start=1):
        assert [t.label_index for t in track(output, num_sources=count)] == wanted


@pytest.mark.parametrize("num_sources", [None, 1])
def test_a_source_has_all_the_sound_of_its_label(num_sources):
    masks = torch.stack([torch.full((BANDS, 5), value) for value in (0.6, 0.8)])[None]
    (found,) = track(slots([[0.9, 0.8]], [[0, 0]], [[X, Y]], masks), num_sources=num_sources)
    assert np.allclose(found.masks[0], 1.0, atol=1e-3)


def test_sources_that_come_to_have_the_same_label_are_one():
    output = slots([[0.9, 0.8], [0.9, 0.1]], [[0, 1], [0, 2]], [[X, Y], [X, Z]])
    # The first slot may be 0 or 1 in window 0, and 1 or 2 in window 1.
    output.class_logits[0, 0] = torch.tensor([0.50, 0.45, 0.04, 0.01]).log()
    output.class_logits[1, 0] = torch.tensor([0.01, 0.47, 0.51, 0.01]).log()
    assert [t.label_index for t in track(output)] == [1]


def test_slots_of_one_window_are_never_merged_by_their_embeddings():
    assert len(track(slots([[0.9, 0.9], [0.9, 0.9]], [[0, 1], [0, 1]], [[X, X], [X, X]]))) == 2


def test_views_of_a_window_are_averaged():
    """Slots of the other views are in another order, and the third is unsure of what the first two say."""
    first = slots([[0.9, 0.6, 0.1]], [[0, 1, 2]], [[X, Y, Z]])
    second = slots([[0.2, 0.7, 0.5]], [[2, 0, 1]], [[Z, X, Y]])
    third = slots([[0.2, 0.3, 0.8]], [[2, 2, 3]], [[Y, Z, X]])
    found = track_views(first, second, third, num_sources=3)
    assert [t.score for t in found] == pytest.approx([0.8, 1.3 / 3, 0.2], abs=1e-5)
    assert [t.label_index for t in found] == [0, 1, 2]
    # 0.9 and 0.7 for label 0 against 0.8 for label 3.
    assert found[0].class_probs.sum().item() == pytest.approx(0.8, abs=1e-5)
    assert found[0].class_probs[3].item() == pytest.approx(0.8 / 3, abs=1e-3)
    assert np.allclose(found[0].audio_embed, 0.8 * np.array(X), atol=1e-5)


def test_the_other_views_outvote_the_first():
    first = slots([[0.9]], [[0]], [[X]])
    others = [slots([[0.8]], [[1]], [[X]]), slots([[0.7]], [[1]], [[X]])]
    for number, other in enumerate(others, start=1):
        other.condition_tokens += 10 * number
    (found,) = track_views(first, *others)
    assert found.label_index == 1
    # It is drawn as the most certain view that gives it this label.
    assert found.condition_tokens.item() == 10


def test_the_surer_view_decides_on_the_label():
    first, unsure = slots([[0.9]], [[0]], [[X]]), slots([[0.1]], [[1]], [[X]])
    (found,) = track_views(first, unsure, unsure, num_sources=1)
    assert found.label_index == 0
    assert found.class_probs[0].item() == pytest.approx(0.9 / 3, abs=1e-3)


def test_masks_are_of_the_first_view():
    masks = [torch.full((1, 2, BANDS, 5), value) for value in (0.25, 0.75)]
    first = slots([[0.9, 0.8]], [[0, 1]], [[X, Y]], masks[0])
    second = slots([[0.8, 0.9]], [[1, 0]], [[Y, X]], masks[1])
    assert all(np.allclose(found.masks[0], 0.25, atol=1e-3) for found in track_views(first, second))


@pytest.mark.parametrize(("n_fft", "hop_length"), [(N_FFT, HOP), (400, 160), (512, 300)])
def test_stft_is_inverted(n_fft, hop_length):
    waveform = torch.randn(3, 5000, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(istft(stft(waveform, n_fft, hop_length), n_fft, hop_length, 5000), waveform, atol=1e-5)


def test_mel_bands_share_out_every_bin():
    bands = mel_bands(N_FFT, RATE, BANDS)
    assert bands.shape == (BANDS, N_FFT // 2 + 1)
    assert torch.allclose(bands.sum(dim=0), torch.ones(N_FFT // 2 + 1), atol=1e-6)
    assert torch.allclose(mask_to_bins(torch.full((BANDS, 7), 0.3), N_FFT, RATE), torch.full((257, 7), 0.3), atol=1e-6)


def test_log_mel_ignores_level_and_takes_silence():
    waveform = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    loud, quiet = (relative_log_mel(stft(gain * waveform, N_FFT, HOP), RATE, BANDS) for gain in (1.0, 1e-4))
    assert torch.allclose(loud, quiet, atol=1e-3)
    assert loud.max() == 1 and loud.min() >= 0
    assert torch.isfinite(relative_log_mel(stft(torch.zeros(5000), N_FFT, HOP), RATE, BANDS)).all()


def si_sdr(estimate, target):
    scale = np.dot(estimate, target) / np.dot(target, target)
    return 10 * np.log10(np.sum((scale * target) ** 2) / np.sum((estimate - scale * target) ** 2))


@pytest.mark.parametrize("seconds", [0.4, 1.0, 3.7])
def test_band_masks_separate_tones_over_windows(seconds):
    time = np.arange(round(seconds * RATE)) / RATE
    low, high = 0.3 * np.sin(2 * np.pi * 300 * time), 0.3 * np.sin(2 * np.pi * 4000 * time)
    # The high tone is only in the second half.
    high *= time > seconds / 2
    waveform = (low + high).astype(np.float32)
    windows = list(iter_windows(waveform, RATE, RATE // 2 // HOP * HOP))
    masks = torch.zeros(len(windows), 2, BANDS, RATE // HOP + 1)
    masks[:, 0, :20], masks[:, 1, 20:] = 1.0, 1.0
    output = slots([[0.9, 0.8]] * len(windows), [[0, 1]] * len(windows), [[X, Y]] * len(windows), masks)

    sources = render(track(output), waveform, windows, LABELS, RATE, N_FFT, HOP)

    assert [source.label for source in sources] == ["low", "high"]
    for source, target in zip(sources, (low, high), strict=True):
        assert source.audio.shape == waveform.shape and source.audio.dtype == np.float32
        assert si_sdr(source.audio, target) > 20
    activity = sources[1].activity
    assert activity.shape == (len(waveform) // HOP + 1,)
    assert sources[1].activity_hop_s * (len(activity) - 1) == pytest.approx(seconds, abs=0.01)
    quarter = len(activity) // 4
    assert activity[: 2 * quarter - 8].max() < 0.05
    assert activity[2 * quarter + 8 : -8].min() == pytest.approx(0.5, abs=0.05)


def test_full_masks_give_the_soundscape_back():
    rng = np.random.default_rng(0)
    waveform = rng.uniform(-0.5, 0.5, 40000).astype(np.float32)
    windows = list(iter_windows(waveform, RATE, 8000 // HOP * HOP))
    output = slots(
        [[0.9]] * len(windows), [[0]] * len(windows), [[X]] * len(windows), torch.ones(len(windows), 1, BANDS, 126)
    )
    (source,) = render(track(output), waveform, windows, LABELS, RATE, N_FFT, HOP)
    assert np.abs(source.audio - waveform).max() < 1e-4
    assert source.activity.min() > 0.999


def test_sources_without_masks_have_no_audio():
    waveform = np.ones(RATE, np.float32)
    windows = list(iter_windows(waveform, RATE, RATE))
    (source,) = render(track(slots([[0.9]], [[0]], [[X]])), waveform, windows, LABELS, RATE, N_FFT, HOP)
    assert source.audio is None and source.activity is None and source.label == "low"
