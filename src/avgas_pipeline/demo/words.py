"""What went wrong, in a visitor's words."""

from ..errors import NoSourceError, NothingToDrawError, RecordingTooLongError, SilentRecordingError


def plain(error: Exception, name: str, max_duration_s: float) -> str:
    """
    Args:
        error (`Exception`): Of the pipeline.
        name (`str`): Of the recording.
        max_duration_s (`float`): Longest recording accepted, in seconds.
    """
    if isinstance(error, SilentRecordingError):
        # Its own name, which may be that of the sound that should not show.
        return f"{str(error).rpartition(': is silent')[0]}: this recording is silent."
    if isinstance(error, NoSourceError):
        return f"{name}: nothing is heard in it that the model knows."
    if isinstance(error, NothingToDrawError):
        return "Every sound is muted, so nothing is left to draw."
    if isinstance(error, RecordingTooLongError):
        # Likewise.
        name = str(error).rpartition(": longer than")[0]
        return f"{name}: is longer than {_minutes(max_duration_s)}, the most that this page takes."
    if isinstance(error, FileNotFoundError):
        return f"{name}: is not there any more; choose it once more."
    if isinstance(error, OSError):
        # Without the path, which is the server's own.
        return f"{name}: can't be kept here ({error.strerror or 'a file can not be read or written'})."
    return str(error).removeprefix("Soundscape 0: ")


def _minutes(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:g} minutes" if minutes >= 2 else f"{seconds:g} seconds"
