import hashlib
import json
import sys
from dataclasses import replace

import forked
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import tone

from avgas_pipeline.audio.loading import load_audio
from avgas_pipeline.audio.loudness import active_rms
from avgas_pipeline.data import tables
from avgas_pipeline.data.augment import augment, limit_band
from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.data.plans import read_manifest, write_manifest
from avgas_pipeline.data.scenes import collage, compose_scene, overlap
from avgas_pipeline.data.soundscapes_mini import find_soundscapes_mini, load_soundscapes_mini
from avgas_pipeline.data.tables import ClipTable


LABELS = ("cat", "dog", "rain", "wind")


def sound(seconds, seed):
    rng = np.random.default_rng(seed)
    return tone(seconds, 16000, frequency=rng.uniform(200, 4000)) + 0.05 * rng.standard_normal(
        round(seconds * 16000)
    ).astype(np.float32)


def toy_clips(seconds=(0.5, 2.0, 12.0)):
    """Clips of several lengths for every label, two of them from the same recording."""
    return [
        {
            "id": f"{label}-{number}",
            "label": label,
            "source_group": f"{label}-{number // 2}",
            "audio": {"array": sound(length, 10 * index + number), "sampling_rate": 16000},
        }
        for index, label in enumerate(LABELS)
        for number, length in enumerate(seconds)
    ]


def toy_pictures():
    pictures = []
    for label, colour in zip(LABELS, ("red", "green", "blue", "black"), strict=True):
        picture = PIL.Image.new("RGBA", (100, 100))
        picture.paste(PIL.Image.new("RGBA", (60, 40), colour), (20, 30))
        pictures.append({"id": f"{label}-picture", "label": label, "image": picture})
    return pictures


@pytest.fixture(scope="module")
def sampler():
    return MixtureSampler(toy_clips(), toy_pictures(), seed=1, num_sources=(1, 3))


def test_mixture_is_exactly_the_sum_of_its_stems(sampler):
    for index in range(30):
        mixture = sampler.sample(index)
        assert np.array_equal(mixture.waveform, mixture.stems.sum(axis=0))
        assert mixture.waveform.shape == (80000,) and mixture.waveform.dtype == np.float32
        assert np.abs(mixture.waveform).max() <= 1.0
        assert len(set(mixture.labels)) == len(mixture.labels) == len(mixture.stems)


def test_measured_gains_are_those_asked_for(sampler):
    for index in range(30):
        mixture = sampler.sample(index)
        measured = [20 * np.log10(active_rms(stem, 16000)) for stem in mixture.stems]
        asked = [source.gain_db for source in mixture.plan.sources]
        # Gains are around -26 dB; a mixture that would clip is turned down as a whole.
        assert np.abs(np.subtract(measured, asked) + 26 - mixture.scale_db).max() < 0.1
        assert mixture.scale_db <= 0
        assert all(abs(gain) <= 6 for gain in asked)


def digest(augmented):
    sampler = MixtureSampler(toy_clips(), toy_pictures(), seed=3, augment=augmented)
    found = hashlib.sha256()
    for index in range(4):
        mixture = sampler.sample(index, epoch=2)
        found.update(mixture.stems.tobytes() + mixture.image.tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("augmented", [False, True])
def test_same_seed_same_bytes_in_another_process(augmented, tmp_path):
    (tmp_path / "script.py").write_text(f"import test_mixtures\nprint(test_mixtures.digest({augmented}))\n")
    result = forked.run([sys.executable, tmp_path / "script.py"])
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == digest(augmented)


def test_a_mixture_depends_on_seed_epoch_and_index_alone():
    def plans(seed, epoch, order):
        sampler = MixtureSampler(toy_clips(), toy_pictures(), seed=seed)
        return {index: sampler.plan(index, epoch) for index in order}

    forward, backward = plans(0, 0, range(10)), plans(0, 0, reversed(range(10)))
    assert forward == backward
    assert forward[0].sources != plans(1, 0, [0])[0].sources
    assert forward[0].sources != plans(0, 1, [0])[0].sources


def test_a_fraction_of_the_mixtures_is_varied_and_nothing_else_changes():
    def plans(augment):
        sampler = MixtureSampler(toy_clips(), seed=0, augment=augment)
        return [sampler.plan(index) for index in range(200)]

    varied = plans(0.25)
    assert 30 <= sum(plan.augment for plan in varied) <= 70
    for plain, some, full in zip(plans(False), varied, plans(True), strict=True):
        assert not plain.augment and full.augment
        assert plain == replace(some, augment=False) == replace(full, augment=False)
    with pytest.raises(ValueError, match=r"`augment` has to be from 0 to 1 but is 1\.5"):
        MixtureSampler(toy_clips(), augment=1.5)


def test_placement_follows_the_length_of_a_clip():
    clips = toy_clips()
    seen = set()
    sampler = MixtureSampler(clips, seed=0, num_sources=1)
    for index in range(200):
        (source,) = sampler.plan(index).sources
        length = int(source.clip.rpartition("-")[2])
        seen.add((length, source.placement))
    assert seen == {(0, "once"), (0, "repeat"), (1, "once"), (1, "repeat"), (2, "crop")}


def test_long_clips_are_cut_where_they_sound():
    clip = np.concatenate([np.zeros(8 * 16000, np.float32), tone(2.0, 16000)])
    clips = [{"id": "a", "label": "cat", "source_group": None, "audio": {"array": clip, "sampling_rate": 16000}}]
    sampler = MixtureSampler(clips, seed=0, num_sources=1)
    assert all(active_rms(sampler.sample(index).waveform, 16000) > 0.01 for index in range(50))


@pytest.mark.parametrize(("seconds", "duration_s"), [(10.0, 5.0), (4.9, 5.0), (5.0, 5.0), (10.0, 1.0)])
def test_a_slower_clip_still_sounds(seconds, duration_s):
    """Its only sound is in its last 0.3 s."""
    clip = np.concatenate([np.zeros(round((seconds - 0.3) * 16000), np.float32), tone(0.3, 16000, 1000.0)])
    clips = [{"id": "a", "label": "cat", "audio": {"array": clip, "sampling_rate": 16000}}]
    sampler = MixtureSampler(clips, num_sources=1, duration_s=duration_s, augment=True, target=None)
    for index in range(100):
        power = np.abs(np.fft.rfft(sampler.sample(index).waveform)) ** 2
        # Its tone, 15 % lower to higher, and not what filters have left of nothing.
        low, high = round(840 * duration_s), round(1180 * duration_s)
        assert power[low:high].sum() > 0.3 * power.sum()


def test_clips_are_kept_as_far_as_there_is_room(monkeypatch):
    decoded = []

    def count(audio, name, **options):
        decoded.append(name)
        return load_audio(audio, name=name, **options)

    monkeypatch.setattr(tables, "load_audio", count)
    clips = toy_clips()
    lengths = [len(clip["audio"]["array"]) for clip in clips]
    table = ClipTable(clips, 16000, most_cached_bytes=4 * (lengths[1] + lengths[2]))
    # The third takes the first one's place, and the first the second one's.
    for number in (0, 1, 0, 1, 2, 1, 2, 0, 2, 1):
        table.waveform(clips[number]["id"])
    assert decoded == [clips[number]["id"] for number in (0, 1, 2, 0, 1)]


def test_a_mixture_decodes_its_clips_once(monkeypatch):
    decoded = []

    def count(audio, name, **options):
        decoded.append(name)
        return load_audio(audio, name=name, **options)

    monkeypatch.setattr(tables, "load_audio", count)
    plan = MixtureSampler(toy_clips(), num_sources=3, target=None).sample(0).plan
    assert sorted(decoded) == sorted(source.clip for source in plan.sources)


def test_repeated_clips_leave_gaps():
    clips = [{"id": "a", "label": "cat", "audio": {"array": tone(0.3, 16000), "sampling_rate": 16000}}]
    sampler = MixtureSampler(clips, seed=0, num_sources=1)
    mixtures = [sampler.sample(index) for index in range(20)]
    repeated = [m for m in mixtures if m.plan.sources[0].placement == "repeat"]
    assert repeated
    for mixture in repeated:
        sounding = np.abs(mixture.waveform).reshape(-1, 160).max(axis=1) > 0.01
        assert 2 <= np.sum(np.diff(sounding.astype(int)) == 1) + sounding[0] <= 10
        assert sounding.mean() < 0.8


def test_labels_or_source_groups_are_drawn_evenly():
    clips = [
        {"id": f"{label}{n}", "label": label, "source_group": f"{label}{n}", "audio": None}
        for label, count in (("cat", 9), ("dog", 1))
        for n in range(count)
    ]
    for clip in clips:
        clip["audio"] = {"array": tone(0.5, 16000), "sampling_rate": 16000}
    for balance, share in (("label", 0.5), ("source_group", 0.1)):
        sampler = MixtureSampler(clips, num_sources=1, balance=balance)
        dogs = sum(sampler.plan(index).sources[0].label == "dog" for index in range(600))
        assert dogs / 600 == pytest.approx(share, abs=0.07)


def test_clips_of_any_data_set_with_pictures_of_their_own():
    clips = [{**clip, "image": PIL.Image.new("RGB", (80, 60), "red")} for clip in toy_clips((1.0,))]
    mixture = MixtureSampler(clips, num_sources=2, target="collage", image_size=64).sample(0)
    assert mixture.image.size == (64, 64) and len(mixture.pictures) == 2
    silent_film = MixtureSampler(toy_clips((1.0,)), num_sources=2).sample(0)
    assert silent_film.image is None and silent_film.pictures == []


def test_a_collage_has_an_order():
    clips = [
        {**clip, "image": PIL.Image.new("RGB", (60, 60), "red" if clip["label"] == "dog" else "blue")}
        for clip in toy_clips((1.0,))
    ]
    sampler = MixtureSampler(clips, num_sources=2, target="collage", image_size=64)
    mixtures = [sampler.sample(index) for index in range(20)]
    mixed = [mixture for mixture in mixtures if "dog" in mixture.labels]
    assert len({mixture.labels[0] == "dog" for mixture in mixed}) == 2
    for mixture in mixed:
        place = sorted(mixture.labels).index("dog")
        assert mixture.image.getpixel((48 if place else 16, 32)) == (255, 0, 0)


def test_without_target_pictures_are_planned_and_not_read():
    clips, pictures = toy_clips(), toy_pictures()
    sampler = MixtureSampler(clips, pictures, num_sources=2, target=None)
    mixture = sampler.sample(0)
    with pytest.raises(ValueError, match="target=None"):
        sampler.render_image(mixture.plan)
    assert mixture.image is None and mixture.pictures == []
    assert mixture.plan == MixtureSampler(clips, pictures, num_sources=2).plan(0)
    assert all(source.picture for source in mixture.plan.sources)


def test_manifest_round_trip(sampler, tmp_path):
    plans = [sampler.plan(index) for index in range(5)]
    write_manifest(plans, tmp_path / "deep/set.jsonl")
    assert read_manifest(tmp_path / "deep/set.jsonl") == plans
    first, again = sampler.render(plans[0]), sampler.render(read_manifest(tmp_path / "deep/set.jsonl")[0])
    assert np.array_equal(first.stems, again.stems) and first.image.tobytes() == again.image.tobytes()


def test_bad_manifests_and_bad_arguments(sampler, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"id": "a", "duration_s": 5, "sources": [{"clip": "x"}]}\n')
    with pytest.raises(ValueError, match=r"bad\.jsonl, line 1"):
        read_manifest(tmp_path / "bad.jsonl")
    with pytest.raises(FileNotFoundError):
        read_manifest(tmp_path / "gone.jsonl")
    stranger = MixtureSampler([{**clip, "id": f"x{clip['id']}"} for clip in toy_clips()])
    with pytest.raises(ValueError, match="no clip"):
        sampler.render(stranger.plan(0))
    with pytest.raises(ValueError, match="no picture for"):
        MixtureSampler(toy_clips(), toy_pictures()[:2])
    with pytest.raises(ValueError, match="num_sources"):
        MixtureSampler(toy_clips(), num_sources=5)
    with pytest.raises(ValueError, match="target"):
        MixtureSampler(toy_clips(), target="montage")
    silent = [{"id": "s", "label": "cat", "audio": {"array": np.zeros(16000, np.float32), "sampling_rate": 16000}}]
    with pytest.raises(ValueError, match="'s' is silent"):
        MixtureSampler(silent, num_sources=1).sample(0)


# -- loudness and augmentation --------------------------------------------------------------------------------------


@given(level=st.floats(1e-4, 1.0), pause=st.floats(0.0, 5.0))
@settings(max_examples=50, deadline=None)
def test_pauses_do_not_change_loudness(level, pause):
    sound = np.concatenate([tone(0.5, 16000, level=level), np.zeros(round(pause * 16000), np.float32)])
    assert active_rms(sound, 16000) == pytest.approx(level / 2**0.5, rel=0.05)


def test_silence_has_no_loudness():
    assert active_rms(np.zeros(100, np.float32), 16000) == 0.0
    assert active_rms(np.zeros(0, np.float32), 16000) == 0.0


@given(seed=st.integers(0, 10_000), seconds=st.floats(0.05, 3.0))
@settings(max_examples=60, deadline=None)
def test_augmentation_gives_finite_sound_and_the_same_for_a_seed(seed, seconds):
    clip = sound(seconds, seed)
    first, second = (augment(clip, 16000, np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.dtype == np.float32 and np.isfinite(first).all() and np.abs(first).max() > 0


def test_band_limit_takes_away_the_top():
    noise = np.random.default_rng(0).standard_normal(32000).astype(np.float32)
    limited = limit_band(noise, 16000, np.random.default_rng(0))
    spectrum = np.abs(np.fft.rfft(limited)) ** 2
    assert spectrum[-800:].mean() < 1e-3 * spectrum[1000:3000].mean()


# -- scenes ---------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), count=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_objects_of_a_scene_hardly_overlap_and_stay_inside(seed, count):
    objects = [picture["image"] for picture in toy_pictures()[:count]]
    scene, boxes = compose_scene(objects, 128, np.random.default_rng(seed))
    assert scene.size == (128, 128) and scene.mode == "RGB" and len(boxes) == count
    for number, box in enumerate(boxes):
        assert 0 <= box[0] < box[2] <= 128 and 0 <= box[1] < box[3] <= 128
        assert (box[2] - box[0]) >= 12
        assert all(overlap(box, other) <= 0.10 for other in boxes[:number])


def test_a_scene_shows_its_objects():
    objects = [picture["image"] for picture in toy_pictures()[:2]]
    scene, boxes = compose_scene(objects, 128, np.random.default_rng(0))
    for box, colour in zip(boxes, ((255, 0, 0), (0, 128, 0)), strict=True):
        middle = scene.getpixel(((box[0] + box[2]) // 2, (box[1] + box[3]) // 2))
        assert np.abs(np.subtract(middle, colour)).max() < 5
    with pytest.raises(ValueError, match="transparent"):
        compose_scene([PIL.Image.new("RGBA", (10, 10))], 64, np.random.default_rng(0))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_collage_shows_every_picture(count):
    colours = [(40 * n + 20, 10, 200 - 30 * n) for n in range(count)]
    image = collage([PIL.Image.new("RGB", (30, 50), colour) for colour in colours], 60)
    assert {pixel for _, pixel in image.getcolors(10_000)} == set(colours)


# -- soundscapes-mini -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "sounds", "pictures"), [("train", 837, 1944), ("test", 242, 672)])
def test_soundscapes_mini_has_the_counts_of_its_card(split, sounds, pictures):
    loaded = load_soundscapes_mini(split=split)
    assert [table.num_rows for table in loaded] == [sounds, pictures]
    assert [len(set(table["label"])) for table in loaded] == [59, 204]


def test_soundscapes_mini_is_asked_for_where_it_is_not(monkeypatch, tmp_path):
    from avgas_pipeline.data import soundscapes_mini

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(soundscapes_mini, "__file__", str(tmp_path / "site-packages/avgas_pipeline/data/x.py"))
    with pytest.raises(FileNotFoundError, match="path or Hub id"):
        find_soundscapes_mini()


def test_the_standard_manifests_render(tmp_path):
    folder = find_soundscapes_mini()
    sampler = MixtureSampler(*load_soundscapes_mini(folder, "test"))
    counts = {}
    for number in (1, 2, 3):
        plans = read_manifest(folder / f"manifests/test-{number}.jsonl")
        counts[number] = len(plans)
        assert all(len(plan.sources) == number and not plan.augment for plan in plans)
        for plan in plans[:10]:
            mixture = sampler.render(plan)
            assert len(mixture.stems) == number and mixture.image.size == (128, 128)
    assert counts == {1: 242, 2: 500, 3: 500}
    clips = [json.loads(line)["sources"][0]["clip"] for line in (folder / "manifests/test-1.jsonl").open()]
    assert sorted(clips) == sorted(sampler.clips["id"])
