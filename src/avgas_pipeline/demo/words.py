"""What went wrong, in a visitor's words."""


def plain(error: Exception, name: str) -> str:
    """
    Args:
        error (`Exception`): Of the pipeline.
        name (`str`): Of the recording.
    """
    text = str(error)
    if "silent" in text:
        return f"{name}: this recording is silent."
    if "no sound that the model knows" in text:
        return f"{name}: nothing is heard in it that the model knows."
    if "weight of 0" in text:
        return "Every sound is muted, so nothing is left to draw."
    return text.removeprefix("Soundscape 0: ")
