"""SPECTRUM on one machine: the parts of `spectrum up`, their supervision, and what they need to run."""
