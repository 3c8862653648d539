"""See what a soundscape sounds like: separate its sources and draw them with diffusion."""

import sys

from .imports import importing


with importing():
    from .audio.loading import load_audio
    from .loaders.model_card import create_model_card
    from .loaders.registration import register
    from .loaders.remote_code import export_remote_code
    from .models.separator import AudioVisualSeparator, AudioVisualSeparatorOutput
    from .models.whisper import WhisperAudioEncoder
    from .models.yamnet import YamnetEncoder, YamnetFeatureExtractor
    from .pipeline_avgas import AVGASPipeline
    from .pipeline_output import AVGASPipelineOutput, EncodedAudio, SoundSource


__version__ = "0.1.0.dev0"

__all__ = [
    "AVGASPipeline",
    "AVGASPipelineOutput",
    "AudioVisualSeparator",
    "AudioVisualSeparatorOutput",
    "EncodedAudio",
    "SoundSource",
    "WhisperAudioEncoder",
    "YamnetEncoder",
    "YamnetFeatureExtractor",
    "create_model_card",
    "export_remote_code",
    "load_audio",
]

register(sys.modules[__name__])
