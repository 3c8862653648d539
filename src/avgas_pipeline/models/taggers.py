"""What an audio classifier of transformers says of windows."""

import numpy as np
import soxr
import torch
from transformers import FeatureExtractionMixin, PreTrainedModel

from ..audio.windows import Window


def tag_windows(
    tagger: PreTrainedModel,
    feature_extractor: FeatureExtractionMixin,
    windows: list[Window],
    sampling_rate: int,
    device: torch.device,
) -> torch.Tensor:
    """
    Scores of windows, at their gain, as logits `(B, 1, num_labels)` of independent classes.

    Args:
        tagger (`PreTrainedModel`): Any audio classifier (`AutoModelForAudioClassification`). One of exclusive classes
            (`problem_type="single_label_classification"`) counts as one whose classes are independent.
        feature_extractor (`FeatureExtractionMixin`): Its own.
        windows (`list[Window]`): What sounds.
        sampling_rate (`int`): Of the windows, in Hz.
        device (`torch.device`): Where the tagger is.
    """
    own_rate = feature_extractor.sampling_rate
    pieces = [np.float32(window.gain) * window.samples[: window.num_valid] for window in windows]
    if own_rate != sampling_rate:
        pieces = [soxr.resample(piece, sampling_rate, own_rate) for piece in pieces]
    features = feature_extractor(pieces, sampling_rate=own_rate, return_tensors="pt", padding=True)
    inputs = {
        name: values.to(device, tagger.dtype if values.is_floating_point() else None)
        for name, values in features.items()
    }
    logits = tagger(**inputs).logits.float()
    if tagger.config.problem_type == "single_label_classification":
        logits = logits.softmax(dim=-1).logit(eps=1e-6)
    return logits[:, None]
