import os


# Before any Hugging Face library is imported: only the tests of a local Hub go online, in processes of their own.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from tiny import tiny_components

from avgas_pipeline import AVGASPipeline


torch.set_num_threads(1)


@pytest.fixture
def components():
    return tiny_components()


@pytest.fixture
def pipe(components):
    pipeline = AVGASPipeline(**components)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A saved tiny pipeline; read-only by convention."""
    folder = tmp_path_factory.mktemp("checkpoint")
    AVGASPipeline(**tiny_components()).save_pretrained(folder)
    return folder
