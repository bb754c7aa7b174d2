"""Measurements that are not tests: ``python -m tools.benchmarks NAME``."""
