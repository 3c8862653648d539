import os


# Before any Hugging Face library is imported: only the tests of a local Hub go online, in processes of their own.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from tiny import tiny_components
from vggsound_tree import make_clips, write_folder, write_shards

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


@pytest.fixture(scope="session")
def clips():
    """Videos of a small VGGSound, good and bad ones, by clip id."""
    return make_clips()


@pytest.fixture(scope="session")
def folder(clips, tmp_path_factory):
    """That VGGSound as a folder; read-only by convention."""
    return write_folder(tmp_path_factory.mktemp("videos"), clips)


@pytest.fixture(scope="session")
def shards(clips, tmp_path_factory):
    """The same as tar shards; read-only by convention."""
    return write_shards(tmp_path_factory.mktemp("shards"), clips)
