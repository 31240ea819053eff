"""What does the harm: a seeded, endless stream of faults in bouts, and the hand that begins and mends each."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import assert_never

from chaos.machine import Means
from chaos.network import Harm
from chaos.parts import FILLER, HOST, SERVERS, WORKERS, Cell
from chaos.tally import SLACK

SHORTEST, LONGEST = 0.4, 2.0  # seconds between two faults of a bout
BOUT = 10  # faults, after which all is mended and left alone for as long as a promise about time may take
_REST_SECONDS = 4.0  # for a process to be itself again before it is seized anew
LATENCY = 0.05  # seconds for each piece of a stream, each way
BLOCK = 1 << 16


class Kind(StrEnum):
    KILL = "kill -9"
    FREEZE = "SIGSTOP longer than the lease"
    RESTART = "immediate restart of PostgreSQL"
    DEAF = "partition, nothing comes in"
    MUTE = "partition, nothing goes out"
    LOSS = "20 % loss"
    LATENCY = "latency"
    DISK = "full disk"
    CLOCK = "clock off by an hour"
    SUPERVISORS = "kill -9 of every supervisor"
    AWAY = "PostgreSQL away for three leases"


class Organ(StrEnum):
    """What a fault seizes; two faults at once never seize the same of one part."""

    PROCESS = "process"
    WAY = "way"
    DISK = "disk"
    CLOCK = "clock"
    SUPERVISORS = "supervisors"


POSTGRES = "postgres"
PROCESSES = (*SERVERS, *WORKERS)
_PARTS: Mapping[Kind, tuple[Organ, tuple[str, ...]]] = {
    Kind.KILL: (Organ.PROCESS, PROCESSES),
    Kind.FREEZE: (Organ.PROCESS, PROCESSES),
    Kind.RESTART: (Organ.PROCESS, (POSTGRES,)),
    Kind.DEAF: (Organ.WAY, PROCESSES),
    Kind.MUTE: (Organ.WAY, PROCESSES),
    Kind.LOSS: (Organ.WAY, PROCESSES),
    Kind.LATENCY: (Organ.WAY, PROCESSES),
    Kind.DISK: (Organ.DISK, (*WORKERS, HOST)),
    Kind.CLOCK: (Organ.CLOCK, PROCESSES),
    Kind.SUPERVISORS: (Organ.SUPERVISORS, (HOST,)),
    Kind.AWAY: (Organ.PROCESS, (POSTGRES,)),
}
DRAWN = tuple(kind for kind in Kind if kind is not Kind.AWAY)  # nothing else can be seen while PostgreSQL is away
_NEEDS = {
    Kind.DEAF: Means.NFTABLES,
    Kind.MUTE: Means.NFTABLES,
    Kind.LOSS: Means.NFTABLES,
    Kind.DISK: Means.TMPFS,
    Kind.CLOCK: Means.FAKETIME,
}
_HARMS = {Kind.DEAF: Harm.DEAF, Kind.MUTE: Harm.MUTE, Kind.LOSS: Harm.LOSSY}
_REST = dict.fromkeys((Kind.KILL, Kind.FREEZE), _REST_SECONDS)


def left_out(missing: Mapping[Means, str]) -> Mapping[Kind, str]:
    """The kinds of faults that this machine does not allow, with the reason."""
    return {kind: missing[means] for kind, means in _NEEDS.items() if means in missing}


@dataclass(frozen=True)
class Fault:
    """`at` and `seconds`: when it begins, since the start, and how long it lasts."""

    number: int
    kind: Kind
    part: str
    at: float
    seconds: float
    ahead: bool  # of a clock: whether it is fast

    @property
    def organ(self) -> Organ:
        return _PARTS[self.kind][0]


def faults(seed: int, lease: float, kinds: tuple[Kind, ...]) -> Iterator[Fault]:
    """Without end, the same for the same seed. A part's organ is free again before it is seized anew."""
    chance = random.Random(seed)
    until: dict[tuple[Organ, str], float] = {}
    at = 0.0
    for number in itertools.count(1):
        if until and number % BOUT == 1:
            at = max(until.values()) + lease + SLACK
        at += chance.uniform(SHORTEST, LONGEST)
        everything = [(kind, part) for kind in kinds for part in _PARTS[kind][1]]
        while not (free := [(kind, part) for kind, part in everything if until.get((_PARTS[kind][0], part), 0.0) < at]):
            at += SHORTEST  # where few kinds are drawn from
        kind = chance.choice(sorted({kind for kind, _ in free}))
        part = chance.choice([part for each, part in free if each is kind])
        fault = Fault(number, kind, part, at, _lasts(chance, kind, lease), chance.random() < 0.5)
        until[fault.organ, part] = at + fault.seconds + _REST.get(kind, 0.0)
        yield fault


def _lasts(chance: random.Random, kind: Kind, lease: float) -> float:
    match kind:
        case Kind.KILL:
            return chance.uniform(0.0, 2.0)
        case Kind.FREEZE:
            return lease * chance.uniform(1.2, 2.0)
        case Kind.RESTART | Kind.SUPERVISORS:
            return 0.0
        case Kind.AWAY:
            return lease * 3
        case Kind.DEAF | Kind.MUTE:
            return lease * chance.uniform(0.3, 1.6)
        case Kind.LOSS | Kind.LATENCY | Kind.DISK | Kind.CLOCK:
            return chance.uniform(2.0, 10.0)
        case _:
            assert_never(kind)


@dataclass(frozen=True)
class Done:
    """A fault as it was: moments of this machine's clock, by which PostgreSQL decides too."""

    fault: Fault
    began: float
    mended: float


@dataclass
class Nemesis:
    cell: Cell
    stream: Iterator[Fault]
    done: list[Done] = field(default_factory=list)
    begun: int = 0
    spooled: int = 0  # reports that waited on disk when PostgreSQL came back
    _under_way: list[tuple[float, int, Fault, float]] = field(default_factory=list)

    def rage(self, on: Callable[[], bool]) -> None:
        """Do harm as long as it may go on, and let what was begun last its time; returns when everything is mended.

        What comes late delays what comes after it as much.
        """
        start = time.time()
        for fault in self.stream:
            if fault.number % BOUT == 1 and self.begun:
                start = self._calm(on) - fault.at
            while on() and time.time() - start < fault.at:
                self._tend()
            if not on():
                break
            began = time.time()
            start = began - fault.at
            self._begin(fault)
            self.begun += 1
            heapq.heappush(self._under_way, (began + fault.seconds, fault.number, fault, began))
        while self._under_way:
            self._tend()

    def _calm(self, on: Callable[[], bool]) -> float:
        """When the next bout may begin: a calm after everything is whole again, however slowly this machine starts a process."""
        while on() and (self._under_way or not self.cell.ready()):
            self._tend()
        return time.time() + self.cell.lease + SLACK

    def _tend(self) -> None:
        self._mend()
        self.cell.look_after()
        time.sleep(0.02)

    def _mend(self) -> None:
        while self._under_way and self._under_way[0][0] <= time.time():
            _, _, fault, began = heapq.heappop(self._under_way)
            self._end(fault)
            self.done.append(Done(fault, began, time.time()))

    def _begin(self, fault: Fault) -> None:
        match fault.kind:
            case Kind.KILL:
                self.cell.parts[fault.part].kill()
            case Kind.FREEZE:
                self.cell.parts[fault.part].signal(signal.SIGSTOP)
            case Kind.RESTART:
                self.cell.end_postgres()
                self.cell.postgres.start()
            case Kind.SUPERVISORS:
                self.cell.kill_supervisors()
            case Kind.AWAY:
                self.cell.end_postgres()
            case Kind.DEAF | Kind.MUTE | Kind.LOSS:
                self.cell.ways[fault.part].harms.add(_HARMS[fault.kind])
                self._apply(fault.part)
            case Kind.LATENCY:
                self.cell.ways[fault.part].delay = LATENCY
            case Kind.DISK:
                _fill(self.cell.disks[fault.part] / FILLER)
            case Kind.CLOCK:
                self.cell.clocks[fault.part].write_text("+1h\n" if fault.ahead else "-1h\n")
            case _:
                assert_never(fault.kind)

    def _end(self, fault: Fault) -> None:
        match fault.kind:
            case Kind.KILL:
                self.cell.parts[fault.part].start()
            case Kind.FREEZE:
                self.cell.parts[fault.part].signal(signal.SIGCONT)
            case Kind.RESTART | Kind.SUPERVISORS:
                pass
            case Kind.AWAY:
                self.spooled += self.cell.spooled()
                self.cell.postgres.start()
            case Kind.DEAF | Kind.MUTE | Kind.LOSS:
                self.cell.ways[fault.part].harms.discard(_HARMS[fault.kind])
                self._apply(fault.part)
            case Kind.LATENCY:
                self.cell.ways[fault.part].delay = 0.0
            case Kind.DISK:
                (self.cell.disks[fault.part] / FILLER).unlink(missing_ok=True)
            case Kind.CLOCK:
                self.cell.clocks[fault.part].write_text("+0\n")
            case _:
                assert_never(fault.kind)

    def _apply(self, part: str) -> None:
        """Rules are those of a whole namespace: both workers share one."""
        namespace = self.cell.ways[part].namespace
        self.cell.namespaces.apply([way for way in self.cell.ways.values() if way.namespace == namespace])


def _fill(path: Path) -> None:
    """Until nothing more goes in."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(os.urandom(BLOCK))
