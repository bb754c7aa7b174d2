"""Generator of the mini data sets (optional dependencies; `python -m tools.generate NAME|all`)."""
