"""Generator of the mini data sets (optional dependencies; `python -m jmp_lib.generate NAME|all`)."""
