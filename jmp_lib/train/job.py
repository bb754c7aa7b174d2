"""What every training has in common, whatever is trained: processes, lock, finished or not, checkpoint, record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm.auto import tqdm

from jmp_lib import records
from jmp_lib.files import write_json
from jmp_lib.settings import Profile
from jmp_lib.train.processes import Processes, choose_device
from jmp_lib.train.saving import checkpoint_path, say_others
from jmp_lib.train.trainer import Progress, Training, train


@dataclass
class Job:
    """One training, of which one record comes."""

    name: str  # for the bar, logs and errors
    record: Path
    out_dir: Path  # the results that the record and its files belong to
    fingerprint: str  # of everything that decides the numbers
    profile: Profile  # says how the training is carried out
    precision: str = "float32"
    progress: bool = True
    processes: Processes | None = None  # joined by ``run``

    @property
    def work(self) -> Path:
        """Folder of weights, predictions, checkpoint, log."""
        return records.work_dir(self.record, self.out_dir)

    def run(self, recipe: Callable[[Job], tuple[Progress, dict, dict[str, str]]]) -> dict:
        """The record: the finished one of the same fingerprint, or that of ``recipe``.

        recipe: trains (``train``) and writes its files; returns the progress, its own fields of the record, and
        {key: file in ``work``}. It runs on every process; fields and files are those of the first one.
        """
        profile = self.profile
        self.processes = processes = Processes(choose_device(profile.device),
                                               self.precision, profile.engine.cpu_autocast)
        checkpoint = checkpoint_path(self.work, self.fingerprint)
        with processes.alone(self.work / "lock"):
            found = records.finished_record(self.record, self.out_dir, self.fingerprint)
            if not processes.fabric.broadcast(found is not None):
                torch.set_num_threads(profile.threads)
                if processes.first:
                    say_others(checkpoint, self.name)
                done, fields, files = recipe(self)
                if processes.first:
                    how = {
                        "updates": done.step, "history": done.history, "wall_time_s": done.seconds,
                        "train_time_s": done.train_seconds, "waiting_s": done.waiting_seconds,
                        "waiting_share": done.waiting_share, "processes": processes.size,
                        "workers_data": profile.engine.workers_data, "max_edges": done.max_edges,
                        "graphs": done.graphs, "skipped_by_scaler": done.skipped_by_scaler,
                        "threads": profile.threads, "machines": done.machines,
                        "device": records.device_name(processes.device), "precision": processes.precision,
                        "peak_memory_mb": records.peak_memory_mb(), "commit": records.git_commit(),
                        "versions": records.versions()}
                    entries = {key: records.file_entry(self.work / file, self.out_dir) for key, file in files.items()}
                    write_json(self.record, {"schema": records.SCHEMA, **fields, **how, "files": entries,
                                             "fingerprint": self.fingerprint})
                    for file in self.work.glob(f"{checkpoint.name}*"):  # also what a kill left of one
                        file.unlink()
        return records.read_record(self.record)

    def train(self, **run) -> Progress:
        """The loop (:class:`Training`), with a bar; from the last checkpoint if there is one."""
        silent = not self.progress or not self.processes.first
        with tqdm(desc=self.name, unit="update", mininterval=10, disable=silent) as bar:
            return train(Training(name=self.name, checkpoint=checkpoint_path(self.work, self.fingerprint),
                                  processes=self.processes, engine=self.profile.engine, bar=bar, **run))
