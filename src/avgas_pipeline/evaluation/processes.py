"""What one of several processes does for all."""

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list


Result = TypeVar("Result")
# How long processes wait for another one, which may decode videos or judge for hours; else it would be minutes.
TIMEOUT = timedelta(days=1)


def shared_state(cpu: bool = False) -> PartialState:
    """The processes that share the work; on the CPU alone if asked for."""
    return PartialState(cpu=cpu, timeout=TIMEOUT)


def first_process_alone(state: PartialState, work: Callable[[], Result]) -> Result:
    """
    Has the first process do something while the others wait; what comes of it all get.

    Raises:
        ValueError: In all processes, if it fails in the first one; of one process, its own error.
    """
    shared: list = [None, None]
    if state.is_main_process:
        try:
            shared[0] = work()
        except (ValueError, OSError) as error:
            if state.num_processes == 1:
                raise
            shared[1] = " ".join(str(error).split())
    broadcast_object_list(shared)
    if shared[1] is not None:
        raise ValueError(shared[1])
    return shared[0]
