"""Runs of the variants of a profile: other seeds, less training data, ablations of the pre-training.

A variant is a block of settings in the profile's YAML that is put over the rest (``published_small:seed-43``).  It says
itself which tasks and arms it runs and whether it starts from the profile's own pre-training (``pretrained: base``).
Records lie in ``variants/<name>`` of the profile's results.
"""

from __future__ import annotations

from pathlib import Path

from jmp_lib import paths, workbook
from jmp_lib.data.tasks import get_task
from jmp_lib.pool import run_jobs
from jmp_lib.settings import Profile, load_profile

SHOWN_ELSE = "published_small"  # whose shipped results are shown by profiles without variants


def variant_runs(run: workbook.Run) -> list[workbook.Run]:
    """One run per variant of the run's profile, in their order; tasks without published files are left out."""
    base, found = run.parameters.get("profile") or "mini", []
    for name in run.profile.variants:
        profile = load_profile(f"{base}:{name}", **workbook.profile_overrides(run.parameters, None))
        profile = profile.model_copy(update={"data_root": run.profile.data_root})
        tasks = tuple(task for task in workbook.choose_tasks({}, profile, None) if _at_hand(task, profile))
        folder = workbook.results_folder(run.results_dir, profile)
        found.append(workbook.Run(profile, folder, run.parameters, None, tasks, profile.arms, _sizes(profile)))
    return found


def run_all(run: workbook.Run) -> Path:
    """Runs every variant, pre-trainings first, finished ones not again; the folder whose variants are to be shown.

    A profile without variants runs nothing, and the shipped results of ``published_small`` are shown.
    """
    if not run.profile.variants:
        shown = paths.shipped_dir(SHOWN_ELSE)
        print(f"profile {run.profile.name} has no variants, so nothing is run; shown are the shipped records of {SHOWN_ELSE}"
              if (shown / "variants").is_dir() else f"profile {run.profile.name} has no variants: nothing to run or show")
        return shown
    runs, workers = variant_runs(run), run.profile.workers
    first = [(f"{one.profile.variant} {size}", workbook._pretrain, (one.profile, size, one.results_dir))
             for one in runs for size in one.sizes]
    workbook.report(run.results_dir, run_jobs(first, workers, "pre-training of the ablations"), "pre-training", all_needed=True)
    jobs = [(f"{one.profile.variant} {task} {arm} fold {fold}", workbook._finetune,
             (one.profile, task, arm, one.results_dir, fold))
            for one in runs for task in one.tasks for arm in one.arms for fold in one.profile.folds_of(task)]
    workbook.report(run.results_dir, run_jobs(jobs, workers, "fine-tuning of the variants"), "fine-tuning")
    return run.results_dir


def _at_hand(task: str, profile: Profile) -> bool:
    if profile.data != "published":
        return True
    from jmp_lib.data.published import why_not

    return why_not(get_task(task), profile.data_root, fold=profile.folds_of(task)[0]) is None


def _sizes(profile: Profile) -> tuple[str, ...]:
    """Sizes that the variant pre-trains itself."""
    wanted = {"JMP-S": "small", "JMP-L": "large"}
    return tuple(wanted[arm] for arm in profile.arms if arm in wanted and wanted[arm] not in profile.pretrained)
