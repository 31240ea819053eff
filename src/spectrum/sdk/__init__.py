"""The client library: HTTP, models and the core, nothing of the server."""

from spectrum.sdk.client import Client
from spectrum.sdk.errors import ClientError, JobFailed, ProblemError, Unreachable, WaitTimeout

__all__ = ["Client", "ClientError", "JobFailed", "ProblemError", "Unreachable", "WaitTimeout"]
