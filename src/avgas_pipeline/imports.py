"""Importing sooner, and without noise that is about nobody's use of this package."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """
    Keep the garbage collector and transformers' warnings back.

    What is imported stays, and looking through it for garbage takes a tenth of the time: it goes to the oldest
    generation at once. diffusers imports image processors for IP-Adapter, and transformers warns of each when there is
    no torchvision.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        # This is an import to hasten, too.
        from transformers.utils import logging

        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
    finally:
        # Thawing what somebody else froze would not be ours to do.
        if not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()
        if was_enabled:
            gc.enable()
