"""Calls that change the state of an object, and would spoil one another in different threads."""

import inspect
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any


_GUARD = threading.Lock()
# By `id`: how many calls share an object, or -1 while one has it alone.
_USERS: dict[int, int] = {}

_BUSY = (
    "This pipeline is in the middle of another call, or shares its scheduler, LoRA scale or offloading with one: give"
    " every thread a copy that shares the weights but has a scheduler of its own, with"
    " `AVGASPipeline.from_pipe(pipe, scheduler=type(pipe.scheduler).from_config(pipe.scheduler.config))`."
)


def one_call_at_a_time(call: Callable) -> Callable:
    """
    Decorator of a pipeline's `__call__`: raises `RuntimeError` instead of drawing from the state of two calls at once.
    """
    signature = inspect.signature(call)

    @wraps(call)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        options = signature.bind(self, *args, **kwargs).arguments.get("cross_attention_kwargs") or {}
        alone, shared = _by_use((self.unet, self.text_encoder), options.get("scale"))
        with in_use([self, self.scheduler, *alone], shared):
            return call(self, *args, **kwargs)

    return checked


@contextmanager
def reading(models: Iterable[Any], lora_scale: float | None) -> Iterator[None]:
    """Holds models that other calls may use at the same time, unless this or another one scales their LoRA layers."""
    with in_use(*_by_use(models, lora_scale)):
        yield


@contextmanager
def in_use(alone: Iterable[Any], shared: Iterable[Any] = (), busy: str = _BUSY) -> Iterator[None]:
    """
    Holds objects while the block runs.

    Args:
        alone (`Iterable`): Those whose state the block changes.
        shared (`Iterable`, *optional*): Those that other blocks may hold at the same time.
        busy (`str`, *optional*): What the error says.

    Raises:
        RuntimeError: At once, if another block that runs does not go with this one.
    """
    # By `id`, as models can't be compared fast; `None` is no object.
    exclusive = {id(thing) for thing in alone if thing is not None}
    common = {id(thing) for thing in shared if thing is not None} - exclusive
    with _GUARD:
        if any(_USERS.get(key) for key in exclusive) or any(_USERS.get(key, 0) < 0 for key in common):
            raise RuntimeError(busy)
        _USERS.update(dict.fromkeys(exclusive, -1))
        for key in common:
            _USERS[key] = _USERS.get(key, 0) + 1
    try:
        yield
    finally:
        with _GUARD:
            for key in exclusive:
                del _USERS[key]
            for key in common:
                _USERS[key] -= 1
                if not _USERS[key]:
                    del _USERS[key]


def _by_use(models: Iterable[Any], lora_scale: float | None) -> tuple[list[Any], list[Any]]:
    """Models whose weights a call changes or moves, and those it only reads."""
    alone, shared = [], []
    for model in models:
        is_changed = lora_scale not in (None, 1) or hasattr(model, "_hf_hook")
        (alone if is_changed else shared).append(model)
    return alone, shared
