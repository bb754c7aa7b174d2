"""Baselines beside the four arms: the mean, a linear model of the composition, MACE from scratch (rMD17).

    python -m jmp_lib baselines --profile published_small

The same train, validation and test structures as the arms have; one record each under ``records/baselines``.
"""

from jmp_lib.baselines.run import NAMES, baseline, baseline_table, run_all

__all__ = ["NAMES", "baseline", "baseline_table", "run_all"]
