"""Benchmarks with limits: ``make bench`` measures them on this machine."""
