"""SPECTRUM: gives every customer of a software vendor an environment of its own, and operates them safely."""

__version__ = "0.1.0.dev0"
