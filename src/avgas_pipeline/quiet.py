"""Importing without noise that is about nobody's use of this package."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging


@contextmanager
def quiet_imports() -> Iterator[None]:
    """
    Keep transformers' warnings back.

    diffusers imports image processors for IP-Adapter, and transformers warns of each when there is no torchvision.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
