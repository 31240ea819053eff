"""What can be done to an instance: one file per operation, versioned code that yields a plan of steps.

`CATALOG` holds every `OPERATION` of this package's modules: a new file is found by itself.
"""

from __future__ import annotations

import importlib
import pkgutil

from spectrum.core.plan import Catalog, Operation


def _found() -> dict[tuple[str, int], Operation]:
    modules = (importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    operations = (module.OPERATION for module in modules if hasattr(module, "OPERATION"))
    return {(operation.name, operation.version): operation for operation in operations}


CATALOG: Catalog = _found()
