"""Names of other vocabularies become VGGSound's labels, and every name is on both sides."""

import csv
import re

import pytest

from avgas_pipeline.data.label_names import TABLE, vggsound_label, vggsound_labels
from avgas_pipeline.loaders.sounds import VGGSOUND_LABELS


def rows():
    with TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("vocabulary", "count"), [("esc50", 50), ("llp", 25), ("ave", 28), ("audioset", 632)])
def test_the_table_has_all_names_and_known_labels(vocabulary, count):
    own = [row for row in rows() if row["vocabulary"] == vocabulary]
    assert len(own) == len({row["name"] for row in own}) == count
    for row in own:
        assert row["label"] == "" or row["label"] in VGGSOUND_LABELS
        assert vggsound_label(row["name"], vocabulary) == (row["label"] or None)


def test_equal_names_have_equal_labels():
    """LLP and AVE took their names from AudioSet."""
    labels = {}
    for row in rows():
        labels.setdefault(re.sub("[^a-z]", "", row["name"].lower()), set()).add(row["label"])
    assert {name for name, found in labels.items() if len(found) > 1} == set()


def test_names_that_are_labels_are_their_own():
    plain = {re.sub("[^a-z]", "", label.lower()): label for label in VGGSOUND_LABELS}
    for row in rows():
        label = plain.get(re.sub("[^a-z]", "", row["name"].lower()))
        # ESC-50's airplanes fly by.
        assert label in (None, "airplane") or row["label"] == label


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Baby cry, infant cry", "baby crying"),
        ("Male speech, man speaking", "male speech, man speaking"),
        ("Female singing", "female singing"),
        ("Moo", "cow lowing"),
        # For several of VGGSound's, and for other things, too.
        ("Speech", None),
        ("Train", None),
        ("Hiss", None),
        ("Bellow", None),
        ("Mechanisms", None),
    ],
)
def test_audiosets_names(name, label):
    assert vggsound_label(name, "audioset") == label


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Bark", "dog barking"),
        ("Church_bell", "church bell ringing"),
        ("Child_speech_and_kid_speaking", "child speech, kid speaking"),
        ("Fixed-wing_aircraft_and_airplane", "airplane flyby"),
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
