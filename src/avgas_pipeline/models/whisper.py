"""Audio encoders that transformers has but does not load by name."""

from transformers.models.whisper.modeling_whisper import WhisperEncoder


class WhisperAudioEncoder(WhisperEncoder):
    """
    Whisper's encoder without its decoder, as an audio encoder of the pipeline.

    transformers does not export `WhisperEncoder`, so a checkpoint that names it could not be loaded. Same weights,
    same `last_hidden_state` of shape `(batch, 1500, d_model)`.
    """
