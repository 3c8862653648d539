"""The `checkpoint-N` folders of a run."""

import pytest
import torch
from accelerate import Accelerator

from avgas_training.checkpoints import Checkpoints


@pytest.mark.parametrize(("limit", "left"), [(None, [500, 600]), (2, [500, 600]), (1, [600])])
def test_a_run_that_goes_on_from_an_earlier_step_leaves_no_later_ones(tmp_path, limit, left):
    accelerator = Accelerator(cpu=True)
    accelerator.prepare(torch.nn.Linear(1, 1))
    checkpoints = Checkpoints(accelerator, tmp_path, {"seed": 0})
    for step in (500, 1000, 1500):
        checkpoints.save(step)
    checkpoints.total_limit = limit
    assert checkpoints.resume(str(tmp_path / "checkpoint-500")) == 500
    checkpoints.save(600)
    assert [int(path.name.split("-")[1]) for path in checkpoints.paths()] == left
    assert checkpoints.resume("latest") == 600
