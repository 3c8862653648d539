"""The presence head's bias moves to where sources are counted best, and nothing else moves."""

import io

import calibrate_presence
import numpy as np
import pytest
import soundfile
import torch
from calibrate_presence import SHIFTS, at_other_speeds, calibrate, main
from datasets import Dataset
from tiny import LABELS, tiny_components, tiny_separator

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.data.clips import load_clips
from avgas_pipeline.data.mixtures import MixtureSampler


RATE = 16000


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    return [
        {
            "id": f"clip-{number}",
            "label": LABELS[number % len(LABELS)],
            "source_group": f"group-{number}",
            "audio": {"array": rng.standard_normal(RATE).astype(np.float32) / 8, "sampling_rate": RATE},
        }
        for number in range(2 * len(LABELS))
    ]


def pipeline(bias):
    pipe = AVGASPipeline(**tiny_components(), speed_variation=0.1)
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        pipe.separator.presence_head.bias.fill_(bias)
    return pipe


def shares(printed):
    """Shift, mean accuracy and whether it was chosen, of every printed line."""
    rows = [line.split() for line in printed.splitlines()]
    return {float(row[0]): (float(row[7]), row[-1] == "*") for row in rows}


def test_sources_are_counted_best_after_it(clips, capsys):
    pipe = pipeline(3.0)
    before = {key: value.clone() for key, value in pipe.separator.state_dict().items()}
    shift = calibrate(pipe, at_other_speeds(clips, RATE, 0), num_mixtures=4)
    table = shares(capsys.readouterr().out)
    assert sorted(table) == pytest.approx(sorted(SHIFTS))
    best = max(mean for mean, _ in table.values())
    assert table[shift][0] == best > table[0.0][0]
    # Among the best the one that changes least.
    assert all(abs(other) >= abs(shift) for other, (mean, _) in table.items() if mean == best)
    assert [other for other, (_, chosen) in table.items() if chosen] == [shift]
    after = pipe.separator.state_dict()
    assert after["presence_head.bias"].item() == pytest.approx(3.0 + shift, abs=1e-6)
    assert all(torch.equal(after[key], before[key]) for key in before if key != "presence_head.bias")


def test_shifts_are_those_of_the_head(clips, capsys):
    tables = []
    for bias in (1.5, 2.0):
        calibrate(pipeline(bias), at_other_speeds(clips, RATE, 0), num_mixtures=4)
        tables.append(shares(capsys.readouterr().out))
    for shift in (-0.8, -0.5, -0.2, 0.0, 0.5):
        assert tables[0][round(shift + 0.5, 1)][0] == tables[1][shift][0]


def test_what_is_saved_counts_as_printed(clips, monkeypatch, tmp_path, capsys):
    pipeline(3.0).save_pretrained(tmp_path / "before")
    monkeypatch.setattr(calibrate_presence, "load_soundscapes_mini", lambda dataset, split: (clips, None))
    main([str(tmp_path / "before"), "--output_dir", str(tmp_path / "after"), "--num_mixtures", "4", "--seed", "3"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["after", "before"]
    *table, last = capsys.readouterr().out.splitlines()
    ((shift, (mean, _)),) = [row for row in shares("\n".join(table)).items() if row[1][1]]
    assert last.endswith(f"moved by {shift:+.1f}")

    pipe = AVGASPipeline.from_pretrained(tmp_path / "after")
    assert pipe.separator.presence_head.bias.item() == pytest.approx(3.0 + shift, abs=1e-6)
    assert pipe.config.speed_variation == 0.1
    varied = at_other_speeds(clips, RATE, seed=3)
    mixtures = MixtureSampler(varied, seed=3, duration_s=pipe.window_s, sampling_rate=RATE)
    right = 0
    for number in range(12):
        plan = mixtures.plan(number, num_sources=number % 3 + 1)
        (found,) = pipe.separate_audio(mixtures.render(plan).waveform, RATE, return_audio=False)
        right += len(found) == number % 3 + 1
    assert mean == pytest.approx(100 * right / 12, abs=0.06)


def test_clips_need_no_groups(clips):
    bare = [{key: value for key, value in clip.items() if key != "source_group"} for clip in clips]
    calibrate(pipeline(2.0), bare, num_mixtures=1)


def test_too_few_slots(clips):
    pipe = AVGASPipeline(**{**tiny_components(), "separator": tiny_separator(num_slots=2)})
    with pytest.raises(ValueError, match="2 slots"):
        calibrate(pipe, clips, num_mixtures=1)


def test_clips_change_speed_further_than_in_training(clips):
    varied = at_other_speeds(clips, RATE, seed=0)
    again = at_other_speeds(clips, RATE, seed=0)
    factors = [
        len(clip["audio"]["array"]) / len(other["audio"]["array"]) for clip, other in zip(clips, varied, strict=True)
    ]
    assert all(1.2 <= max(factor, 1 / factor) <= 1.46 for factor in factors)
    assert min(factors) < 1 < max(factors)
    for one, other in zip(varied, again, strict=True):
        assert np.array_equal(one["audio"]["array"], other["audio"]["array"])


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--output_dir", "there"], "exists already"),
        (["--output_dir", "out", "--num_mixtures", "0"], "num_mixtures"),
        (["--output_dir", "out", "--dataset", "nowhere"], "nowhere"),
    ],
)
def test_bad_settings(checkpoint, tmp_path, monkeypatch, options, word):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").touch()
    with pytest.raises((ValueError, OSError), match=word):
        main([str(checkpoint), *options])
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_clips_that_were_held_out_count_as_they_are(clips, tmp_path, capsys):
    pipeline(3.0).save_pretrained(tmp_path / "before")
    rows = []
    for clip in clips:
        buffer = io.BytesIO()
        soundfile.write(buffer, clip["audio"]["array"], RATE, format="FLAC")
        rows.append({**clip, "audio": buffer.getvalue()})
    (tmp_path / "clips").mkdir()
    Dataset.from_list(rows).to_parquet(tmp_path / "clips/train.parquet")
    options = ["--clips", str(tmp_path / "clips"), "--num_mixtures", "4"]
    main([str(tmp_path / "before"), "--output_dir", str(tmp_path / "after"), *options])
    printed = shares("\n".join(capsys.readouterr().out.splitlines()[:-1]))
    calibrate(pipeline(3.0), load_clips(tmp_path / "clips")[0], num_mixtures=4)
    assert printed == shares(capsys.readouterr().out)
