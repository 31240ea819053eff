"""One instance on this machine: what its calls do, and what is put right when its supervisor starts again."""

from __future__ import annotations

import binascii
import os
import threading
import time

from . import accounts, durable, files, listeners, ports
from .cgroups import Groups
from .journal import Journal
from .logs import Log
from .processes import Scope
from .refusals import CONFLICT, TRANSIENT, Refusal
from .specs import file_order, hook_spec, service_spec
from .turns import Turns
from .unit import START_SECONDS, Unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .fences import FenceRecord

BASE = "instance/base"
HEALTHY_WAIT = 60.0  # seconds that the next service waits for the one before it, when all are started again
LOOPBACK = "127.0.0.1"


class Instance:
    """Folders: `instances/ID` is the account's (roots and volumes); `supervisors/ID` is ours (journal, units, logs)."""

    def __init__(self, target: str, instance: str, fences: FenceRecord, command: str) -> None:
        self.target = target
        self.instance = instance
        self.command = command
        self.folder = os.path.join(target, "instances", instance)
        self.state = os.path.join(target, "supervisors", instance)
        self.mark = f"{instance}.{binascii.crc32(os.fsencode(target)):08x}"  # ours, also beside a copy of the target
        self.turns = Turns(fences)
        self.registry = ports.Registry(target, instance)
        self.log = Log(os.path.join(self.state, "logs"))
        self.comment = f"SPECTRUM {instance} {target}".replace(":", "_").replace(",", "_")
        self.journal = Journal(self.state)
        self.units: dict[str, Unit] = {}
        self.account = accounts.ourselves()
        self.groups = Groups(f"spectrum-{self.mark}")

    # Where things are

    def unit_folder(self, slot: str) -> str:
        return os.path.join(self.state, "units", slot.replace("/", "~"))

    def root(self, service: str) -> str:
        return os.path.join(self.folder, "roots", service)

    def volume(self, name: str) -> str:
        return os.path.join(self.folder, "volumes", name)

    def ports(self) -> dict[str, int]:
        return dict(self.journal.slots.get(BASE, {}).get("ports", {}))

    def roots(self) -> set[int]:
        """The pids that the instance's process trees start from."""
        mains = [unit.main() for unit in list(self.units.values())]
        return {main.pid for main in mains if main is not None and main.alive()}

    def whole(self) -> Scope:
        return Scope(self.mark, self.account.own_uid, self.groups.leaves(), whole_account=True)

    # Calls. Each holds its slot's turn from the check of its fence to the answer.

    def observe(self, slot: str, fence: int) -> dict[str, Any]:
        with self.turns.take(slot, fence, 0):
            return self.view(slot)

    def survey(self, fence: int) -> list[dict[str, Any]]:
        with self.turns.take("", fence, 0, alone=True):
            return [self.view(slot) for slot in list(self.journal.slots)]

    def ensure(self, call: dict[str, Any]) -> dict[str, Any]:
        slot, key = str(call["slot"]), str(call["key"])
        with self.turns.take(slot, call["fence"], call["token"], alone=slot == BASE):
            record = self.journal.slots.get(slot)
            if record is not None and _is_half(record):
                self._remove(slot)
                record = None
            if record is not None and record["key"] != key:
                if record["key"] not in call["replaces"]:
                    message = f"slot {slot} holds {record['key']}, which is not to be replaced by {key}"
                    raise Refusal(CONFLICT, "slot-taken", message)
                self._remove(slot)
                record = None
            if record is None:
                self._make(call)
            elif call["kind"] == "service":
                self._start_again(slot)
            return self.view(slot)

    def remove(self, slot: str, fence: int, token: int) -> dict[str, Any]:
        with self.turns.take(slot, fence, token, alone=slot == BASE):
            if slot in self.journal.slots or (slot == BASE and self._residue()):
                self._remove(slot)
            return self.view(slot)

    def shut_down(self) -> None:
        """Stop everything gracefully and keep what is wanted, and all data."""
        with self.turns.take("", self.turns.newest, 0, alone=True):
            if self.journal.slots:
                self.journal.set_down(True)
            for unit in reversed(list(self.units.values())):
                unit.interrupt()
                unit.close()
            self.units.clear()
            self.groups.drop_all()

    def revive(self) -> None:
        """Undo `shut_down`: what is wanted starts again."""
        with self.turns.take("", self.turns.newest, 0, alone=True):
            if self.journal.slots:
                self.journal.set_down(False)
            self._start_wanted()

    def idle(self) -> bool:
        """True where there is nothing to supervise: the supervisor may end until it is called again."""
        return self.turns.idle() and not any(unit.thread.is_alive() for unit in list(self.units.values()))

    # Making

    def _make(self, call: dict[str, Any]) -> None:
        slot = call["slot"]
        record = {"kind": call["kind"], "key": call["key"], "token": call["token"], "digest": call["digest"]}
        if call["kind"] == "base":
            self._make_base(record, call["resource"])
            return
        if self.journal.slots.get(BASE) is None:
            raise Refusal(
                CONFLICT, "no-base", f"slot {slot}: the instance has no base on this target; it must be made first"
            )
        match call["kind"]:
            case "volume":
                folder = self.volume(call["resource"]["name"])
                self._files({"make": folder})
                self.journal.put(slot, {**record, "folder": folder})
            case "hook":
                hook = call["resource"]
                self._make_unit(slot, record, hook["service"], hook_spec(self, slot, hook))
            case _:
                self._make_unit(slot, record, call["resource"], service_spec(self, slot, call["resource"]))

    def _make_base(self, record: dict[str, Any], base: dict[str, Any]) -> None:
        """All of it, or nothing is left."""
        os.makedirs(os.path.join(self.state, "units"), mode=0o700, exist_ok=True)
        os.makedirs(os.path.join(self.state, "logs"), mode=0o700, exist_ok=True)
        name = accounts.name_for(self.instance, self.comment) if os.geteuid() == 0 else ""
        self.journal.put(BASE, {**record, "made": False, "account": name, "ports": {}, "services": base["services"]})
        try:
            claims = {port: self.registry.claim(port) for port in base["ports"]}
            self._take_account(name)
            for folder in (self.folder, os.path.join(self.folder, "roots"), os.path.join(self.folder, "volumes")):
                os.makedirs(folder, mode=0o700, exist_ok=True)
                os.chown(folder, self.account.uid, self.account.gid, follow_symlinks=False)
            self.groups.prepare()
            self.journal.change(BASE, made=True, ports=claims, public=base["public"])
        except (OSError, Refusal):
            self._remove_base()
            raise

    def _take_account(self, name: str) -> None:
        """The account of that name, or of the next free one where this id on another target was quicker."""
        while name:
            account = accounts.create(name, self.comment, self.folder)
            if account is not None:
                self.account = account
                return
            name = accounts.name_for(self.instance, self.comment)
            self.journal.change(BASE, account=name)

    def _files(self, order: dict[str, Any]) -> None:
        files.fill(self.command, order, self.account)

    def _make_unit(self, slot: str, record: dict[str, Any], service: dict[str, Any], spec: dict[str, Any]) -> None:
        Scope(f"{self.mark}/{slot}", self.account.own_uid).kill()
        self._refuse_taken_ports(spec)
        folder = self.unit_folder(slot)
        files.clear(folder)
        os.makedirs(folder, mode=0o700)
        durable.write_json(os.path.join(folder, "spec.json"), spec, mode=0o400)
        fresh = not spec["hook"] and not self._root_is_used(spec["root"])
        self._files(file_order(self, service, spec["root"], fresh))
        more = {"mounts": spec["mounts"], "artifacts": service["artifacts"], "made_at": time.time()}
        self.journal.put(slot, {**record, **more, "restarts": 0, "ended": False, "code": None})
        self._start(slot)

    def _refuse_taken_ports(self, spec: dict[str, Any]) -> None:
        for port in spec["ports"].values():
            if listeners.belongs(port, self.roots(), self.account.own_uid) is False:
                message = f"port {port} is held by {listeners.holder(port)}, not by this instance; end that process"
                raise Refusal(TRANSIENT, "port-taken", message)

    def _start(self, slot: str) -> None:
        """Returns once the program was started, or has ended at once."""
        unit = Unit(self, slot)
        self.units[slot] = unit
        unit.start()
        unit.started.wait(2 * START_SECONDS)

    def _start_again(self, slot: str) -> None:
        """A service that is there already: running, waiting for its next restart, or ended."""
        unit = self.units.get(slot)
        if unit is not None and unit.kick():
            return
        if unit is not None:
            unit.stop()
            unit.close()
        self.journal.change(slot, ended=False)
        self._start(slot)

    # Removing

    def _remove(self, slot: str) -> None:
        if slot == BASE:
            self._remove_base()
            return
        record = self.journal.slots[slot]
        if record["kind"] == "volume":
            self._remove_volume(slot, record["folder"])
            return
        self.journal.change(slot, removing=True)
        self._open_units()
        if (unit := self.units.pop(slot, None)) is not None:
            unit.stop()
            unit.pump.take(last=True)
            unit.close()
            if not self._root_is_used(unit.spec["root"]):
                self._files({"clear": unit.spec["root"]})
        files.clear(self.unit_folder(slot))
        durable.unlink(self.unit_folder(slot) + ".lock")
        self.journal.drop(slot)

    def _root_is_used(self, root: str) -> bool:
        return any(unit.spec["root"] == root and unit.thread.is_alive() for unit in self.units.values())

    def _remove_volume(self, slot: str, folder: str) -> None:
        users = [
            other
            for other, record in self.journal.slots.items()
            if os.path.basename(folder) in record.get("mounts", ())
            and not (record["kind"] == "hook" and record["ended"])
        ]
        if users:
            raise Refusal(
                CONFLICT, "volume-in-use", f"{slot} is used by {', '.join(users)}, which must be removed first"
            )
        self._files({"clear": folder})
        self.journal.drop(slot)

    def _residue(self) -> bool:
        return os.path.lexists(self.folder) or os.path.lexists(self.state)

    def _remove_base(self) -> None:
        """Everything but the fence record. May be repeated from any point at which it was interrupted; the journal goes last."""
        self.journal.change(BASE, made=False)
        name = self.journal.slots.get(BASE, {}).get("account", "")
        account = accounts.find(name, self.comment) if name else None
        if account is not None:
            self.account = account
        self.groups.prepare()
        self._open_units()
        for unit in reversed(list(self.units.values())):
            unit.stop()
        self.whole().kill()
        for unit in self.units.values():
            unit.close()
        self.units.clear()
        files.clear(self.folder)
        self.groups.drop_all()
        self.registry.release_all()
        if account is not None:
            accounts.drop_shared_memory(account.uid)
        if name:
            accounts.remove(name, self.comment)
        self._forget()
        self.account = accounts.ourselves()

    def _forget(self) -> None:
        for name in ("units", "logs"):
            files.clear(os.path.join(self.state, name))
        self.journal.forget()
        files.clear(self.state)

    # Putting right

    def recover(self) -> None:
        """Finish what an earlier supervisor began, find its services again, and start what is wanted and doesn't run."""
        base = self.journal.slots.get(BASE)
        if base is None:
            if os.path.lexists(self.state):
                self._remove_base()
            return
        if not base["made"]:
            self._remove_base()
            return
        self._take_account(base["account"])
        self.groups.prepare()
        for name, port in base["ports"].items():
            self.registry.again(port, name)
        for slot in [slot for slot, record in self.journal.slots.items() if record.get("removing")]:
            self._remove(slot)
        if self.journal.down:
            self._open_units()
        else:
            self._start_wanted()

    def _open_units(self) -> None:
        """So that everything can be observed, whether it runs or not."""
        for slot, record in self.journal.slots.items():
            there = os.path.exists(os.path.join(self.unit_folder(slot), "spec.json"))  # not while it is being removed
            if record["kind"] in ("service", "hook") and slot not in self.units and there:
                self.units[slot] = Unit(self, slot)

    def _start_wanted(self) -> None:
        """Adopt what runs at once; start the rest one after another, each when the one before it is healthy."""
        self._open_units()
        wanted = [unit for unit in self.units.values() if unit.record.get("ended") is False]
        waiting = []
        for unit in wanted:
            if unit.is_hook or unit.held():
                unit.start()
            else:
                waiting.append(unit)
        if waiting:
            threading.Thread(target=self._start_in_order, args=(waiting,), name="revival", daemon=True).start()

    def _start_in_order(self, units: list[Unit]) -> None:
        for unit in units:
            unit.start()
            unit.settled.wait(HEALTHY_WAIT)

    # What an observation says

    def view(self, slot: str) -> dict[str, Any]:
        record = self.journal.slots.get(slot)
        if record is None:
            return {"slot": slot, "presence": "absent"}
        seen = {"slot": slot, "presence": "present"}
        seen |= {"key": record["key"], "token": record["token"], "spec_digest": record["digest"]}
        if _is_half(record):
            return {**seen, "presence": "unknown"}
        match record["kind"]:
            case "base":
                return {**seen, **self._view_base(record)}
            case "volume":
                there = os.path.isdir(record["folder"])
                return seen if there else {**seen, "presence": "unknown"}
            case _:
                return {**seen, **self._view_unit(slot, record)}

    def _view_base(self, record: dict[str, Any]) -> dict[str, Any]:
        names = {port.rpartition("/")[0] for port in record["ports"]} | set(record["services"])
        facts = {
            "ports": record["ports"],
            "roots": {name: self.root(name) for name in sorted(names)},
            "hosts": dict.fromkeys(sorted(names), LOOPBACK),
            "binds": dict.fromkeys(sorted(names), LOOPBACK),
            "addresses": {port: f"{LOOPBACK}:{record['ports'][port]}" for port in record["public"]},
        }
        return {"facts": facts, "ports": record["ports"], "conditions": self._base_conditions(record)}

    def _base_conditions(self, record: dict[str, Any]) -> list[dict[str, Any]]:
        found = []
        if not self.account.own:
            message = (
                "instances run as the user who started the worker: run it as root to give each an account of its own"
            )
            found.append({"type": "account_separated", "status": False, "reason": "not_root", "message": message})
        inside = [str(port) for port in record["ports"].values() if not ports.outside_ephemeral(port)]
        if inside:
            message = f"ports {', '.join(inside)} lie in the ephemeral range: narrow net.ipv4.ip_local_port_range"
            found.append({"type": "ports_reserved", "status": False, "reason": "ephemeral_range", "message": message})
        return found

    def _view_unit(self, slot: str, record: dict[str, Any]) -> dict[str, Any]:
        unit = self.units.get(slot)
        running = unit is not None and unit.running()
        health = unit.health(running) if unit is not None else "unknown"
        seen: dict[str, Any] = {"running": running, "health": health, "restarts": record["restarts"]}
        if unit is None:
            return seen
        seen["ended"] = bool(record["ended"]) and not running and not unit.is_hook
        tail = unit.tail() if health != "healthy" else []
        if record["code"] is not None and not running:
            seen["exit"] = {
                "code": record["code"],
                "at": record["ended_at"],
                "tail": tail,
                "stdout_path": unit.spec["stdout"],
            }
        return {**seen, "ports": unit.spec["ports"], "tail": tail, "conditions": unit.conditions(running)}


def _is_half(record: dict[str, Any]) -> bool:
    """True where a removal, or the making of a base, was begun and could not be finished."""
    return bool(record.get("removing")) or record.get("made") is False
