"""Data: sets of structures, the mini data, readers of published files, splits, normalisers, and the 40 tasks."""
