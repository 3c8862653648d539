"""How runs go on: after numbers that are not finite, to more steps, from moved paths, over junk, and after signals."""

import os
import shutil
import signal
import sys

import forked
import pytest
import torch
import train as generator_script
import train_separator as script
import training_runs as runs
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from training_inputs import write_training_inputs
from training_runs import curve, weights

from avgas_training.checkpoints import Checkpoints
from avgas_training.curves import Curves
from avgas_training.folder import claim_output_dir


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Read-only by convention."""
    return write_training_inputs(tmp_path_factory.mktemp("going-on"))


SHORT = {"max_train_steps": 4, "checkpointing_steps": 3, "image_encoder": None, "validation_fraction": 0}


def settings(inputs, out, **changed):
    return runs.mixture_settings(inputs, out, {**SHORT, **changed})


def train(inputs, out, **changed):
    runs.run(script.main, settings(inputs, out, **changed))


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    """Read-only by convention."""
    out = tmp_path_factory.mktemp("finished") / "run"
    train(inputs, out)
    return out


def spoil(path):
    """Makes the weights of a checkpoint, and whatever else is averaged there, infinite."""
    for file in path.glob("*.safetensors"):
        with safe_open(file, "pt") as saved:
            metadata = saved.metadata()
        values = {name: torch.full_like(value, torch.inf) for name, value in load_file(file).items()}
        save_file(values, file, metadata=metadata)


# -- bad data -------------------------------------------------------------------------------------------------------

FAILING = """
from torch.utils.data import DataLoader, Dataset
from avgas_training.command_line import run_script
from avgas_training.data.order import start_worker

class Clips(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, number):
        if number == 5:
            raise ValueError("clip 5: can't be read")
        return number

def main():
    for _ in DataLoader(Clips(), 1, num_workers=2, worker_init_fn=start_worker):
        pass

run_script(main)
"""


def test_what_goes_wrong_in_a_loader_ends_the_run_with_one_line(tmp_path):
    """Its processes ignore SIGTERM, so they were waited for without end."""
    (tmp_path / "failing.py").write_text(FAILING)
    result = forked.run([sys.executable, tmp_path / "failing.py"], timeout=60)
    assert (result.returncode, result.stderr.splitlines()[-1:]) == (2, ["error: clip 5: can't be read"])
    assert "Traceback" not in result.stderr


def test_examples_of_other_pictures_are_not_taken_for_these(inputs, tmp_path):
    data = shutil.copytree(inputs / "clips", tmp_path / "clips")
    options = {"full": True, "max_train_steps": 1, "cache_examples": True, "lr_warmup_steps": 0}
    drop = {"validation_fraction": None, "dataset": data}
    runs.run(generator_script.main, settings(inputs, tmp_path / "run", **drop, **options))
    for path in data.rglob("*.parquet"):
        os.utime(path)
    with pytest.raises(ValueError, match="holds examples of other settings, data or models; remove it"):
        again = settings(inputs, tmp_path / "run", overwrite_output_dir=True, **drop, **options)
        runs.run(generator_script.main, again)


# -- numbers that are not finite ------------------------------------------------------------------------------------


def test_a_loss_that_is_none_names_the_last_good_checkpoint(inputs, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    spoil(out / "checkpoint-4")
    with pytest.raises(ValueError, match=r"at step 4; .*checkpoint-3 is the last checkpoint whose weights are finite"):
        train(inputs, out, max_train_steps=8, resume_from_checkpoint="latest")
    spoil(out / "checkpoint-3")
    with pytest.raises(ValueError, match="no checkpoint has finite weights: begin anew"):
        train(inputs, out, max_train_steps=8, resume_from_checkpoint="latest")


@pytest.mark.parametrize("where", ["weight", "optimiser"])
def test_no_checkpoint_has_numbers_that_are_none(tmp_path, where):
    accelerator = Accelerator(cpu=True)
    model = torch.nn.Linear(1, 1)
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    checkpoints = Checkpoints(accelerator, tmp_path, {})
    checkpoints.save(1)
    with torch.no_grad():
        if where == "weight":
            model.weight.fill_(torch.nan)
        else:
            optimizer.optimizer.state[model.weight]["exp_avg_sq"].fill_(torch.inf)
    with pytest.raises(ValueError, match=r"not finite at step 2; .*checkpoint-1 is the last checkpoint"):
        checkpoints.save(2)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    accelerator.free_memory()


def test_a_result_has_finite_weights(inputs, tmp_path):
    """Also if the last step has spoilt them, after the last loss."""
    with pytest.raises(ValueError, match="not finite at step 1; no checkpoint"):
        train(inputs, tmp_path / "run", max_train_steps=1, learning_rate=1e30, weight_decay=1e30, lr_warmup_steps=0)
    assert not (tmp_path / "run/model_index.json").exists()


# -- more steps -----------------------------------------------------------------------------------------------------


def test_a_finished_run_is_trained_on_from_its_last_step(inputs, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    assert (out / "checkpoint-4").exists()
    train(inputs, out, max_train_steps=8, resume_from_checkpoint="latest")
    assert sorted(curve(out, "loss")) == list(range(1, 9))
    before, after = weights(finished), weights(out)
    assert any(not torch.equal(tensor, after[name]) for name, tensor in before.items())
    rates = curve(out, "lr")
    assert rates[5] > rates[4] and rates[8] == pytest.approx(0, abs=1e-8)
    # As the schedule of eight steps has it.
    planned = tmp_path / "planned"
    train(inputs, planned, max_train_steps=8)
    assert rates[6] == pytest.approx(curve(planned, "lr")[6])


@pytest.mark.parametrize("changed", [{"max_train_steps": 3}, {"max_train_steps": 8, "seed": 1}])
def test_a_finished_run_is_not_shortened_or_changed(inputs, finished, tmp_path, changed):
    out = shutil.copytree(finished, tmp_path / "run")
    with pytest.raises(ValueError, match=r"is of another run: max_train_steps.* differ"):
        train(inputs, out, resume_from_checkpoint="latest", **changed)


def test_an_unfinished_run_keeps_its_length(inputs, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    with pytest.raises(ValueError, match="is of another run: max_train_steps differ"):
        train(inputs, out, resume_from_checkpoint=out / "checkpoint-3", max_train_steps=8)


def test_a_schedule_with_an_end_of_its_own_gets_a_later_one(tmp_path):
    """The judge's, which refuses to go on beyond it."""

    def run(total, resume):
        accelerator = Accelerator(cpu=True)
        model = torch.nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=total)
        model, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
        checkpoints = Checkpoints(accelerator, tmp_path, {"max_train_steps": total})
        rates = {}
        for step in range(checkpoints.resume("latest") if resume else 0, total):
            rates[step] = optimizer.param_groups[0]["lr"]
            optimizer.step()
            schedule.step()
        if total == 10:
            checkpoints.save(total)
        accelerator.free_memory()
        return rates

    run(10, resume=False)
    went_on = run(20, resume=True)
    planned = run(20, resume=False)
    assert went_on == pytest.approx({step: planned[step] for step in range(10, 20)})


# -- paths ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_path_may_be_written_in_other_ways(inputs, finished, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(inputs / "untrained")
    monkeypatch.chdir(inputs)
    for number, path in enumerate(("untrained", "./untrained/", "clips/../untrained", tmp_path / "link")):
        out = shutil.copytree(finished, tmp_path / str(number))
        train(inputs, out, pretrained_model_name_or_path=path, resume_from_checkpoint="latest")
    shutil.copytree(inputs / "untrained", tmp_path / "other")
    with pytest.raises(ValueError, match="pretrained_model_name_or_path differ"):
        train(inputs, out, pretrained_model_name_or_path=tmp_path / "other", resume_from_checkpoint="latest")


@pytest.mark.slow
def test_cached_examples_know_their_data_by_any_path(inputs, tmp_path, monkeypatch):
    options = {"image_encoder": None, "cache_examples": True, "max_train_steps": 1, "num_examples": 4}
    monkeypatch.chdir(inputs)
    for dataset in (inputs / "clips", "clips/", "./clips"):
        changed = {**options, "dataset": dataset, "overwrite_output_dir": True}
        runs.run(generator_script.main, runs.mixture_settings(inputs, tmp_path / "run", changed))
    (tmp_path / "run/cache/cache.json").write_bytes(b"[" * 100_000)
    with pytest.raises(ValueError, match=r"cache\.json.*: not JSON"):
        runs.run(generator_script.main, runs.mixture_settings(inputs, tmp_path / "run", changed))
    (tmp_path / "run/cache/cache.json").write_text("[]")
    with pytest.raises(ValueError, match=r"cache\.json: not the state of a cache"):
        runs.run(generator_script.main, runs.mixture_settings(inputs, tmp_path / "run", changed))


# -- junk -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "junk",
    [b"", b"[]", b"{}", b"[" * 100_000, b"\xff", b'{"step": 1, "settings": []}', b'{"step": 1e999, "settings": {}}'],
    ids=range(7),
)
def test_a_state_of_junk_is_no_checkpoint(tmp_path, junk):
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3/trainer_state.json").write_bytes(junk)
    checkpoints = Checkpoints(Accelerator(cpu=True), tmp_path, {})
    with pytest.raises(ValueError, match="checkpoint-3: not a complete checkpoint"):
        checkpoints.resume("latest")


@pytest.mark.parametrize("junk", [b"", b"[" * 100_000, b"[1, 2]", b"7", b"\xff", b'{"../mine": [], "": [], "/": []}'])
def test_overwriting_over_junk_removes_nothing_else(tmp_path, junk):
    (tmp_path / "mine").mkdir()
    run = tmp_path / "run"
    (run / "checkpoint-1").mkdir(parents=True)
    (run / "model_index.json").write_bytes(junk)
    (run / "notes.txt").write_text("mine")
    claim_output_dir(run, overwrite=True, resume_from_checkpoint=None)
    assert (tmp_path / "mine").exists() and [path.name for path in run.iterdir()] == ["notes.txt"]


def test_curves_of_junk_lose_no_point(tmp_path):
    curves = Curves(tmp_path / "curves.jsonl")
    curves.add({"loss": 1.0}, 1)
    for number, junk in enumerate(
        (b"[]", b"\xff", b"[" * 100_000, b"3", b'{"step": [], "loss": 1}', b'{"step": 9, "l')
    ):
        with open(curves.path, "ab") as file:
            file.write(junk)
        curves.add({"loss": 2.0}, number + 2)
    assert curves.read() == {"loss": {1: 1.0, **dict.fromkeys(range(2, 8), 2.0)}}


def test_a_checkpoint_whose_removal_was_killed_is_not_the_latest(tmp_path):
    accelerator = Accelerator(cpu=True)
    accelerator.prepare(torch.nn.Linear(1, 1))
    for step in (1, 2):
        Checkpoints(accelerator, tmp_path, {}).save(step)
    pid = os.fork()
    if not pid:
        shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        Checkpoints(accelerator, tmp_path, {}, total_limit=1).save(2)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert Checkpoints(accelerator, tmp_path, {}).resume("latest") in (1, 2)
    accelerator.free_memory()


# -- signals and streams --------------------------------------------------------------------------------------------


def in_a_process(tmp_path, before, command):
    """A script in a process of its own, after some lines of Python."""
    path, *arguments = command[1:]
    text = f"import os, runpy, signal, sys, threading, time\nfrom pathlib import Path\n{before}\n"
    text += f"sys.path.insert(0, {str(runs.TRAINING)!r})\nrunpy.run_path({path!r}, run_name='__main__')\n"
    (tmp_path / "script.py").write_text(text)
    return forked.run([sys.executable, tmp_path / "script.py", *arguments])


def when(condition, number):
    return f"""
def end():
    while not ({condition}):
        time.sleep(0.001)
    os.kill(os.getpid(), {int(number)})
threading.Thread(target=end, daemon=True).start()"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_ends(inputs, tmp_path, number):
    out = tmp_path / "run"
    command = runs.command("train_separator.py", settings(inputs, out, max_train_steps=2000, checkpointing_steps=1000))
    result = in_a_process(tmp_path, when(f"Path({str(out)!r}, 'curves.jsonl').exists()", number), command)
    assert result.returncode == 0, result.stderr
    assert len(list(out.glob("checkpoint-*"))) == 1 and not list(out.glob(".partial-*"))


@pytest.mark.slow
def test_full_standard_error_does_not_stop_a_run(inputs, tmp_path):
    command = runs.command("train_separator.py", settings(inputs, tmp_path / "run"))
    before = "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)"
    assert in_a_process(tmp_path, before, command).returncode == 0
    assert (tmp_path / "run/model_index.json").exists()


def test_a_run_that_fails_leaves_no_empty_folder(inputs, tmp_path):
    command = runs.command("train_separator.py", settings(inputs, tmp_path / "deep/run", dataset=tmp_path / "gone"))
    # `atexit` does nothing in a fork.
    before = "import atexit\nfrom multiprocessing.util import Finalize\n"
    before += "Finalize(None, atexit._run_exitfuncs, exitpriority=1)"
    result = in_a_process(tmp_path, before, command)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_nothing_of_other_scripts(inputs, tmp_path, number):
    out = tmp_path / "mean"
    (tmp_path / "in").symlink_to(inputs)
    command = [sys.executable, str(runs.TRAINING / "average_weights.py")]
    command += [*[str(inputs / "untrained")] * 2000, "--output_dir", str(out)]
    result = in_a_process(tmp_path, when(f"list(Path({str(tmp_path)!r}).glob('.partial-*'))", number), command)
    assert result.returncode == 128 + number and "Traceback" not in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "script.py"]
