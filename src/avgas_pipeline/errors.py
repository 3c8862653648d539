"""What a recording can be refused for, apart from bad arguments: for who wants to say it in words of their own."""


class SilentRecordingError(ValueError):
    """There is nothing to hear."""


class NoSourceError(ValueError):
    """Nothing is heard that the model knows, or is sure enough of."""


class RecordingTooLongError(ValueError):
    """It is longer than it may be."""


class NothingToDrawError(ValueError):
    """All sources have a weight of 0."""
