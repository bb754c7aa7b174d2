"""Baselines beside the four arms: the mean, a linear model of the composition, a linear model on the embeddings of the frozen
backbone that JMP-S starts from and of an untrained one, and from scratch MACE (Batatia et al., NeurIPS 2022; rMD17) and SchNet
(Schütt et al., NeurIPS 2017).

    python -m jmp_lib baselines --profile published_small

The same train, validation and test structures as the arms have; one record each under ``records/baselines``. The networks are
those of ``mace-torch`` and torch_geometric; pairs and their images are those of this workbook's search, targets normalised as those
of the arms, forces minus the gradient of the energy and fitted alone, as the arms do. Settings are usual ones; nothing was tuned.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from jmp_lib import records
from jmp_lib.data.tasks import TaskData, get_task, why_not
from jmp_lib.files import write_json
from jmp_lib.graphs import AddGraphs, collate
from jmp_lib.graphs.neighbors import find_neighbors
from jmp_lib.model import FinetuneModel, HeadSpec, load_backbone
from jmp_lib.model.scaling import set_factors
from jmp_lib.pool import Outcome, report, run_jobs
from jmp_lib.settings import FinetuneSettings, Profile
from jmp_lib.strict import nearest
from jmp_lib.train.finetuning import fit_normalisers, size_of, start_of, task_data
from jmp_lib.train.losses import mae
from jmp_lib.train.normalise import composition, denormalised, fit_composition, numbers_of, true_values
from jmp_lib.train.saving import load_weights

# trained for as long as BUDGET_OF was; cutoffs in Å, channels: of each of l = 0 and 1 (MACE), width of atoms and filters (SchNet)
NETWORKS = {
    "mace": {"cutoff": 5.0, "channels": 32, "layers": 2, "correlation": 2, "max_ell": 2, "batch_size": 4, "lr": 0.01},
    "schnet": {"cutoff": 5.0, "channels": 64, "layers": 3, "gaussians": 50, "batch_size": 8, "batch_size_forces": 4, "lr": 1e-3}}
BUDGET_OF = "GN-OC-L"
VALIDATIONS, TOGETHER = 8, {"mace": 20, "schnet": 32}  # validations of a run; structures that are predicted together
EMBEDDED = {"frozen": "JMP-S", "untrained": "GN-OC-S"}  # baseline -> arm whose network, as it starts, gives the embeddings
NAMES = ("mean", "composition", *EMBEDDED, *NETWORKS)
STRENGTHS = np.logspace(-2, 6, 17)  # of the ridge on embeddings; the best by leave-one-out on the training part
INSTALL = "MACE is not installed: run `make mace`"


def applies(name: str, task_id: str) -> bool:
    """Composition and embeddings: scalar labels. MACE: rMD17, one molecule a task. ``ValueError`` for an unknown name."""
    if name not in NAMES:
        raise ValueError(f"unknown baseline '{name}'; {nearest(name, NAMES)}".replace("key", "baseline"))
    task = get_task(task_id)
    return {"mean": True, "mace": task.family == "rmd17", "schnet": True}.get(name, not task.is_force_task)


def record_path(out_dir: Path, task_id: str, name: str) -> Path:
    return Path(out_dir) / "records" / "baselines" / f"{task_id}--{name}.json"


def baseline(profile: Profile, task_id: str, name: str, out_dir: Path) -> dict:
    """The record of baseline ``name`` on ``task_id`` (first fold of the profile), made unless it is there already.

    Raises ``ValueError`` for an unknown name or one that does not apply, ``RuntimeError`` without MACE,
    ``FileNotFoundError`` when the record of the arm whose time a network gets is missing.
    """
    if not applies(name, task_id):
        raise ValueError(f"baseline {name} does not apply to {task_id}: composition and embeddings are for scalar labels, mace for rMD17")
    task, fold, out_dir = get_task(task_id), profile.folds_of(task_id)[0], Path(out_dir)
    data, parameters = task_data(profile, task_id, fold), {"seed": profile.seed}
    if name in NETWORKS:
        arm = records.read_record(records.finetune_record_path(out_dir, task_id, BUDGET_OF, fold))
        parameters |= {"seconds": round(arm["train_time_s"], 1), "budget_of": BUDGET_OF, "clock": "processor", **NETWORKS[name]}
    if name in EMBEDDED:
        parameters["start"] = start = start_of(profile, EMBEDDED[name], out_dir, train=False)
        if None in start.values():
            raise FileNotFoundError(f"there is no pre-trained network in {out_dir} for the baseline {name}: run notebook 03 first")
    path = record_path(out_dir, task_id, name)
    fingerprint = records.fingerprint({"baseline": name, "task": task_id, "fold": fold, "parameters": parameters,
                                       "data": [data.data_sha256, data.split_sha256]})
    done = records.finished_record(path, out_dir, fingerprint)
    if done is not None:
        return done
    began, about = time.perf_counter(), {}
    if name in NETWORKS:
        settings = profile.finetune_settings(task.family, task_id)
        predicted, about = train_network(name, data, settings, parameters["seconds"], profile.seed)
    elif name in EMBEDDED:
        predicted = ridge(*embeddings(profile, data, start, out_dir), data)
    elif task.is_force_task:
        predicted = np.zeros_like(true_values(data.test, "forces"))
    elif name == "mean":
        predicted = np.full(len(data.test), true_values(data.train, data.label).mean())
    else:
        predicted = linear_composition(numbers_of(data.train), true_values(data.train, data.label), numbers_of(data.test),
                                       task.reduction == "sum")
    truth = true_values(data.test, data.label)
    file = records.work_dir(path, out_dir) / "predictions.npz"
    file.parent.mkdir(parents=True, exist_ok=True)
    records.save_arrays(file, true=task.print_factor * truth, predicted=task.print_factor * predicted, ids=data.test.ids,
                        natoms=data.test.natoms)
    predictions = records.file_entry(file, out_dir)
    write_json(path, {
        "schema": records.SCHEMA, "kind": "baseline", "profile": profile.name, "task": task_id, "family": task.family,
        "arm": name, "fold": fold, "metric": task.metric, "value": task.print_factor * mae(predicted, truth),
        "unit": task.printed_unit, "data": data.name, "data_note": data.description, "data_kind": data.data_kind, "n_train": len(data.train),
        "n_val": len(data.val), "n_test": len(data.test), "seed": profile.seed, "parameters": parameters, **about,
        "wall_time_s": time.perf_counter() - began, "threads": 1, "device": records.device_name(torch.device("cpu")),
        "peak_memory_mb": records.peak_memory_mb(), "commit": records.git_commit(), "versions": records.versions(),
        "data_sha256": data.data_sha256, "split_sha256": data.split_sha256, "predictions": predictions,
        "files": {"predictions": predictions}, "fingerprint": fingerprint})
    return records.read_record(path)


def linear_composition(train_numbers: list, values: np.ndarray, test_numbers: list, extensive: bool) -> np.ndarray:
    """``fit_composition`` on the training part, its predictions of the test part (S_test,), unit of y.

    train_numbers, test_numbers: atomic numbers of each structure; values (S_train,).
    """
    contributions, intercept = fit_composition(train_numbers, values, extensive)
    return composition(test_numbers, extensive) @ contributions + intercept


@torch.no_grad()
def embeddings(profile: Profile, data: TaskData, start: dict, out_dir: Path) -> list[np.ndarray]:
    """Mean final node embedding of every structure of the training and the test part, each (S,A), of the network at ``start``.

    Kept under ``work/embeddings``: tasks that are targets of one set have the same.
    """
    arm = EMBEDDED["frozen" if "pretrained" in start else "untrained"]
    config, graph = profile.models[size_of(arm)], profile.graphs[data.task.family]
    key = records.fingerprint({"start": start, "seed": profile.seed, "model": config.to_dict(), "graph": str(graph),
                               "data": [data.data_sha256, data.split_sha256]})
    file = out_dir / "work" / "embeddings" / f"{key[:16]}.npz"
    if not file.is_file():
        torch.set_num_threads(1)
        torch.manual_seed(profile.seed)
        model = FinetuneModel(config, [HeadSpec("energy", "energy", "sum")]).eval()
        if "pretrained" in start:
            load_backbone(model, load_weights(out_dir / start["pretrained"]["file"]))
        set_factors(model, start["scale_factors"])
        add_graphs = AddGraphs(graph)
        found = [np.stack([model.embed(collate([add_graphs(s)])).mean(0).numpy() for s in part]) for part in (data.train, data.test)]
        file.parent.mkdir(parents=True, exist_ok=True)
        records.save_arrays(file, train=found[0], test=found[1])
    with np.load(file, allow_pickle=False) as arrays:
        return [arrays["train"], arrays["test"]]


def ridge(train: np.ndarray, test: np.ndarray, data: TaskData) -> np.ndarray:
    """Linear model of the composition, plus a ridge regression of what it leaves on the embeddings: (S_test,), unit of the label.

    train, test: mean embedding of every structure (S,A); where the label grows with the number of atoms, their sums are used.
    """
    extensive, values = data.task.reduction == "sum", true_values(data.train, data.label)
    if extensive:
        train, test = (part * structures.natoms[:, None] for part, structures in ((train, data.train), (test, data.test)))
    numbers = numbers_of(data.train), numbers_of(data.test)
    known, base = (linear_composition(numbers[0], values, part, extensive) for part in numbers)
    return base + make_pipeline(StandardScaler(), RidgeCV(STRENGTHS)).fit(train, values - known).predict(test)


def train_network(name: str, data: TaskData, settings: FinetuneSettings, seconds: float, seed: int) -> tuple[np.ndarray, dict]:
    """Trains a network of ``NETWORKS`` on one core for ``seconds`` of updates; test predictions in the label's unit, (S,) or (ΣN,3)
    for forces, and what was done, as of :func:`train_for` (best_val in the label's unit)."""
    if name == "mace" and not mace_available():
        raise RuntimeError(INSTALL)
    torch.set_num_threads(1)
    how, forces, normaliser = NETWORKS[name], data.task.is_force_task, fit_normalisers(data, settings)[data.label]
    frames = {part: [_frame(s, data.label, normaliser, how["cutoff"]) for s in getattr(data, part)]
              for part in ("train", "val", "test")}
    torch.manual_seed(seed)
    if name == "mace":
        model, output = _mace(frames["train"]), _mace_output
    else:
        model, output = _schnet("sum" if forces else settings.reduction or data.task.reduction), _schnet_output

    def loss(chosen: list[dict]) -> torch.Tensor:
        batch = _joined(chosen)
        return (output(model.train(), batch, forces) - batch["target"]).square().mean()

    def predicted(part: str) -> torch.Tensor:
        size = TOGETHER[name]
        with torch.set_grad_enabled(forces):
            return torch.cat([output(model.eval(), _joined(frames[part][i : i + size]), forces).detach()
                              for i in range(0, len(frames[part]), size)])

    def error() -> float:
        return float((predicted("val") - torch.cat([f["target"] for f in frames["val"]])).abs().mean()) * normaliser.std

    batch = how.get("batch_size_forces" if forces else "batch_size", how["batch_size"])
    about = train_for(seconds, model, frames["train"], loss, error, batch=batch, rate=how["lr"], seed=seed)
    return denormalised(predicted("test").double().numpy(), data.test, normaliser), about


def train_for(seconds: float, model: torch.nn.Module, frames: Sequence, loss: Callable[[list], torch.Tensor],
              error: Callable[[], float], *, batch: int, rate: float, seed: int) -> dict:
    """Updates of ``model`` for ``seconds`` of the processor (validation not counted), whatever else runs on the machine; the state
    with the best validation error is kept.

    Adam (amsgrad) at ``rate`` that falls by a cosine over the time given, gradients clipped at norm 10; ``loss`` of a list of
    ``batch`` frames. Returns updates, seconds, n_parameters and best_val.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, amsgrad=True)
    generator, order, updates, used, validated = torch.Generator().manual_seed(seed), [], 0, 0.0, 0
    best, state = math.inf, None
    while used < seconds:
        began = time.process_time()
        if len(order) < batch:
            order = torch.randperm(len(frames), generator=generator).tolist()
        for group in optimizer.param_groups:
            group["lr"] = rate * (0.05 + 0.475 * (1 + math.cos(math.pi * used / seconds)))
        optimizer.zero_grad()
        loss([frames[order.pop()] for _ in range(min(batch, len(order)))]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        updates, used = updates + 1, used + time.process_time() - began
        if used >= seconds * (validated + 1) / VALIDATIONS or used >= seconds:
            validated = int(used / seconds * VALIDATIONS)
            value = error()
            if state is None or value < best:
                best, state = value, copy.deepcopy(model.state_dict())
    model.load_state_dict(state)
    return {"updates": updates, "seconds": used, "n_parameters": sum(p.numel() for p in model.parameters()), "best_val": best}


def _frame(structure, label: str, normaliser, cutoff: float) -> dict:
    """z (N,), pos (N,3) Å, edges (2,E), shift (E,3) Å from a source atom to its image, and the normalised target."""
    numbers, pos, cell = (np.asarray(structure[key]) for key in ("atomic_numbers", "pos", "cell"))
    edges, offsets, _ = find_neighbors(pos, cell, np.asarray(structure["pbc"]), cutoff, periodic=True)
    target = normaliser.normalise(np.asarray(structure[label], float), numbers)
    return {"z": torch.as_tensor(numbers), "pos": torch.as_tensor(pos), "edges": torch.as_tensor(edges),
            "shift": torch.as_tensor(offsets @ cell, dtype=torch.float32),
            "target": torch.as_tensor(np.atleast_1d(target), dtype=torch.float32)}


def _joined(frames: list[dict]) -> dict:
    """The frames as one, with the number of the frame of each atom (``batch``) and where frames begin and end (``ptr``)."""
    sizes = torch.tensor([len(f["z"]) for f in frames])
    ptr = F.pad(sizes.cumsum(0), (1, 0))
    return {**{key: torch.cat([f[key] for f in frames]) for key in ("z", "pos", "shift", "target")}, "ptr": ptr,
            "edges": torch.cat([f["edges"] + start for f, start in zip(frames, ptr)], dim=1),
            "batch": torch.arange(len(frames)).repeat_interleave(sizes)}


def _schnet(readout: str) -> torch.nn.Module:
    from torch_geometric.nn.models import SchNet

    how = NETWORKS["schnet"]
    return SchNet(hidden_channels=how["channels"], num_filters=how["channels"], num_interactions=how["layers"], readout=readout,
                  num_gaussians=how["gaussians"], cutoff=how["cutoff"],
                  interaction_graph=lambda pairs, batch: pairs)  # pairs and distances come in the place of positions


def _schnet_output(model: torch.nn.Module, batch: dict, forces: bool) -> torch.Tensor:
    """Normalised property (S,) of the frames, or their normalised forces (ΣN,3)."""
    pos, (source, target) = batch["pos"].requires_grad_(forces), batch["edges"]
    distances = (pos[source] + batch["shift"] - pos[target]).norm(dim=-1)
    found = model(batch["z"], (batch["edges"], distances), batch["batch"])[:, 0]
    return -torch.autograd.grad(found.sum(), pos, create_graph=model.training)[0] if forces else found


def mace_available() -> bool:
    """Whether MACE is installed."""
    return find_spec("mace") is not None


def _mace(frames: list[dict]) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mace import modules  # isort: split
        from e3nn import o3  # after mace, which lets torch read its constants
    how, elements = NETWORKS["mace"], torch.cat([f["z"] for f in frames]).unique().tolist()
    interaction = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    return modules.ScaleShiftMACE(
        r_max=how["cutoff"], num_bessel=8, num_polynomial_cutoff=5, max_ell=how["max_ell"], interaction_cls=interaction,
        interaction_cls_first=interaction, num_interactions=how["layers"], num_elements=len(elements),
        hidden_irreps=o3.Irreps("{0}x0e + {0}x1o".format(how["channels"])), MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros((1, len(elements))), atomic_numbers=elements, correlation=how["correlation"], gate=F.silu,
        avg_num_neighbors=float(np.mean([f["edges"].shape[1] / len(f["pos"]) for f in frames])),
        atomic_inter_scale=1.0, atomic_inter_shift=0.0)


def _mace_output(model: torch.nn.Module, batch: dict, forces: bool) -> torch.Tensor:
    """Normalised forces (ΣN,3) of the frames."""
    kinds, count = torch.searchsorted(model.atomic_numbers, batch["z"]), len(batch["ptr"]) - 1
    given = {"positions": batch["pos"], "node_attrs": F.one_hot(kinds, len(model.atomic_numbers)).float(),
             "edge_index": batch["edges"], "shifts": -batch["shift"], "unit_shifts": 0 * batch["shift"],
             "cell": torch.zeros(3 * count, 3), "head": torch.zeros(count, dtype=torch.long), "ptr": batch["ptr"], "batch": batch["batch"]}
    return model(given, training=model.training, compute_force=True)["forces"]


def run_all(run, names=None) -> list[Outcome]:
    """All baselines that apply to the tasks of a workbook run; what became of each, failed ones with ``error``.

    Failures are said and kept for ``reproduce`` (``pool.report``); RuntimeError when all fail. A network is left out where the
    arm whose time it gets has not been run, MACE (said so) where it is not installed, and SchNet on mini data unless ``names``
    has it: on every task it takes as long as an arm.
    """
    names = names or [name for name in NAMES if name != "schnet" or run.profile.data == "published"]
    wanted = [(task, name) for task in run.tasks for name in names if applies(name, task)]
    jobs = [(f"{task} {name}", baseline, (run.profile, task, name, run.results_dir))
            for task, name in wanted if _can(run, name, task)]
    missing = [task for task, name in wanted if name == "mace" and not record_path(run.results_dir, task, "mace").is_file()]
    if missing and not mace_available():
        print(INSTALL + " to have it beside the arms on rMD17")
    outcomes = run_jobs(jobs, run.profile.workers, "baselines")
    report(run.results_dir, outcomes, "baseline")
    return outcomes


def _can(run, name: str, task: str) -> bool:
    fold = run.profile.folds_of(task)[0]
    if run.profile.data == "published" and why_not(get_task(task), run.profile.data_root, fold=fold, thorough=True):
        return False
    if name in EMBEDDED:
        return None not in start_of(run.profile, EMBEDDED[name], Path(run.results_dir), train=False).values()
    needed = records.finetune_record_path(run.results_dir, task, BUDGET_OF, fold)
    return name not in NETWORKS or (needed.is_file() and (name != "mace" or mace_available()))
