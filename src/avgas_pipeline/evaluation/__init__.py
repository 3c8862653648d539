"""Evaluation of soundscape-to-image systems: `avgas evaluate` and `avgas study`."""

from .build_systems import build_systems, known_labels, known_recordings
from .drawings import Drawing
from .evaluate import evaluate
from .image_folder import ImageFolderSystem
from .pipeline_system import DrawingSettings, PipelineSystem
from .report import read_report
from .soundscapes import MixtureSet, RecordingSet, Soundscape, load_evaluation_set


__all__ = [
    "Drawing",
    "DrawingSettings",
    "ImageFolderSystem",
    "MixtureSet",
    "PipelineSystem",
    "RecordingSet",
    "Soundscape",
    "build_systems",
    "evaluate",
    "known_labels",
    "known_recordings",
    "load_evaluation_set",
    "read_report",
]
