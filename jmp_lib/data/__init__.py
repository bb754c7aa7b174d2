"""Data: sets of structures, the mini data, readers of published files, splits, and the 40 tasks."""
