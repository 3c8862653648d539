"""What one of several processes does for all."""

from collections.abc import Callable

from accelerate import PartialState
from accelerate.utils import broadcast_object_list


def first_process_alone(state: PartialState, work: Callable[[], None]) -> None:
    """
    Has the first process do something while the others wait.

    Raises:
        ValueError: In all processes, if it fails in the first one; of one process, its own error.
    """
    message: list[str | None] = [None]
    if state.is_main_process:
        try:
            work()
        except (ValueError, OSError) as error:
            if state.num_processes == 1:
                raise
            message[0] = " ".join(str(error).split())
    broadcast_object_list(message)
    if message[0] is not None:
        raise ValueError(message[0])
