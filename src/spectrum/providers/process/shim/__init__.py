"""The supervisor of one instance: standard library only (it runs alone, `python -I -S`), small, outliving what started it.

It is copied beside the instances it serves and started from there: an upgrade or a removed clone doesn't pull code from under it.
"""
