"""Scripts that give avgas-mini its ears: the tagger, sounds without labels, recordings to measure on, calibration."""

import csv
import zipfile
from pathlib import Path

import add_tagger
import calibrate_labels
import gather_sounds
import make_wild
import make_wild_packages
import numpy as np
import pytest
import soundfile
import tags_alone
import tokens_of_labels
import torch
from datasets import Dataset, load_dataset
from test_make_synthetic_clips import wheel_that_says, write_wheel
from test_tagger import TAGS
from tiny import LABELS, tiny_components, tiny_separator

from avgas_pipeline import AVGASPipeline, YamnetEncoder, YamnetFeatureExtractor
from avgas_pipeline.data.clips import load_clips
from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.data.plans import read_manifest
from avgas_pipeline.data.soundscapes_mini import find_soundscapes_mini
from avgas_pipeline.evaluation import load_evaluation_set
from avgas_pipeline.loaders.sounds import VGGSOUND_LABELS
from avgas_pipeline.loaders.tagger import with_tags
from avgas_pipeline.models.encoder_adapters import token_layout
from avgas_pipeline.models.yamnet import YamnetConfig
from avgas_pipeline.separation.encoding import encode_views


RATE = 16000


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return YamnetEncoder(YamnetConfig()).eval()


def noise(seed, seconds=1.0):
    return (np.random.default_rng(seed).standard_normal(round(seconds * RATE)) / 8).astype(np.float32)


def clips(labels):
    return [
        {"id": f"clip-{number}", "label": label, "source_group": f"group-{number}", "audio": {"array": noise(number)}}
        for number, label in enumerate(labels)
    ]


def with_rate(rows):
    return [{**row, "audio": {**row["audio"], "sampling_rate": RATE}} for row in rows]


# -- add_tagger -----------------------------------------------------------------------------------------------------


@pytest.fixture
def wheel(encoder, tmp_path):
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(1024, len(TAGS), generator=generator) / 30, torch.zeros(len(TAGS))
    return write_wheel(tmp_path / "yamnet.whl", encoder, weight, bias, TAGS)


def yamnet_pipeline(encoder):
    layout = token_layout(encoder)
    separator = tiny_separator(**{**layout, "id2label": {0: "dog barking", 1: "raining"}})
    parts = {"audio_encoder": encoder, "audio_feature_extractor": YamnetFeatureExtractor(), "separator": separator}
    return AVGASPipeline(**{**tiny_components(), **parts})


def test_the_tagger_is_the_wheels_and_the_rest_is_as_it_was(encoder, wheel, tmp_path):
    tuned = YamnetEncoder(YamnetConfig()).eval()
    tuned.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        tuned.layer[-1].convolution.weight *= 1.1
    pipe = yamnet_pipeline(tuned)
    pipe.save_pretrained(tmp_path / "before")
    rows = with_rate(clips(["donkey, ass braying"] * 2 + ["fox barking"]))
    for row in rows:
        row["audio"] = row["audio"]["array"].tobytes()
    (tmp_path / "clips").mkdir()
    Dataset.from_list(rows).to_parquet(tmp_path / "clips/train.parquet")
    command = [str(tmp_path / "before"), str(wheel), "--clips", str(tmp_path / "clips")]
    add_tagger.main([*command, "--output_dir", str(tmp_path / "after")])
    after = AVGASPipeline.from_pretrained(tmp_path / "after")
    labels = list(after.separator.id2label.values())
    assert labels[:2] == ["dog barking", "raining"] and labels[-1] == "unknown sound"
    assert "donkey, ass braying" in labels and "goat bleating" in labels and "fox barking" not in labels
    pixels = torch.randn(1, 1, 64, 500, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        out, before = after.audio_encoder(pixels), tuned(pixels)
        plain = encoder(pixels).last_hidden_state[:, :1024, ::2, ::2].mean(2)
    assert torch.equal(out.last_hidden_state, before.last_hidden_state)
    middle = plain.unfold(2, 3, 1).mean(-1).transpose(1, 2)
    expected = after.audio_encoder.tagger(middle)
    assert torch.allclose(out.tag_logits[:, 1:-1], expected, atol=1e-4)


def test_an_encoder_that_was_changed_too_early_is_refused(encoder, wheel, tmp_path, capsys):
    other = YamnetEncoder(YamnetConfig()).eval()
    yamnet_pipeline(other).save_pretrained(tmp_path / "other")
    with pytest.raises(SystemExit) as stopped:
        add_tagger.main([str(tmp_path / "other"), str(wheel), "--output_dir", str(tmp_path / "out")])
    assert stopped.value.code == 2 and "is not YAMNet's" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# -- gather_sounds --------------------------------------------------------------------------------------------------


def test_what_sounds_are(encoder):
    label_of = gather_sounds.label_of
    assert label_of({"Chainsaw": 0.9}) == "chainsawing trees"
    assert label_of({"Chainsaw": 0.3}) is None
    # Two labels have this name.
    assert label_of({"Speech": 0.9}) is None
    assert label_of({"Music": 0.9, "Chainsaw": 0.05}) == "background"
    assert label_of({"Boing": 0.9}) == label_of({}) == "unknown sound"


def test_packages_become_clips(encoder, tmp_path, capsys):
    for package, seconds in (("a-data", 1.0), ("b-data", 16.0)):
        (tmp_path / "packages" / package / "sounds").mkdir(parents=True)
        soundfile.write(tmp_path / "packages" / package / "sounds/x.ogg", noise(len(package), seconds), RATE)
    (tmp_path / "packages/b-data/same.wav").write_bytes((tmp_path / "packages/a-data/sounds/x.ogg").read_bytes())
    (tmp_path / "packages/b-data/broken.wav").write_bytes(b"RIFF")
    wheel = wheel_that_says(tmp_path / "a.whl", encoder, "Siren")
    gather_sounds.main([str(tmp_path / "packages"), str(wheel), "--output_dir", str(tmp_path / "out")])
    rows = load_dataset(str(tmp_path / "out"), split="train").to_list()
    counts = {label: sum(row["label"] == label for row in rows) for label in ("unknown sound", "background")}
    assert counts == {"unknown sound": 1 + 3, "background": gather_sounds.NUM_NOISES}
    assert len({row["id"] for row in rows}) == len(rows)
    taken = (tmp_path / "out/packages.csv").read_text().splitlines()
    assert taken[0] == "package,path,label" and "a-data,sounds/x.ogg,unknown sound" in taken
    with pytest.raises(SystemExit) as stopped:
        gather_sounds.main([str(tmp_path / "none"), str(wheel)])
    assert stopped.value.code == 2 and "no folder with packages" in capsys.readouterr().err


# -- make_wild ------------------------------------------------------------------------------------------------------


def test_only_what_is_for_measuring_is_taken(tmp_path, capsys):
    rows = clips(LABELS * 2)
    for row in rows:
        with (tmp_path / "x.flac").open("wb") as file:
            soundfile.write(file, row["audio"]["array"], RATE, format="FLAC")
        row["audio"] = (tmp_path / "x.flac").read_bytes()
    Dataset.from_list(rows).to_parquet(tmp_path / "table.parquet")
    (tmp_path / "groups.txt").write_text("group-0\ngroup-3\ngroup-4\n")
    command = [str(tmp_path / "table.parquet"), "--groups", str(tmp_path / "groups.txt")]
    make_wild.main([*command, "--output_dir", str(tmp_path / "wild")])
    taken, _ = load_clips(tmp_path / "wild")
    assert taken["source_group"] == ["group-0", "group-3", "group-4"]
    single, pairs = (read_manifest(tmp_path / "wild" / name) for name in ("single.jsonl", "pairs.jsonl"))
    assert [plan.sources[0].clip for plan in single] == taken["id"]
    assert len(pairs) == make_wild.NUM_PAIRS and all(len(plan.sources) == 2 for plan in pairs)
    sampler = MixtureSampler(taken, target=None)
    for plan in (*single, *pairs):
        sampler.check(plan)
    (tmp_path / "groups.txt").write_text("nothing")
    with pytest.raises(SystemExit) as stopped:
        make_wild.main([*command, "--output_dir", str(tmp_path / "again")])
    assert stopped.value.code == 2 and "names no source group" in capsys.readouterr().err


# -- calibrate_labels -----------------------------------------------------------------------------------------------


def test_label_logits_are_scaled_to_the_least_error(tmp_path, capsys):
    pipe = AVGASPipeline(**tiny_components())
    mixtures = MixtureSampler(with_rate(clips(LABELS)), duration_s=pipe.window_s, target=None)
    before = {name: value.clone() for name, value in pipe.separator.state_dict().items()}
    windows = [pipe.audio_models().cut_windows(noise(0))]
    ((_, plain),) = encode_views(windows, pipe.audio_models())
    factor = calibrate_labels.calibrate(pipe, mixtures, num_mixtures=3)
    printed = dict(line.split("  calibration error ") for line in capsys.readouterr().out.splitlines())
    errors = {float(name): float(text.split()[0]) for name, text in printed.items()}
    assert sorted(errors) == sorted(calibrate_labels.FACTORS)
    good = [number for number, error in errors.items() if error <= min(errors.values()) + 3.05]
    assert factor == min(good) and printed[f"{factor:.1f}"].endswith("*")
    changed = {name for name, value in pipe.separator.state_dict().items() if not torch.equal(value, before[name])}
    assert changed <= {"class_head.weight", "class_head.bias"}
    assert pipe.separator.config.label_temperature == pytest.approx(0.5 * factor)
    ((_, scaled),) = encode_views(windows, pipe.audio_models())
    assert torch.allclose(scaled.class_probs, calibrate_labels._scaled(plain.class_probs, factor), atol=1e-5)
    # What is drawn stays.
    assert torch.allclose(scaled.condition_tokens[0], plain.condition_tokens[0], atol=1e-4)


# -- tokens_of_labels -----------------------------------------------------------------------------------------------


def test_labels_alone_decide_what_is_drawn():
    known = {0: "raining", 1: "sheep bleating"}
    drawn = AVGASPipeline(**{**tiny_components(), "separator": tiny_separator(id2label=known)})
    mixtures = MixtureSampler(
        with_rate(clips([*known.values()] * 2)), num_sources=1, duration_s=drawn.window_s, target=None
    )
    mean = tokens_of_labels.mean_tokens(drawn, mixtures)
    separator = drawn.separator
    assert mean.shape == (2, separator.config.num_condition_tokens * separator.config.cross_attention_dim)
    trained = AVGASPipeline(
        **{**tiny_components(), "separator": with_tags(separator, TAGS, ["goat bleating", "unknown sound"])}
    )
    with torch.no_grad():
        trained.separator.token_head[-1].weight.normal_()
    tokens_of_labels.let_labels_decide(trained, drawn, mean)
    slots = torch.randn(2, separator.config.hidden_dim, generator=torch.Generator().manual_seed(0))
    raining, sheep, goat = 99 * torch.eye(4)[:3]
    first, second = trained.separator.condition(slots, sheep.expand(2, -1))
    assert torch.equal(first, second)
    goats = trained.separator.condition(slots, goat.expand(2, -1))
    assert torch.equal(goats[0], first)
    assert not torch.allclose(trained.separator.condition(slots, raining.expand(2, -1))[0], first, atol=1e-3)
    with pytest.raises(ValueError, match="'sheep bleating' has no clip"):
        only = MixtureSampler(with_rate(clips(["raining"])), num_sources=1, duration_s=drawn.window_s, target=None)
        tokens_of_labels.mean_tokens(drawn, only)


# -- make_wild_packages -----------------------------------------------------------------------------------------------


def test_recordings_of_packages_to_measure_on(tmp_path, capsys, monkeypatch):
    packages = tmp_path / "packages"
    (packages / "farm-data/usr").mkdir(parents=True)
    soundfile.write(packages / "farm-data/usr/cow.wav", noise(0, 8.0), RATE)
    soundfile.write(tmp_path / "goat.wav", noise(1) * 1e-3, RATE, subtype="FLOAT")
    with zipfile.ZipFile(packages / "farm-data/usr/more.zip", "w") as archive:
        archive.write(tmp_path / "goat.wav", "animals/goat.wav")
    header = "package,registry,version,path,labels,known_from,source_group,start_s,license"
    rows = ["usr/cow.wav,cow lowing,recordings,cow,2.0", "usr/more.zip::animals/goat.wav,goat bleating,tags,goat,0"]
    rows += ["usr/cow.wav,,,cow,0", "usr/cow.wav,cow lowing;raining,recordings,cow,0"]
    text = "\n".join([header, *(f"farm-data,debian,1.0,{row},CC0-1.0" for row in rows)]) + "\n"
    (tmp_path / "table.csv").write_text(text)
    command = [str(packages), "--table", str(tmp_path / "table.csv"), "--output_dir", str(tmp_path / "wild")]
    make_wild_packages.main(command)
    lists = {name: load_evaluation_set(tmp_path / f"wild/{name}.jsonl", tmp_path) for name in make_wild_packages.LISTS}
    assert [len(own) for own in lists.values()] == [1, 1, 1, 1]
    assert lists["recordings"][0].waveform.shape == (5 * RATE,)
    assert np.allclose(lists["recordings"][0].waveform, noise(0, 8.0)[2 * RATE : 7 * RATE], atol=1e-4)
    assert np.abs(lists["tags"][0].waveform - noise(1) * 1e-3).max() < 1e-6
    assert lists["unknown"].true_labels(0) == [] and lists["scenes"].true_labels(0) == ["cow lowing", "raining"]
    assert lists["tags"].groups(0) == ["goat"]

    (tmp_path / "table.csv").write_text(text.replace("farm-data,debian", "no-such-package,debian"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit) as stopped:
        make_wild_packages.main([*command[:-1], str(tmp_path / "again")])
    assert stopped.value.code == 2 and "no-such-package: can't be fetched" in capsys.readouterr().err
    assert not (packages / "no-such-package").exists() and not (tmp_path / "again").exists()


def test_the_table_of_recordings_to_measure_on():
    with make_wild_packages.TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = [label for row in rows for label in row["labels"].split(";") if label]
    assert len(rows) >= 60 and len(set(labels)) >= 30 and set(labels) <= set(VGGSOUND_LABELS)
    learnt = set()
    for path in (find_soundscapes_mini() / "audio").glob("*.parquet"):
        learnt |= set(Dataset.from_parquet(str(path))["package"])
    for name in ("unlabelled_sounds.csv", "more_sounds.csv"):
        with Path("model_card", name).open(encoding="utf-8", newline="") as file:
            learnt |= {row["package"] for row in csv.DictReader(file)}
    assert not {row["package"] for row in rows} & learnt


# -- tags_alone -------------------------------------------------------------------------------------------------------


def test_labels_that_were_never_heard_are_named_by_their_tags(tmp_path, capsys):
    tags = ["Bark", "Rain"]
    config = YamnetConfig(num_tagger_layers=2, id2label=dict(enumerate(tags)), label2id={"Bark": 0, "Rain": 1})
    torch.manual_seed(0)
    encoder = YamnetEncoder(config).eval()
    names = {"id2label": {0: "dog barking", 1: "raining", 2: "goat bleating"}}
    fits = {**token_layout(encoder), "num_tags": 2, "label_tags": [[0], [1], []]}
    parts = {"audio_encoder": encoder, "audio_feature_extractor": YamnetFeatureExtractor()}
    pipe = AVGASPipeline(**{**tiny_components(), **parts, "separator": tiny_separator(**fits, **names)})
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(tmp_path / "before")

    def table(folder, labels):
        rows = []
        for row in clips(labels):
            soundfile.write(tmp_path / "x.flac", row["audio"]["array"], RATE)
            rows.append({**row, "audio": (tmp_path / "x.flac").read_bytes()})
        (tmp_path / folder).mkdir()
        Dataset.from_list(rows).to_parquet(tmp_path / folder / "train.parquet")

    table("learnt", ["raining"])
    table("held-out", ["raining", "dog barking"])
    command = [str(tmp_path / "before"), "--learnt", str(tmp_path / "learnt"), "--clips", str(tmp_path / "held-out")]
    tags_alone.main([*command, "--output_dir", str(tmp_path / "after")])
    assert "2 labels by tags alone" in capsys.readouterr().out
    before, after = (AVGASPipeline.from_pretrained(tmp_path / name).separator for name in ("before", "after"))
    for name, weight in after.state_dict().items():
        given = before.state_dict()[name]
        if name in ("class_head.weight", "tag_evidence.label_proj.weight"):
            assert torch.equal(weight[1], given[1]) and not weight[[0, 2]].any()
        elif name in ("class_head.bias", "tag_evidence.label_weight"):
            assert weight[1] == given[1] and weight[0] == weight[2] != given[0]
        else:
            assert torch.equal(weight, given)
    slots, logits = torch.randn(1, 4, 16), torch.tensor([[[9.0, -9.0]]])
    frames = after.tag_evidence.frames(logits)
    scores = after._class_logits(slots, frames, logits)[0, 0]
    weight, bias = after.tag_evidence.label_weight[0].item(), after.class_head.bias[0].item()
    assert scores[0].item() == pytest.approx(bias + weight, abs=0.01) and scores[2].item() == pytest.approx(bias)

    AVGASPipeline(**tiny_components()).save_pretrained(tmp_path / "tagless")
    with pytest.raises(SystemExit) as stopped:
        tags_alone.main([str(tmp_path / "tagless"), *command[1:], "--output_dir", str(tmp_path / "x")])
    assert stopped.value.code == 2 and "takes no tags" in capsys.readouterr().err


def test_weight_and_bias_are_those_that_name_most_and_spoil_nothing(capsys):
    # Two learnt labels that logits name rightly, with evidence for both, and a third that nothing names.
    heard = [(label, torch.eye(3)[label] * 8, torch.eye(3)[label] * 0.8) for label in (0, 1) for _ in range(3)]
    weight, bias = tags_alone.choose(heard, [2])
    named = {(w, b): tags_alone.named(heard, [2], w, b, True) for w in tags_alone.WEIGHTS for b in tags_alone.BIASES}
    assert named[weight, bias] == max(named.values()) == 6
    assert all(tags_alone.named(heard, [2], w, b, False) == 6 for w, b in named)
    assert "named 6 of 6" in capsys.readouterr().out
    # Evidence for what is not there: every weight that is large enough to name anything spoils what is named.
    loud = [(0, torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0]))] * 4
    with pytest.raises(ValueError, match="spoils"):
        tags_alone.choose(loud, [2])
