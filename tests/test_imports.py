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
