"""A little of what benchmarks/soak.py does at length."""

import numpy as np
import pytest
from fuzzing import Tally, archive, recordings, try_archive, try_checkpoint, try_recording, try_samples


@pytest.fixture
def tally():
    return Tally()


def test_recordings(tally, tmp_path):
    files = recordings(tmp_path)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        tally.attempt("recording", seed, lambda rng=rng: try_recording(files, rng))
    assert not tally.wrong, tally
    assert 0 < tally.refused["recording"] < 200


def test_samples(tally):
    for seed in range(150):
        rng = np.random.default_rng(seed)
        tally.attempt("samples", seed, lambda rng=rng: try_samples(rng))
    assert not tally.wrong, tally
    assert 0 < tally.refused["samples"] < 150


@pytest.mark.slow
def test_archives(tally, tmp_path):
    data = archive(tmp_path)
    for seed in range(300):
        rng = np.random.default_rng(seed)
        tally.attempt("archive", seed, lambda rng=rng: try_archive(tmp_path, data, rng))
    assert not tally.wrong, tally


def test_checkpoints(tally, checkpoint, tmp_path):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        tally.attempt("checkpoint", seed, lambda rng=rng: try_checkpoint(checkpoint, tmp_path / "damaged", rng))
    assert not tally.wrong, tally
    assert 0 < tally.refused["checkpoint"] < 40
