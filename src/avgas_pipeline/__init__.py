"""See what a soundscape sounds like: separate its sources and draw them with diffusion."""

import importlib
import logging
import sys
from typing import TYPE_CHECKING, Any

from .loaders.registration import register
from .version import VERSION


if TYPE_CHECKING:
    from .audio.loading import load_audio
    from .loaders.model_card import create_model_card
    from .loaders.remote_code import export_remote_code
    from .models.separator import AudioVisualSeparator, AudioVisualSeparatorOutput
    from .models.whisper import WhisperAudioEncoder
    from .models.yamnet import YamnetEncoder, YamnetFeatureExtractor
    from .pipeline_avgas import AVGASPipeline
    from .pipeline_output import AVGASPipelineOutput, EncodedAudio, SoundSource
    from .prompts import Prompts, describe


__version__ = VERSION

__all__ = [
    "AVGASPipeline",
    "AVGASPipelineOutput",
    "AudioVisualSeparator",
    "AudioVisualSeparatorOutput",
    "EncodedAudio",
    "Prompts",
    "SoundSource",
    "WhisperAudioEncoder",
    "YamnetEncoder",
    "YamnetFeatureExtractor",
    "create_model_card",
    "describe",
    "export_remote_code",
    "load_audio",
]

# Where each name is. It is imported when it is first used: torch and diffusers take seconds.
_MODULES = {
    "AVGASPipeline": ".pipeline_avgas",
    "AVGASPipelineOutput": ".pipeline_output",
    "AudioVisualSeparator": ".models.separator",
    "AudioVisualSeparatorOutput": ".models.separator",
    "EncodedAudio": ".pipeline_output",
    "Prompts": ".prompts",
    "SoundSource": ".pipeline_output",
    "WhisperAudioEncoder": ".models.whisper",
    "YamnetEncoder": ".models.yamnet",
    "YamnetFeatureExtractor": ".models.yamnet",
    "create_model_card": ".loaders.model_card",
    "describe": ".prompts",
    "export_remote_code": ".loaders.remote_code",
    "load_audio": ".audio.loading",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Without torchvision, transformers warns of each image processor that diffusers imports for IP-Adapter.
    warnings = logging.getLogger("transformers.utils.import_utils")
    warnings.addFilter(_is_not_about_torchvision)
    try:
        value = getattr(importlib.import_module(_MODULES[name], __name__), name)
    except AttributeError as error:
        # Python would take it to say that there is no such name here.
        raise ImportError(f"{name} can't be imported: {error}") from error
    finally:
        warnings.removeFilter(_is_not_about_torchvision)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _is_not_about_torchvision(record: logging.LogRecord) -> bool:
    return "torchvision" not in record.getMessage()


register(sys.modules[__name__])
