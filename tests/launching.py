"""Two processes on the CPU, launched as users launch them."""

import socket


def two_processes():
    """Arguments of the Python interpreter; what spawns processes is called `--multi_gpu`, whatever they run on."""
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"]
    return [*launch, "--mixed_precision=no", "--dynamo_backend=no", f"--main_process_port={free_port()}"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
