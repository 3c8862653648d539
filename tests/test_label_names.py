"""Names of other vocabularies become VGGSound's labels, and every name is on both sides."""

import csv

import pytest

from avgas_pipeline.data.label_names import TABLE, vggsound_label, vggsound_labels
from avgas_pipeline.loaders.sounds import SOUNDS, VGGSOUND_LABELS


def rows():
    with TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("vocabulary", "count"), [("esc50", 50), ("llp", 25), ("ave", 28)])
def test_the_table_has_all_names_and_known_labels(vocabulary, count):
    own = [row for row in rows() if row["vocabulary"] == vocabulary]
    assert len(own) == len({row["name"] for row in own}) == count
    for row in own:
        assert row["label"] == "" or row["label"] in VGGSOUND_LABELS
        assert vggsound_label(row["name"], vocabulary) == (row["label"] or None)


def test_audiosets_names():
    known = {name for sound in SOUNDS for name in sound.audioset}
    for name in known:
        label = vggsound_label(name, "audioset")
        assert label in VGGSOUND_LABELS
        (sound,) = [sound for sound in SOUNDS if sound.label == label]
        assert name in sound.audioset
    assert vggsound_label("Baby cry, infant cry", "audioset") == "baby crying"
    assert vggsound_label("Mechanisms", "audioset") is None


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Bark", "dog barking"),
        ("Church_bell", "church bell ringing"),
        ("Child_speech_and_kid_speaking", "child speech, kid speaking"),
        ("Fixed-wing_aircraft_and_airplane", "airplane"),
        ("Race_car_and_auto_racing", "race car, auto racing"),
        ("Domestic_sounds_and_home_sounds", None),
    ],
)
def test_fsd50ks_spelling(name, label):
    assert vggsound_label(name, "fsd50k") == label


def test_several_names_and_wrong_use():
    assert vggsound_labels(["dog", "footsteps", "Dog"], "esc50") == (("dog barking",), ("footsteps",))
    assert vggsound_labels(VGGSOUND_LABELS, "vggsound") == (VGGSOUND_LABELS, ())
    with pytest.raises(ValueError, match="vocabulary has to be one of vggsound, audioset"):
        vggsound_label("dog", "esc")
