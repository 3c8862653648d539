"""Making a separator listen to an audio classifier."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from ..models.separator import AudioVisualSeparator
from .sounds import drawn_like, labels_of_tags, tags_of_labels


# Before it is learnt, what a tag's score of 1 adds to a label's logit, against a score of 0.001.
TAG_WEIGHT = 5.0
# What labels that are new to a separator start with, below the mean of the others.
_NEW_LABEL_BIAS = -2.0


def tag_names(model: PreTrainedModel) -> list[str]:
    """An audio classifier's names of its classes, in order."""
    return [model.config.id2label[number] for number in range(len(model.config.id2label))]


def matched_with(separator: AudioVisualSeparator, tagger: PreTrainedModel) -> AudioVisualSeparator:
    """
    The separator, if it takes the scores of a tagger with as many classes, and else one that does ([`with_tags`]).

    Raises:
        ValueError: If it takes the scores of another tagger.
    """
    tags = tag_names(tagger)
    if not separator.config.num_tags:
        return with_tags(separator, tags)
    if separator.config.num_tags != len(tags):
        raise ValueError(
            f"The separator takes the scores of {separator.config.num_tags} tags, but the tagger has {len(tags)}."
        )
    meant = tags_of_labels([separator.id2label[number] for number in range(len(separator.id2label))], tags)
    if not all(set(own) & set(now) for own, now in zip(separator.config.label_tags, meant, strict=True) if own):
        raise ValueError("The separator takes the scores of another tagger: the same numbers mean other sounds there.")
    return separator


@torch.no_grad()
def with_tags(
    separator: AudioVisualSeparator, tags: Sequence[str], labels: Sequence[str] | None = None
) -> AudioVisualSeparator:
    """
    A separator that takes an audio classifier's scores as evidence, and knows the classifier's labels as well. All
    else is as in the given one: its own labels keep their places, and a new one is drawn as the label that
    `sounds.py` says it is drawn like, or, if that is not known, from its slot's embedding alone.

    Args:
        separator ([`AudioVisualSeparator`]): One that takes no tags yet.
        tags (`Sequence[str]`): Names of the classifier's classes.
        labels (`Sequence[str]`, *optional*): The new labels; [`new_labels`] if not given.

    Raises:
        ValueError: If it takes tags already, or if no tag means a label.
    """
    if separator.config.num_tags:
        raise ValueError("The separator takes the scores of an audio classifier already.")
    known = [separator.id2label[number] for number in range(len(separator.id2label))]
    every = [*known, *(new_labels(known, tags) if labels is None else labels)]
    label_tags = tags_of_labels(every, tags)
    if not any(label_tags):
        raise ValueError("None of the tagger's classes means one of the labels.")
    config = {name: value for name, value in separator.config.items() if not name.startswith("_")}
    config |= {
        "id2label": dict(enumerate(every)),
        "num_labels": len(every),
        "num_tags": len(tags),
        "label_tags": label_tags,
    }
    extended = AudioVisualSeparator(**config).to(separator.dtype)
    weights = extended.state_dict()
    for name, value in separator.state_dict().items():
        if name == "class_head.weight":
            weights[name].zero_()[: len(known)] = value
        elif name == "class_head.bias":
            weights[name].fill_(value.mean() + _NEW_LABEL_BIAS)[: len(known)] = value
        elif name == "label_tokens.weight":
            weights[name].zero_()
            for number, label in enumerate(every):
                like = drawn_like(label, known)
                if like is not None:
                    weights[name][:, number] = value[:, known.index(like)]
        else:
            weights[name] = value
    weights["tag_evidence.label_weight"].fill_(TAG_WEIGHT)
    extended.load_state_dict(weights)
    return extended.to(separator.device).train(separator.training)


def new_labels(known: Sequence[str], tags: Sequence[str]) -> list[str]:
    """
    VGGSound's labels that an audio classifier can add to those that are known: it has a tag for them, and not only
    tags that mean a known one.
    """
    taken = [set(numbers) for numbers in tags_of_labels(known, tags)]
    candidates = [label for label in labels_of_tags(tags) if label not in known]
    return [
        label
        for label, numbers in zip(candidates, tags_of_labels(candidates, tags), strict=True)
        if not any(own.issuperset(numbers) for own in taken)
    ]
