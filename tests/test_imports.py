"""What importing the package leaves as it was."""

import gc

import pytest
from transformers.utils import logging

from avgas_pipeline.imports import importing


@pytest.mark.parametrize("is_enabled", [True, False])
def test_collector_and_verbosity_are_put_back(is_enabled):
    verbosity = logging.get_verbosity()
    logging.set_verbosity_info()
    try:
        if not is_enabled:
            gc.disable()
        with pytest.raises(ImportError), importing():
            assert not gc.isenabled()
            assert logging.get_verbosity() == logging.ERROR
            raise ImportError
        assert gc.isenabled() == is_enabled
        assert logging.get_verbosity() == logging.INFO
    finally:
        gc.enable()
        logging.set_verbosity(verbosity)


def test_what_is_imported_is_not_looked_through():
    with importing():
        imported = []
    assert any(known is imported for known in gc.get_objects(generation=2))


def test_what_was_frozen_stays_frozen():
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with importing():
            pass
        # A frozen object may be freed, as any other.
        assert gc.get_freeze_count() > frozen / 2
    finally:
        gc.unfreeze()
