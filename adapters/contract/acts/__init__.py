"""Hostile acts by engine. Each module has a list ``ACTS``; a package for a compatible engine can use it in its own tests."""
