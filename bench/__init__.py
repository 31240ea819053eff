"""Measurements: one file per question. What they say depends on the machine, so no test asserts any of it."""
