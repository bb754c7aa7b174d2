# All runs of a profile: scale factors, pre-training per size, one fine-tuning per task, fold and arm, tables.
#
#   snakemake -n --config profile=paper                                       # list; nothing runs
#   snakemake --cores 2 --config profile=mini                                 # here
#   snakemake --workflow-profile workflow/profiles/slurm --config profile=paper data_root=/data
#
# Settings of --config: jmp_lib/sweep.py. After a kill: python -m jmp_lib sweep, or snakemake --unlock and then
# --rerun-incomplete. Records are marked "update": they stay where a job is repeated, and a finished one is not run again.
import os
import sys

sys.path.insert(0, workflow.basedir)
from jmp_lib import sweep

SWEEP = sweep.read(config)
RESULTS = str(SWEEP.results_dir)
PUBLISHED = SWEEP.profile.data == "published"
# what the scheduler is asked for, unless --set-resources says otherwise; runtime in minutes, seven days as the official script
GPU, MEMORY, HOURS = int(SWEEP.profile.device != "cpu"), 32000 if PUBLISHED else 4000, 7 * 24 if PUBLISHED else None
JMP = f"{sys.executable} -m jmp_lib"
logger.info(SWEEP.words)
shell.prefix(f"export PYTHONPATH='{workflow.basedir}':$PYTHONPATH; ")


wildcard_constraints:
    size="small|large",
    task="[^/]+",
    run="[^/]+",


rule tables:
    input:
        list(SWEEP.jobs),
    output:
        update(f"{RESULTS}/tables/all_tasks.csv"),
    resources:
        gpu=0,
        mem_mb=2000,
        runtime=30,
    localrule: True
    shell:
        f"{JMP} tables {SWEEP.options}"


rule scale_factors:
    output:
        update(f"{RESULTS}/work/scale_factors/{{size}}.json"),
    threads: SWEEP.profile.threads
    resources:
        gpu=0,
        mem_mb=MEMORY,
        runtime=60,
    shell:
        f"{JMP} scale-factors {SWEEP.options} --sizes {{wildcards.size}} && touch {{output}}"


rule pretrain:
    input:
        ancient(f"{RESULTS}/work/scale_factors/{{size}}.json"),
    output:
        update(f"{RESULTS}/records/pretrain/{{size}}.json"),
    threads: SWEEP.profile.threads
    resources:
        gpu=GPU,
        mem_mb=MEMORY,
        runtime=(HOURS or 4) * 60,
    shell:
        f"{JMP} pretrain {SWEEP.options} --sizes {{wildcards.size}} && touch {{output}}"


rule finetune:
    input:
        lambda w: [ancient(p) for p in SWEEP.needs(f"{RESULTS}/records/finetune/{w.task}/{w.run}.json")],
    output:
        update(f"{RESULTS}/records/finetune/{{task}}/{{run}}.json"),
    params:
        job=lambda w: SWEEP.jobs[f"{RESULTS}/records/finetune/{w.task}/{w.run}.json"],
    threads: SWEEP.profile.threads
    resources:
        gpu=GPU,
        mem_mb=MEMORY,
        runtime=(HOURS or 1) * 60,
    shell:
        f"{JMP} finetune {SWEEP.options} --workers 1 --tasks {{wildcards.task}} --arms {{params.job.arm}}"
        " --fold {params.job.fold} && touch {output}"


onerror:
    shell(f"{JMP} tables {SWEEP.options} || true")
    logger.error("Some runs failed (their words stand above); the tables hold those that ended well. The same command tries again.")
