"""
Python scripts in processes of their own, forked from one that has imported the libraries, which takes ten seconds.

Other than in a fresh interpreter, imports are done, variables that they read have the values of the first call,
strings have the hashes of every other fork, and `atexit` does nothing.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path


_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "avgas_pipeline.cli",
        "avgas_pipeline.pipeline_avgas",
        "accelerate",
        "datasets",
        "torch.utils.tensorboard",
        "torchmetrics",
    ]
)


def run(command, timeout=None):
    """
    What `subprocess.run` gives of `python script ...` or `python -m module ...`, with captured text; after so many
    seconds it is killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        process, outputs = _start(command, folder)
        try:
            process.join(timeout)
        finally:
            _kill(process)
        texts = [path.read_text(encoding="utf-8") for path in outputs]
    return subprocess.CompletedProcess(command, process.exitcode, *texts)


def kill_once(command, is_time):
    """Starts it as `run` does, and kills it and its workers as soon as `is_time()`; it has to run until then."""
    with tempfile.TemporaryDirectory() as folder:
        process, _ = _start(command, folder)
        try:
            while not is_time():
                assert process.is_alive()
                time.sleep(0.01)
        finally:
            _kill(process)


def _start(command, folder):
    python, *arguments = map(str, command)
    assert python == sys.executable
    outputs = [Path(folder) / name for name in ("out", "err")]
    for path in outputs:
        path.touch()
    process = _context.Process(target=_run, args=(arguments, outputs, dict(os.environ), os.getcwd()))
    process.start()
    return process, outputs


def _kill(process):
    # Of a process that has ended, its workers may be left.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _run(arguments, outputs, environment, folder):
    # As in a fresh interpreter: workers would be forked from a server of their own.
    multiprocessing.set_start_method(None, force=True)
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY), number)
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(arguments[0]).parent))
        runpy.run_path(arguments[0], run_name="__main__")
