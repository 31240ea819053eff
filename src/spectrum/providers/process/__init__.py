"""The process target: instances as plain processes of one machine, each under a supervisor of its own.

The target's folder:

    fences/ID.json, ID.lock   the fence record, kept after purge, and the lock that makes a supervisor the only one
    sockets/ID                where a supervisor takes calls, while one lives
    supervisors/ID/           its journal, units (spec, records of start and end) and logs: private to us
    instances/ID/             roots and volumes: the instance's account's, and nobody else's
    artifacts/DIGEST/         what releases run on: shared, readable by every account
    shim/DIGEST/              the supervisor's code, as the running ones were started from it
"""

from spectrum.providers.process.provider import ProcessProvider

__all__ = ["ProcessProvider"]
