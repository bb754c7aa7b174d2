"""What makes the shipped data (``tools.generate``) and measures speed (``tools.benchmarks``); jmp_lib imports
none of it."""
