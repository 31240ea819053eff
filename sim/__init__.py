"""The seeded simulator: the whole system in one process, under virtual time."""
