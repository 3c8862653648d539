"""Evaluation of soundscape-to-image systems: `avgas evaluate` and `avgas study`."""

from .evaluate import evaluate, read_report
from .lineup import build_lineup
from .soundscapes import MixtureSet, RecordingSet, Soundscape, load_evaluation_set
from .systems import Drawing, DrawingSettings, ImageFolderSystem, PipelineSystem


__all__ = [
    "Drawing",
    "DrawingSettings",
    "ImageFolderSystem",
    "MixtureSet",
    "PipelineSystem",
    "RecordingSet",
    "Soundscape",
    "build_lineup",
    "evaluate",
    "load_evaluation_set",
    "read_report",
]
