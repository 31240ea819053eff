"""Workers as people see them, and the join tokens that let new ones in. Their own calls are `worker`'s."""

from __future__ import annotations

from fastapi import APIRouter, Response

from spectrum.api.deps import Caller, Change, Has, Paging, listing, shown
from spectrum.api.models import JoinToken, NewJoinToken, Page, Worker
from spectrum.api.routing import Route, operation, reply
from spectrum.core.access import Action

router = APIRouter(prefix="/v1/workers", tags=["workers"], route_class=Route)


@router.get("", response_model=Page[Worker])
@operation(Action.WORKERS_READ)
async def list_workers(caller: Caller, page: Paging, services: Has) -> Response:
    """The organization's workers and those that the platform shares."""
    return listing(await services.workers.workers(caller, page))


@router.post(":join-token", status_code=201, response_model=JoinToken)
@operation(Action.WORKERS_WRITE, "not-found")
async def create_join_token(body: NewJoinToken, change: Change, services: Has) -> Response:
    """A token with which one worker may join the pool of a target within 15 minutes. The answer holds it, once."""
    return reply(await services.workers.create_join_token(change, body.target, body.pool))


@router.get("/{worker_id}", response_model=Worker)
@operation(Action.WORKERS_READ)
async def show_worker(worker_id: str, caller: Caller, services: Has) -> Response:
    """One worker."""
    return shown(await services.workers.worker(caller, worker_id))


@router.post("/{worker_id}:drain", response_model=Worker)
@operation(Action.WORKERS_WRITE)
async def drain_worker(worker_id: str, change: Change, services: Has) -> Response:
    """Let a worker finish what it holds and take nothing new."""
    return reply(await services.workers.drain_worker(change, worker_id))


@router.post("/{worker_id}:revoke", response_model=Worker)
@operation(Action.WORKERS_WRITE)
async def revoke_worker(worker_id: str, change: Change, services: Has) -> Response:
    """Refuse every further call of a worker. Its jobs are taken up by others."""
    return reply(await services.workers.revoke_worker(change, worker_id))
