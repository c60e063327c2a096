"""Measured times, on this machine, beside what was promised. ``make harness``."""
