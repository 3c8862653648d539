"""See what a soundscape sounds like: separate its sources and draw them with diffusion."""

import sys

from .imports import importing


with importing():
    from .audio import load_audio
    from .audio_encoder import WhisperAudioEncoder
    from .cards import create_model_card
    from .pipeline_avgas import AVGASPipeline
    from .pipeline_output import AVGASPipelineOutput, EncodedAudio, SoundSource
    from .registration import register
    from .remote_code import export_remote_code
    from .separator import AudioVisualSeparator, AudioVisualSeparatorOutput
    from .yamnet import YamnetEncoder, YamnetFeatureExtractor


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
