"""The process target: instances as plain processes of one machine, each under a supervisor of its own."""

from spectrum.providers.process.provider import ProcessProvider

__all__ = ["ProcessProvider"]
