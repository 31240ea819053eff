"""The same six steps that do nothing on other engines, beside ours: `python -m bench.peers`."""
