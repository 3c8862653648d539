"""Real audio and video files, encoded with PyAV."""

import av
import numpy as np


def tone(seconds=2.0, sampling_rate=44100, frequency=440.0, level=0.5):
    """A sine of shape `(samples,)`, float32."""
    time = np.arange(round(seconds * sampling_rate)) / sampling_rate
    return (level * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def write_audio(path, samples, sampling_rate, codec, container=None, layout="mono", picture_codec=None, options=None):
    """Encode `(samples,)` or `(channels, samples)` floats to a file; with `picture_codec`, 2 s of moving picture."""
    samples = np.atleast_2d(samples).astype(np.float32)
    with av.open(str(path), "w", format=container, options=options or {}) as file:
        video = file.add_stream(picture_codec, rate=10) if picture_codec else None
        audio = file.add_stream(codec, rate=sampling_rate, layout=layout) if codec else None
        if video is not None:
            video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
            for number in range(20):
                picture = np.full((32, 32, 3), 20 * number % 255, np.uint8)
                file.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            file.mux(video.encode(None))
        if audio is not None:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
            frame.sample_rate = sampling_rate
            audio.codec_context.open(strict=False)
            resampler = av.AudioResampler(
                format=audio.format, layout=layout, rate=sampling_rate, frame_size=audio.codec_context.frame_size
            )
            for piece in resampler.resample(frame) + resampler.resample(None):
                file.mux(audio.encode(piece))
            file.mux(audio.encode(None))
    return path
