"""Bugs that are planted into the production code, in memory alone: a piece of a function's source is replaced by a wrong one."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any


@dataclass(frozen=True)
class Edit:
    """In the source of `owner.name`, what stands on the left of each change (and is there once) becomes what stands right."""

    owner: Any
    name: str
    changes: dict[str, str]

    @contextmanager
    def made(self) -> Iterator[None]:
        original = inspect.getattr_static(self.owner, self.name)
        source = textwrap.dedent(inspect.getsource(original))
        for old, new in self.changes.items():
            if source.count(old) != 1:
                raise ValueError(f"{self.name} no longer contains {old!r} once: plant the bug anew")
            source = source.replace(old, new)
        wrong = _compiled(original, source)
        holders = [self.owner] if inspect.isclass(self.owner) else _importers(original)
        for holder in holders:
            setattr(holder, self.name, wrong)
        try:
            yield
        finally:
            for holder in holders:
                setattr(holder, self.name, original)


def _compiled(original: FunctionType, source: str) -> FunctionType:
    names: dict[str, Any] = {}
    code = compile("from __future__ import annotations\n" + source, inspect.getfile(original), "exec")
    exec(code, original.__globals__, names)
    wrong = names[original.__name__]
    assert isinstance(wrong, FunctionType)
    return wrong


def _importers(function: FunctionType) -> list[Any]:
    """Every module that knows the function by its name."""
    modules = [module for name, module in sys.modules.items() if name.startswith(("spectrum.", "sim."))]
    return [module for module in modules if getattr(module, function.__name__, None) is function]


@dataclass(frozen=True)
class Constant:
    """A name of a module means something else."""

    owner: Any
    name: str
    value: Any

    @contextmanager
    def made(self) -> Iterator[None]:
        original = getattr(self.owner, self.name)
        setattr(self.owner, self.name, self.value)
        try:
            yield
        finally:
            setattr(self.owner, self.name, original)


@dataclass(frozen=True)
class Entry:
    """In a table of the core, a pair leads elsewhere, or leads anywhere at all."""

    table: dict[Any, Any]
    pair: Any
    leads_to: Any

    @contextmanager
    def made(self) -> Iterator[None]:
        original = self.table.get(self.pair)
        self.table[self.pair] = self.leads_to
        try:
            yield
        finally:
            if original is None:
                del self.table[self.pair]
            else:
                self.table[self.pair] = original


@dataclass(frozen=True)
class Mutant:
    """A planted bug, the promises that it breaks, and the trial and the faults that it takes to see it."""

    name: str
    edits: tuple[Edit | Constant | Entry, ...]
    promises: frozenset[str]
    scenario: str = "system-atomic"
    rates: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def planted(self) -> Iterator[None]:
        with ExitStack() as planted:
            for edit in self.edits:
                planted.enter_context(edit.made())
            yield

    def __str__(self) -> str:
        return self.name
