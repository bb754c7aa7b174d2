"""The pool of workers: failures, SIGTERM to the parent and to one worker, a killed parent. Processes are real."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jmp_lib import pool
from jmp_lib.pool import Terminated, run_jobs, termination

TESTS = Path(__file__).parent
SCRIPT = """
import sys; sys.path[:0] = [{root!r}, {tests!r}]
from jmp_lib import pool
import test_pool
if __name__ == "__main__":
    pool.GRACE = {grace}
    outcomes = pool.run_jobs([(str(i), test_pool.{job}, ({folder!r}, i)) for i in range({count})], 2, "jobs")
    test_pool.write({folder!r}, "outcomes", [(o.label, o.result, o.error) for o in outcomes])
"""


def square(x):
    if x < 0:
        raise ValueError("negative")
    return os.getpid(), x * x


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failed_job_does_not_end_the_others(workers):
    outcomes = run_jobs([(str(x), square, (x,)) for x in (2, -1, 3)], workers, "squares")
    assert [o.label for o in outcomes] == ["2", "-1", "3"]
    assert [o.result and o.result[1] for o in outcomes] == [4, None, 9]
    assert outcomes[1].error == "ValueError: negative" and "in square" in outcomes[1].details
    assert (outcomes[0].result[0] == os.getpid()) == (workers == 1)
    assert run_jobs([], workers, "nothing") == []


def write(folder, name, value) -> None:
    temporary = Path(folder) / f"{name}.tmp"
    temporary.write_text(json.dumps(value))
    os.replace(temporary, Path(folder) / name)


def read(folder, name):
    path = Path(folder) / name
    return json.loads(path.read_text()) if path.exists() else None


def nap(folder, number):
    """Knows nothing of SIGTERM; jobs 0 and 1 sleep."""
    write(folder, f"pid{number}", os.getpid())
    time.sleep(120 if number < 2 else 0)
    return number


def training(folder, number, updates=400):
    """As a training: looks for SIGTERM after every update of 50 ms, and then takes a second for its checkpoint."""
    write(folder, f"pid{number}", os.getpid())
    with termination() as asked:
        for update in range(updates if number < 2 else 2):
            time.sleep(0.05)
            if asked:
                time.sleep(1.0)
                write(folder, f"checkpoint{number}", update + 1)
                pool.end(f"training {number}: SIGTERM after update {update}; the checkpoint is written")
            if read(folder, "enough"):
                break
    return number


def started(folder, job, count=2, grace=60.0) -> subprocess.Popen:
    """A parent with two workers, both at work."""
    code = SCRIPT.format(root=str(TESTS.parent), tests=str(TESTS), job=job,
                         folder=str(folder), count=count, grace=grace)
    script = folder / "script.py"
    script.write_text(code)
    parent = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: read(folder, "pid0") and read(folder, "pid1"), 90)
    return parent


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.is_file() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z")


def test_sigterm_to_the_parent_lets_every_worker_write_its_checkpoint(tmp_path):
    parent = started(tmp_path, "training", count=4)
    parent.send_signal(signal.SIGTERM)
    _, said = parent.communicate(timeout=60)
    assert parent.returncode == 143
    assert read(tmp_path, "checkpoint0") and read(tmp_path, "checkpoint1")
    assert read(tmp_path, "pid2") is None  # what waited was not begun
    assert "jobs: SIGTERM; 2 runs were ended, their checkpoints are written, and the same command goes on" in said
    assert not any(running(read(tmp_path, f"pid{n}")) for n in (0, 1))


def test_sigterm_to_one_worker_ends_its_run_alone(tmp_path):
    parent = started(tmp_path, "training", count=4)
    os.kill(read(tmp_path, "pid0"), signal.SIGTERM)
    wait_for(lambda: read(tmp_path, "checkpoint0"), 60)
    wait_for(lambda: read(tmp_path, "pid3"), 60)  # the worker goes on with the next jobs
    assert running(read(tmp_path, "pid1"))
    write(tmp_path, "enough", True)
    parent.communicate(timeout=60)
    outcomes = read(tmp_path, "outcomes")
    assert parent.returncode == 0 and [result for _, result, _ in outcomes] == [None, 1, 2, 3]
    assert "training 0: SIGTERM after update" in outcomes[0][2] and "run again" in outcomes[0][2]
    assert read(tmp_path, "checkpoint1") is None


def test_a_worker_that_dies_costs_its_job_alone(tmp_path):
    """Killed for its memory, or told to end before its training has begun."""
    parent = started(tmp_path, "nap", count=4)
    os.kill(read(tmp_path, "pid0"), signal.SIGKILL)
    os.kill(read(tmp_path, "pid1"), signal.SIGTERM)
    parent.communicate(timeout=90)
    outcomes = read(tmp_path, "outcomes")
    assert [result for _, result, _ in outcomes] == [None, None, 2, 3]
    for (_, _, error), wanted in zip(outcomes, ("ended from outside", "SIGTERM outside the training")):
        assert wanted in error and "run again" in error


def test_a_worker_that_does_not_end_is_killed_after_a_while(tmp_path):
    parent = started(tmp_path, "deaf", grace=1.0)
    parent.send_signal(signal.SIGTERM)
    parent.communicate(timeout=30)
    assert parent.returncode == 143
    wait_for(lambda: not any(running(read(tmp_path, f"pid{n}")) for n in (0, 1)), 10)


def deaf(folder, number):
    write(folder, f"pid{number}", os.getpid())
    with termination():
        end = time.monotonic() + 120
        while time.monotonic() < end:
            time.sleep(1.0)


def test_workers_end_when_their_parent_is_killed(tmp_path):
    """Those that train write a checkpoint first."""
    for job in ("nap", "training"):
        folder = tmp_path / job
        folder.mkdir()
        parent = started(folder, job)
        parent.kill()
        parent.communicate()
        for number in (0, 1):
            wait_for(lambda: not running(read(folder, f"pid{number}")), 30)
    assert read(tmp_path / "training", "checkpoint0") and read(tmp_path / "training", "checkpoint1")


def long_finetuning(folder, number):
    """A real fine-tuning that would go on for hours."""
    from jmp_lib.settings import load_profile
    from jmp_lib.train.finetuning import finetune

    write(folder, f"pid{number}", os.getpid())
    changes = {f"finetuning.defaults.schedule.{k}": "100000 updates"
               for k in ("cosine_until", "stop_at", "validate_every")}
    profile = load_profile("smoke", device="cpu", **changes)
    finetune(profile, ("qm9_mu", "rmd17_ethanol")[number], "GN-OC-S", Path(folder) / "results", progress=False)


def test_trainings_in_workers_end_with_their_checkpoints(tmp_path):
    import torch

    parent = started(tmp_path, "long_finetuning")
    work = [tmp_path / "results" / "work" / "finetune" / task / "GN-OC-S" for task in ("qm9_mu", "rmd17_ethanol")]
    wait_for(lambda: all((w / "log.csv").exists() and len((w / "log.csv").read_text().splitlines()) > 2
                         for w in work), 120)
    parent.send_signal(signal.SIGTERM)
    _, said = parent.communicate(timeout=120)
    assert parent.returncode == 143 and said.count("SIGTERM after update") == 2 and "2 runs were ended" in said
    for folder in work:
        step = torch.load(*folder.glob("checkpoint-*.pt"), weights_only=True)["progress"]["step"]
        assert step == len((folder / "log.csv").read_text().splitlines()) - 1


def test_the_handler_of_before_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated) as ended, termination() as asked:
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(lambda: asked, 5)
        pool.end("so")
    assert ended.value.code == 143 and str(ended.value) == "so" and signal.getsignal(signal.SIGTERM) is before


def threads(folder, number):
    return [os.environ[name] for name in pool.SINGLE_THREAD]


def test_workers_compute_with_one_thread_and_a_job_that_cannot_travel_is_said(monkeypatch):
    for name in pool.SINGLE_THREAD:
        monkeypatch.delenv(name, raising=False)
    outcomes = run_jobs([("a", threads, ("", 0)), ("b", lambda: None, ())], 2, "jobs")
    assert outcomes[0].result == ["1"] * 3 and "pickle" in outcomes[1].error and not outcomes[1].result
