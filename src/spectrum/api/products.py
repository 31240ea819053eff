"""Products and their releases: published from the texts of their files, immutable afterwards."""

from __future__ import annotations

from fastapi import APIRouter, Response

from spectrum.api.deps import Caller, Change, DryRun, Has, Paging, listing, shown
from spectrum.api.models import Page, Product, Publication, Release
from spectrum.api.routing import Route, operation, reply
from spectrum.core.access import Action

router = APIRouter(prefix="/v1/products", tags=["products"], route_class=Route)


@router.get("", response_model=Page[Product])
@operation(Action.PRODUCTS_READ)
async def list_products(caller: Caller, page: Paging, services: Has) -> Response:
    """The organization's products by name."""
    return listing(await services.products.products(caller, page))


@router.get("/{product}", response_model=Product)
@operation(Action.PRODUCTS_READ)
async def show_product(product: str, caller: Caller, services: Has) -> Response:
    """One product."""
    return shown(await services.products.product(caller, product))


@router.get("/{product}/releases", response_model=Page[Release])
@operation(Action.PRODUCTS_READ)
async def list_releases(product: str, caller: Caller, page: Paging, services: Has) -> Response:
    """A product's releases, newest first."""
    return listing(await services.products.releases(caller, product, page))


@router.get("/{product}/releases/{version}", response_model=Release)
@operation(Action.PRODUCTS_READ)
async def show_release(product: str, version: str, caller: Caller, services: Has) -> Response:
    """One release."""
    return shown(await services.products.release(caller, product, version))


@router.post("/{product}/releases", status_code=201, response_model=Release)
@operation(Action.PRODUCTS_PUBLISH, "invalid-product", "not-allowed-now")
async def publish_release(
    product: str, body: Publication, change: Change, services: Has, dry_run: DryRun = False
) -> Response:
    """Publish a release. The same text again is the same release; a version is never published twice with another."""
    if dry_run:
        return shown(await services.products.validate(product, body.file, body.files))
    return reply(await services.products.publish(change, product, body.file, body.files))
