"""The parts of benchmark.py, one file each."""
