"""Long tests with real bot processes, run by hand: kills at every moment, a faulty network, load. ``python -m tests.nightly``."""
