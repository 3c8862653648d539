"""Audio classifiers as evidence: inside YAMNet, beside any encoder, and in the labels of a separator."""

import numpy as np
import pytest
import torch
from drawing import Counter
from hub_server import run_hub, run_python
from tiny import LABELS, tiny_audio, tiny_components, tiny_separator
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

from avgas_pipeline import AudioVisualSeparator, AVGASPipeline
from avgas_pipeline.audio.windows import Window
from avgas_pipeline.loaders.sounds import SOUNDS, VGGSOUND_LABELS, labels_of_tags, sound_of, tags_of_labels
from avgas_pipeline.loaders.tagger import TAG_WEIGHT, new_labels, with_tags
from avgas_pipeline.models.taggers import tag_windows
from avgas_pipeline.models.yamnet import YamnetConfig, YamnetEncoder


TAGS = ["Speech", "Bark", "Chainsaw", "Rain", "Goat", "Music"]
NAMES = {name for sound in SOUNDS for name in sound.audioset}


def names_of(tags):
    return {"id2label": dict(enumerate(tags)), "label2id": {tag: number for number, tag in enumerate(tags)}}


def tiny_tagger(tags=TAGS):
    """An Audio Spectrogram Transformer with its feature extractor."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    patches = {"patch_size": 8, "frequency_stride": 8, "time_stride": 8}
    config = ASTConfig(max_length=100, num_mel_bins=32, **patches, **sizes, **names_of(tags))
    return ASTForAudioClassification(config).eval(), ASTFeatureExtractor(num_mel_bins=32, max_length=100)


def says(model, tag, score=0.99):
    """The same of everything: one tag, and no other."""
    with torch.no_grad():
        dense = model.classifier.dense
        dense.weight.zero_()
        dense.bias.fill_(-12.0)
        dense.bias[TAGS.index(tag)] = float(np.log(score / (1 - score)))
    return model


# -- the table ------------------------------------------------------------------------------------------------------


def test_the_table_has_all_labels_and_is_whole():
    assert len(VGGSOUND_LABELS) == len(set(VGGSOUND_LABELS)) == 309
    assert list(VGGSOUND_LABELS) == sorted(VGGSOUND_LABELS)
    for sound in SOUNDS:
        assert not sound.drawn_like or (sound_of(sound.drawn_like) and not sound_of(sound.drawn_like).drawn_like)
        assert len(set(sound.audioset)) == len(sound.audioset)
    assert len(labels_of_tags(sorted(NAMES))) > 190


def test_labels_find_their_tags():
    labels = ["dog barking", "goat bleating", "Rain", "missile launch", "something"]
    assert tags_of_labels(labels, TAGS) == [[1], [4], [3], [], []]
    assert tags_of_labels(["raining"], ["Raindrop", "Rain"]) == [[1, 0]]


def test_labels_that_a_classifier_cannot_tell_from_known_ones_are_not_new():
    assert new_labels(["cow lowing"], ["Moo", "Goat"]) == ["goat bleating"]
    assert "dog bow-wow" not in new_labels(["dog barking"], ["Bark", "Bow-wow"])
    assert new_labels([], ["Speech"]) == ["female speech, woman speaking"]


# -- the separator --------------------------------------------------------------------------------------------------


def test_a_separator_with_tags_begins_as_it_was_and_listens():
    separator = tiny_separator(id2label={0: "dog barking", 1: "raining"}, label_temperature=0.1).eval()
    extended = with_tags(separator, TAGS).eval()
    assert list(extended.id2label.values()) == [
        "dog barking",
        "raining",
        "chainsawing trees",
        "female speech, woman speaking",
        "goat bleating",
    ]
    hidden = torch.randn(2, 18, separator.config.audio_dim, generator=torch.Generator().manual_seed(0))
    silent = torch.full((2, 4, len(TAGS)), -20.0)
    with torch.no_grad():
        before = separator(hidden)
        quiet = extended(hidden, tag_logits=silent)
        heard = extended(hidden, tag_logits=silent.index_fill(2, torch.tensor([2]), 20.0))
    assert torch.allclose(quiet.class_logits[..., :2], before.class_logits, atol=1e-5)
    assert torch.allclose(quiet.presence_logits, before.presence_logits, atol=1e-5)
    gain = heard.class_logits - quiet.class_logits
    assert torch.allclose(gain[..., 2], torch.full_like(gain[..., 2], TAG_WEIGHT), atol=1e-3)
    assert float(gain[..., [0, 1, 3, 4]].abs().max()) < 1e-4


def test_new_labels_are_drawn_as_what_they_are_like():
    separator = tiny_separator(id2label={0: "raining", 1: "sheep bleating"}, label_temperature=0.1)
    extended = with_tags(separator, TAGS, ["goat bleating", "unknown sound"])
    tokens, known = extended.label_tokens.weight, separator.label_tokens.weight
    assert torch.equal(tokens[:, :2], known) and torch.equal(tokens[:, 2], known[:, 1])
    # What it is like is not known: nothing is added to what its slot says.
    chainsaw = with_tags(separator, TAGS, ["chainsawing trees"])
    assert not chainsaw.label_tokens.weight[:, 2].any()
    slots = torch.randn(3, separator.config.hidden_dim, generator=torch.Generator().manual_seed(0))
    logits = torch.tensor([[0.0, 5.0, 0.0, 99.0]]).expand(3, -1)
    likely = torch.tensor([[0.0, 5.0, 0.0, -99.0]]).expand(3, -1)
    assert torch.equal(extended.condition(slots, logits), extended.condition(slots, likely))


def test_tags_that_do_not_fit_are_refused():
    separator = with_tags(tiny_separator(), TAGS)
    hidden = torch.randn(1, 18, separator.config.audio_dim)
    with pytest.raises(ValueError, match="needs logits of 6 tags, but is given none"):
        separator(hidden)
    with pytest.raises(ValueError, match="needs logits of 6 tags, but is given 5"):
        separator(hidden, tag_logits=torch.zeros(1, 3, 5))
    with pytest.raises(ValueError, match="already"):
        with_tags(separator, TAGS)
    with pytest.raises(ValueError, match="None of the tagger's classes"):
        with_tags(tiny_separator(), ["something", "else"])
    for label_tags in (None, [[0]], [["a"]] * len(LABELS), [[6]] * len(LABELS)):
        with pytest.raises(ValueError, match="label_tags"):
            AudioVisualSeparator(id2label=dict(enumerate(LABELS)), num_tags=6, label_tags=label_tags)


# -- YAMNet ---------------------------------------------------------------------------------------------------------


def test_yamnet_keeps_its_classifier_and_the_layers_that_go_with_it():
    torch.manual_seed(0)
    encoder = YamnetEncoder(YamnetConfig(num_tagger_layers=4, **names_of(TAGS))).eval()
    pixels = torch.randn(2, 1, 64, 500)
    with torch.no_grad():
        before = encoder(pixels)
        assert before.tag_logits.shape == (2, 16, len(TAGS))
        assert torch.allclose(encoder(pixels, num_tagged=1).tag_logits, before.tag_logits[:1], atol=1e-5)
        assert encoder(pixels, num_tagged=0).tag_logits is None
        encoder.layer[-1].convolution.weight.zero_()
        after = encoder(pixels)
    assert torch.equal(after.tag_logits, before.tag_logits)
    assert not torch.equal(after.last_hidden_state, before.last_hidden_state)
    assert len(encoder(pixels, return_dict=False)) == 2
    plain = YamnetEncoder(YamnetConfig())
    assert plain.tagger is None and plain.eval()(pixels).tag_logits is None


# -- the pipeline ---------------------------------------------------------------------------------------------------


@pytest.fixture
def heard():
    """A pipeline whose tagger hears chainsaws alone."""
    tagger, extractor = tiny_tagger()
    says(tagger, "Chainsaw")
    return AVGASPipeline(**tiny_components(), tagger=tagger, tagger_feature_extractor=extractor)


def label_of(pipe):
    sources = pipe.separate_audio(*tiny_audio(), num_sources=1)[0]
    return sources[0].label


def test_any_checkpoint_hears_the_taggers_vocabulary(heard):
    with torch.no_grad():
        heard.separator.tag_evidence.label_weight.fill_(50.0)
    assert label_of(heard) == "chainsawing trees"
    says(heard.tagger, "Goat")
    assert label_of(heard) == "goat bleating"
    out = heard(*tiny_audio(), num_sources=2, num_inference_steps=1, separate=True)
    assert len(out.images) == 1 and len(out.sources[0]) <= 2


@pytest.mark.parametrize("max_batch_rows", [None, 3, 1])
def test_a_recording_is_tagged_as_it_is_alone(heard, max_batch_rows):
    pipe = AVGASPipeline(**heard.components, speed_variation=0.1)
    asked, given = Counter(pipe.tagger), []
    pipe.separator.register_forward_pre_hook(
        lambda module, args, named: given.append(named["tag_logits"]), with_kwargs=True
    )
    # One window each, of 1.28 s.
    audio = [tiny_audio(1.0, seed)[0] for seed in range(3)]
    pipe.separate_audio(audio, 16000, num_sources=1, max_batch_rows=max_batch_rows)
    assert sum(asked.rows) == 3
    assert sum(map(len, given)) == 9


@pytest.mark.slow
def test_save_load_call_and_hub(heard, tmp_path):
    with torch.no_grad():
        heard.separator.tag_evidence.label_weight.fill_(50.0)
    heard.save_pretrained(tmp_path / "hub/someone/tagged")
    loaded = AVGASPipeline.from_pretrained(tmp_path / "hub/someone/tagged")
    assert label_of(loaded) == label_of(heard) == "chainsawing trees"
    script = f"""
import sys
sys.path.insert(0, {str(__file__).rsplit("/", 1)[0]!r})
from test_tagger import label_of
from avgas_pipeline import AVGASPipeline
print(label_of(AVGASPipeline.from_pretrained("someone/tagged")))
"""
    with run_hub(tmp_path / "hub") as url:
        assert run_python(script, tmp_path, endpoint=url).splitlines()[-1] == "chainsawing trees"


def test_wrong_taggers(heard):
    tagger, extractor = tiny_tagger()
    with pytest.raises(ValueError, match="go together"):
        AVGASPipeline(**tiny_components(), tagger=tagger)
    other, _ = tiny_tagger(["Bark", "Rain"])
    components = {**tiny_components(), "separator": heard.separator}
    shuffled, _ = tiny_tagger([*TAGS[1:], TAGS[0]])
    with pytest.raises(ValueError, match="of another tagger"):
        AVGASPipeline(**components, tagger=shuffled, tagger_feature_extractor=extractor)
    with pytest.raises(ValueError, match="scores of 6 tags, but the tagger has 2"):
        AVGASPipeline(**components, tagger=other, tagger_feature_extractor=extractor)


def test_checkpoints_without_tagger_are_as_they_were(tmp_path):
    pipe = AVGASPipeline(**tiny_components())
    pipe.save_pretrained(tmp_path)
    assert AVGASPipeline.from_pretrained(tmp_path).tagger is None
    assert pipe.separator.config.num_tags == 0 and pipe.separator.tag_evidence is None


def test_rates_and_exclusive_classes():
    tagger, _ = tiny_tagger()
    windows = [Window(0, np.random.default_rng(0).standard_normal(8000).astype(np.float32), 8000, 1.0)]
    extractor = ASTFeatureExtractor(num_mel_bins=32, max_length=100)
    logits = tag_windows(tagger, extractor, windows, 16000, torch.device("cpu"))
    assert logits.shape == (1, 1, len(TAGS))
    tagger.config.problem_type = "single_label_classification"
    exclusive = tag_windows(tagger, extractor, windows, 16000, torch.device("cpu"))
    assert torch.allclose(exclusive.sigmoid().sum(), torch.ones(()), atol=1e-4)
    slower = Window(0, np.repeat(windows[0].samples, 2), 16000, 1.0)
    assert tag_windows(tagger, extractor, [slower], 32000, torch.device("cpu")).shape == logits.shape
