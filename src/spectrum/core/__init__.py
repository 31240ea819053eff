"""The pure core: no I/O, no clock, no randomness. Time, ids and chance are arguments."""
