"""FID, KID and Inception Score through torchmetrics, with a judge's features in place of Inception's."""

from typing import Any

import PIL.Image
import torch
from torch import nn

# torchmetrics.image itself names these only where torch-fidelity is installed, which Inception's features need.
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from .judges import Judge, Judgement


# Images in one of the subsets that KID averages over.
KID_SUBSET_SIZE = 100


class JudgeFeatures(nn.Module):
    """
    A judge as the `feature` module of torchmetrics' image metrics: images `(N, 3, H, W)`, uint8, in; features
    `(N, D)` out, or with `log_mass` the logarithm of the class mass `(N, C)`, whose softmax it is.

    Args:
        judge ([`~avgas_pipeline.metrics.judges.Judge`]): Of either kind.
        log_mass (`bool`, defaults to `False`): What the Inception Score needs.
    """

    def __init__(self, judge: Judge, log_mass: bool = False) -> None:
        super().__init__()
        self.judge = judge
        self.log_mass = log_mass
        self.num_features = len(judge.labels) if log_mass else judge.num_features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """See the class."""
        pixels = images.permute(0, 2, 3, 1).cpu().numpy()
        judgement = self.judge([PIL.Image.fromarray(array) for array in pixels])
        values = _log_mass(judgement) if self.log_mass else judgement.features
        return values.to(images.device)


def frechet_distance(judge: Judge, **kwargs: Any) -> FrechetInceptionDistance:
    """
    FID (Heusel et al., arXiv 1706.08500) between two sets of images by a judge's features; from 0, lower is better.
    Not comparable with FIDs by Inception, or by another judge.
    """
    return FrechetInceptionDistance(feature=JudgeFeatures(judge), **kwargs)


def kernel_distance(judge: Judge, **kwargs: Any) -> KernelInceptionDistance:
    """KID (Bińkowski et al., arXiv 1801.01401) by a judge's features; unbiased for small sets, lower is better."""
    return KernelInceptionDistance(feature=JudgeFeatures(judge), **kwargs)


def inception_score(judge: Judge, **kwargs: Any) -> InceptionScore:
    """IS (Salimans et al., arXiv 1606.03498) by a judge's class mass; from 1 to the number of classes."""
    return InceptionScore(feature=JudgeFeatures(judge, log_mass=True), **kwargs)


class GivenFeatures(nn.Module):
    """Features that are there already, in place of images."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """The same `(N, D)`."""
        return features


def set_scores(judgement: Judgement, reference_features: torch.Tensor | None = None) -> dict[str, float]:
    """
    Inception Score of a judged set of images, and its FID and KID to reference features, by torchmetrics.

    Args:
        judgement ([`~avgas_pipeline.metrics.judges.Judgement`]): Of N images.
        reference_features (`torch.Tensor` of shape `(M, D)`, *optional*): The same judge's, of real images.

    Returns:
        `dict[str, float]`: `inception_score`, and with references `fid` and `kid` (over subsets of at most 100,
        always the same ones).
    """
    # IS and KID draw subsets.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        score = InceptionScore(feature=GivenFeatures(judgement.class_mass.shape[1]))
        score.update(_log_mass(judgement))
        result = {"inception_score": float(score.compute()[0])}
        if reference_features is None or min(len(judgement.features), len(reference_features)) < 2:
            return result
        given = GivenFeatures(judgement.features.shape[1])
        subset_size = min(KID_SUBSET_SIZE, len(judgement.features), len(reference_features))
        for metric in (FrechetInceptionDistance(given), KernelInceptionDistance(given, subset_size=subset_size)):
            metric.update(reference_features, real=True)
            metric.update(judgement.features, real=False)
            is_kid = isinstance(metric, KernelInceptionDistance)
            result["kid" if is_kid else "fid"] = float(metric.compute()[0] if is_kid else metric.compute())
    return result


def _log_mass(judgement: Judgement) -> torch.Tensor:
    return judgement.class_mass.clamp(min=1e-12).log()
