"""The planted bugs. Each is a mistake that somebody could make, and that a promise forbids."""

from __future__ import annotations

from sim import signed
from sim.twins.store import MemoryStore
from spectrum.control import fold
from spectrum.control.dispatch import Dispatch
from spectrum.control.engine import Engine
from spectrum.control.fold import Folding, _Folding
from spectrum.core import plan, signing
from spectrum.core.breakers import Breaker
from spectrum.core.jobs import asking, ending, holding, reporting, table
from spectrum.core.jobs.kept import Kept
from spectrum.core.jobs.reporting import _Reading
from spectrum.core.jobs.turn import Turn
from spectrum.core.signing import CallWindow
from spectrum.transports.poll import PollLink
from spectrum.worker import run as running
from spectrum.worker.context import StepContext
from spectrum.worker.loop import Worker
from spectrum.worker.run import JobRun
from tests.mutants.planting import Constant, Edit, Entry, Mutant

_S, _T, _C = table.JobState, table.JobTrigger, table.Case

# What it takes to see a bug, where the common mix of faults shows it too seldom.
REFUSALS = {"provider.ensure invalid": 0.15}
UNDOS_REFUSED = {"provider.ensure invalid": 0.2, "provider.remove invalid": 0.2}
BLOCKED_UNDOS = {
    "provider.ensure invalid": 0.3,
    "provider.remove invalid": 0.5,
    "provider.ensure slow": 0.5,
    "provider.remove slow": 0.5,
}
"""Undos fail for good while others wait."""
LONG_JOBS = {"provider.ensure slow": 0.5, "provider.remove slow": 0.5}
LOSSES = {"nemesis crash": 0.2, "nemesis pause": 0.2}
MANY_LOSSES = {"nemesis crash": 0.5, "nemesis pause": 0.5, "service never healthy": 0.2}
ROLLBACKS = {"store rollback": 0.1}
LOST_ANSWERS = {"http drop answer": 0.2, "http duplicate": 0.2}
SLOW_CALLS = {**LOSSES, "http slow": 0.2, "http duplicate": 0.2}
BLIND = {**LOSSES, "provider.ensure hang": 0.1, "provider.observe undecidable": 0.5}
HANGS = {"provider.ensure hang": 0.1, "provider.remove hang": 0.1}
OVERHEARD = {signed.REPEATED: 0.1}
ALTERED = {signed.ALTERED: 0.1}
FORGED = {signed.FORGED: 0.1}

TRUSTING_UNDO = Edit(
    StepContext,
    "restore",
    {
        "if before is None:": "seen = await self.look(self._slot)\n"
        "    if seen.presence.value == ('absent' if before is None else 'present'):\n"
        "        return seen\n"
        "    if before is None:"
    },
)
"""An undo that makes no call where it sees nothing to be done: only a call that lands at the worst moment shows it."""

_RAISED = '{"fence": turn.raise_counter(), "owner": None}'


def _P(*promises: str) -> frozenset[str]:
    return frozenset(promises)


HEARD = (
    Mutant(
        "reports are taken under any fence",
        (
            Edit(
                holding,
                "check_fence",
                {
                    "job.owner is None or job.fence != command.fence": "False",
                    "job.owner.lease_id": "command.lease_id",
                },
            ),
            Edit(reporting, "_check_number", {"command.number != expected": "False"}),
        ),
        _P("P4", "P11", "P13"),
        rates=LOSSES,
    ),
    Mutant(
        "reports are not counted, nor their repeats known (two that mask each other)",
        (
            Edit(reporting, "_check_number", {"command.number != expected": "False"}),
            Edit(
                reporting, "report", {"if command.fence == last.fence and command.number <= last.number:": "if False:"}
            ),
        ),
        _P("P13"),
        rates=LOST_ANSWERS,
    ),
    Mutant(
        "a zombie's release is accepted",
        (Edit(holding, "release", {"    check_fence(job, command)\n": ""}),),
        _P("P4", "P11", "exception"),
    ),
    Mutant(
        "a worker of another pool is heard",
        (Edit(holding, "check_pool", {"job.pool_id != command.pool_id": "False"}),),
        _P("P11"),
    ),
    Mutant(
        "a lease that does not hold the job is heard",
        (Edit(holding, "check_fence", {"job.owner.lease_id != command.lease_id": "False"}),),
        _P("P11"),
    ),
    Mutant(
        "what is kept of an aggregate is believed whatever its version",
        (Edit(Kept, "known", {"kept.instance.version == version": "True"}),),
        _P("P1", "P2", "P3", "P4", "P5", "P9", "P13"),
    ),
    Mutant(
        "a change of a job leaves the version of its aggregate",
        (
            Edit(
                Turn,
                "result",
                {"elif self.jobs != self.before.jobs or self.effects != self.before.effects": "elif False"},
            ),
        ),
        _P("P1", "P2", "P3", "P4", "P5", "P9", "P13"),
    ),
    Mutant(
        "a spool is told again under a new fence",
        (
            Edit(
                JobRun,
                "run",
                {
                    "        if await self._deliver_fence():": "        for old in self.means.spool.all():\n"
                    "            if old.job_id == self.job.id and old.fence < self.job.fence:\n"
                    "                await self._send(replace(old, fence=self.job.fence, number=self._number + 1))\n"
                    "                self._number += 1\n"
                    "        if await self._deliver_fence():"
                },
            ),
            Edit(Worker, "_deliver_spooled", {"    self.spool.drop(news)\n": ""}),
        ),
        _P("P4"),
        rates={**LOSSES, "http drop answer": 0.2, "http drop request": 0.1},
    ),
    Mutant(
        "a claim under a number that was answered grants anew",
        (Edit(fold, "_claiming", {"if claim.number <= lease.claim:": "if claim.number < lease.claim:"}),),
        _P("P4"),
        rates=LOST_ANSWERS,
    ),
    Mutant(
        "a lease that has ended claims jobs",
        (
            Edit(
                fold,
                "_claiming",
                {"lease is None or not lease.live or lease.incarnation != claim.incarnation": "lease is None"},
            ),
        ),
        _P("P4"),
        rates=SLOW_CALLS,
    ),
    Mutant(
        "a call's number is not used up",
        (Edit(CallWindow, "accept", {"age >= WINDOW_SIZE or self.seen >> age & 1": "age >= WINDOW_SIZE"}),),
        _P("P13"),
        "system-signed",
        OVERHEARD,
    ),
    Mutant(
        "each copy has a call window of its own",
        (
            Edit(
                signed.Windows,
                "_move_rows",
                {
                    "database.windows.get(lease_id": "vars(self).setdefault('own', {}).get(lease_id",
                    "database.windows |= windows": "vars(self)['own'] |= windows",
                },
            ),
        ),
        _P("P13"),
        "system-signed",
        OVERHEARD,
    ),
    Mutant(
        "a body is not what its digest says",
        (
            Edit(
                signing,
                "_check_digest",
                {"    match = _DIGEST.fullmatch(field)": "    return\n    match = _DIGEST.fullmatch(field)"},
            ),
        ),
        _P("P13"),
        "system-signed",
        ALTERED,
    ),
    Mutant(
        "a worker believes what the cell has not signed",
        (
            Edit(
                PollLink,
                "_checked",
                {
                    'raise LinkDown(f"{what}: the answer is not signed by the cell ({response.status_code})")'
                    " from None": "now = self._server_now()"
                },
            ),
        ),
        _P("P13"),
        "system-signed",
        FORGED,
    ),
)

HELD = (
    Mutant(
        "a loss does not raise the fence",
        (Edit(ending, "move", {_RAISED: f'{{"owner": None}} if trigger is JobTrigger.LOST else {_RAISED}'}),),
        _P("P4"),
        rates=LOSSES,
    ),
    Mutant(
        "a release does not raise the fence",
        (Edit(ending, "move", {_RAISED: f'{{"owner": None}} if trigger is JobTrigger.RELEASE else {_RAISED}'}),),
        _P("P4"),
    ),
    Mutant(
        "fences are counted for each job",
        (
            Edit(holding, "claim", {"fence=turn.raise_counter(),": "fence=job.fence + 1,"}),
            Edit(ending, "move", {_RAISED: '{"fence": job.fence + 1, "owner": None}'}),
        ),
        _P("P1", "P3", "P4", "P5", "P19"),
    ),
    Mutant(
        "an unwinding job goes forward again when it is claimed",
        (Entry(table.JOBS, (_S.UNWINDING, _T.CLAIM), {_C.ALWAYS: _S.RUNNING}),),
        _P("P5"),
        rates=LOSSES,
    ),
    Mutant(
        "a rescue is counted as a retry",
        (
            Edit(
                holding,
                "_forget_attempts",
                {"state=state, outstanding": "state=state, tries=step.tries + 1, outstanding"},
            ),
        ),
        _P("P1"),
        rates=LOSSES,
    ),
    Mutant(
        "a lease is never renewed",
        (Edit(Worker, "_beat", {"        number += 1\n": ""}),),
        _P("P1"),
        "nothing-fails",
    ),
    Mutant(
        "a heartbeat lists nothing",
        (Edit(Worker, "_beat", {"held = (*self._runs, *self._foreign)": "held = ()"}),),
        _P("P1"),
        "nothing-fails",
    ),
    Mutant(
        "what never arrived is not taken back",
        (Edit(Dispatch, "beat", {'    await self.lose_all(unlisted, "its worker does not hold it")\n': ""}),),
        _P("P1"),
        rates=LOST_ANSWERS,
    ),
    Mutant(
        "no worker is one too many",
        (Edit(holding, "take_away", {"job.rescues > MAX_RESCUES": "False"}),),
        _P("P19"),
        rates=MANY_LOSSES,
    ),
    Mutant(
        "the loss of a worker is never forgiven",
        (Edit(_Reading, "_done", {"turn.put(self.job, rescues=0)": "turn.put(self.job)"}),),
        _P("P19"),
        rates=MANY_LOSSES,
    ),
    Mutant(
        "poison runs beside others",
        (Edit(holding, "take_away", {"turn.put(job, alone=True)": "turn.put(job)"}),),
        _P("P19"),
        rates=MANY_LOSSES,
    ),
    Mutant(
        "a job is claimed before its time (the query and the decision mask each other)",
        (
            Edit(holding, "_may_be_claimed", {"job.not_before is not None and job.not_before > turn.now": "False"}),
            Edit(MemoryStore, "claimable", {"and (job.not_before is None or job.not_before <= now)": ""}),
        ),
        _P("P4"),
        rates={"nemesis outage": 0.2},
    ),
    Mutant(
        "a claim leaves the job waiting",
        (Edit(holding, "claim", {"        waiting=None,\n": ""}),),
        _P("P20"),
    ),
    Mutant(
        "a claim leaves the job not to be claimed yet",
        (Edit(holding, "claim", {"        not_before=None,\n": ""}),),
        _P("P20"),
        rates={"nemesis outage": 0.2},
    ),
)

UNDONE = (
    Mutant(
        "an undo without an answer is taken for done",
        (
            Edit(
                JobRun,
                "_outcome_of",
                {
                    "return outcome(Result.TIMEOUT, failure=failure)\n    except GivenUp": "return outcome("
                    "Result.DONE if step.phase is Phase.UNDO else Result.TIMEOUT, failure=failure)\n    except GivenUp"
                },
            ),
        ),
        _P("P3"),
        rates={"provider.ensure invalid": 0.2, "provider.remove hang": 0.3},
    ),
    Mutant(
        "a job is unwound without a look",
        (Edit(JobRun, "_not_as_before", {"    seen = await self._survey()\n": "    return ()\n"}),),
        _P("P3"),
        "system-best-effort",
        REFUSALS,
    ),
    Mutant(
        "absence is seen once where a late call may land",
        (Edit(JobRun, "_check_unwound", {"self.provider.strength is Strength.BEST_EFFORT": "False"}),),
        _P("P3"),
        "system-best-effort",
        REFUSALS,
    ),
    Mutant(
        "an outdated observation is believed",
        (Edit(holding, "observe", {"moved or older or instance.active_job_id is not None or ": ""}),),
        _P("P17"),
    ),
)

STEPS = (
    Mutant(
        "only steps that are done are undone",
        (Edit(ending, "unwind_step", {"if step.touched else": "if step.state is StepState.DONE else"}),),
        _P("P1", "P3", "P5", "Livelock"),
        rates=REFUSALS,
    ),
    Mutant(
        "undone in any order",
        (
            Edit(
                plan,
                "unwindable",
                {"        and all(later in settled for later in built_on.get(step.name, ()))\n": ""},
            ),
        ),
        _P("P5"),
    ),
    Mutant(
        "a step is begun before what it needs",
        (Edit(plan, "ready", {" and all(need in satisfied for need in step.needs)": ""}),),
        _P("P5"),
    ),
    Mutant(
        "a step is begun after a cancel",
        (Edit(_Reading, "_not_now", {"case JobState.RUNNING:": "case JobState.RUNNING | JobState.CANCELLING:"}),),
        _P("P5"),
    ),
    Mutant(
        "a job succeeds without its verify",
        (Edit(_Reading, "_conclude", {"for step in job.steps)": "for step in job.steps if step.slot)"}),),
        _P("P1"),
    ),
    Mutant(
        "an intent has the token of the one before",
        (Edit(_Reading, "_open", {"token = turn.raise_counter()": "token = max(step.token, job.fence)"}),),
        _P("P5", "P4", "P3"),
    ),
    Mutant(
        "a retry has the token of the first try",
        (Edit(_Reading, "_open", {"token = turn.raise_counter()": "token = step.token or turn.raise_counter()"}),),
        _P("P5", "P4", "P3"),
    ),
    Mutant(
        "a timeout is taken for success",
        (
            Edit(
                JobRun,
                "_outcome_of",
                {"return outcome(Result.TIMEOUT, failure=failure)": "return outcome(Result.DONE)"},
            ),
        ),
        _P("P1", "P3", "exception"),
        rates=HANGS,
    ),
    Mutant(
        "absent is seen once",
        (Constant(running, "ABSENT_SIGHTINGS", 1),),
        _P("P16"),
        rates={**LOSSES, **HANGS},
    ),
    Mutant(
        "an undecidable slot is made anew under its old key",
        (Edit(_Reading, "_done", {"new_key(turn, anew, self.job.generation) if anew else None": "step.effect_key"}),),
        _P("P2"),
        rates=BLIND,
    ),
    Mutant(
        "an attempt has no deadline",
        (Edit(_Reading, "_open", {"attempt_deadline=turn.due(job, seconds),": "attempt_deadline=None,"}),),
        _P("P20"),
    ),
)

EFFECTS = (
    Mutant(
        "fences and tokens do not bear the epoch",
        (
            Edit(
                Turn,
                "raise_counter",
                {"max(self.instance.counter, self.around.epoch << EPOCH_SHIFT)": "self.instance.counter"},
            ),
        ),
        _P("P4"),
    ),
    Mutant(
        "an effect is recorded after its call",
        (
            Edit(_Reading, "_open", {"    self._want(step, token)": "    assert token"}),
            Edit(_Reading, "_done", {"self._prove(step)": "self._want(step, step.token)\n    self._prove(step)"}),
        ),
        _P("P3"),
    ),
    Mutant(
        "what was proven is not remembered",
        (Edit(_Reading, "_prove", {"evolve(effect, proven=True)": "effect"}),),
        _P("P1"),
    ),
    Mutant(
        "what was there before is forgotten",
        (Edit(ending, "_plan", {"        baseline=baseline,\n": "        baseline={},\n"}),),
        _P("P3"),
        rates=REFUSALS,
    ),
    Mutant(
        "what is left is told to nobody",
        (Edit(ending, "_reject", {"if job.residue and not": "if False and not"}),),
        _P("P3"),
        rates=UNDOS_REFUSED,
    ),
)

QUEUE = (
    Mutant(
        "a waiter's turn comes on an instance on hold",
        (Edit(ending, "_promote", {"turn.instance.hold is not Hold.NONE and not operation.on_hold": "False"}),),
        _P("P5"),
        rates=BLOCKED_UNDOS,
    ),
    Mutant(
        "an instance has several active jobs",
        (Edit(ending, "promote_next", {"turn.instance.active_job_id is None and (waiting": "(waiting"}),),
        _P("P1"),
    ),
    Mutant(
        "a delete waits its turn", (Edit(asking, "_enqueue", {"front=operation.preempts": "front=False"}),), _P("P5")
    ),
    Mutant(
        "who came last goes first",
        (Edit(ending, "promote_next", {"_promote(turn, waiting[0])": "_promote(turn, waiting[-1])"}),),
        _P("P5"),
    ),
    Mutant(
        "what the clock does is decided by an old look",
        (
            Edit(
                holding,
                "tick",
                {
                    "for job_id in list(turn.jobs):": "for job in list(turn.jobs.values()):",
                    "        job = turn.jobs[job_id]\n": "",
                },
            ),
        ),
        _P("P1", "P5", "P6", "P20"),
        "in-a-hurry",
        {**LONG_JOBS, "store.read refused": 0.5},
    ),
    Mutant(
        "a job that has ended can be cancelled (guard and table mask each other)",
        (
            Edit(asking, "cancel", {"if job.state.terminal:": "if False:"}),
            *(
                Entry(table.JOBS, (ended, _T.CANCEL), {_C.ALWAYS: _S.UNWINDING})
                for ended in (_S.SUCCEEDED, _S.FAILED, _S.CANCELLED)
            ),
        ),
        _P("P5"),
        "busy",
    ),
    Mutant(
        "a success changes nothing", (Edit(ending, "_accept", {"if lifecycle is not None:": "if False:"}),), _P("P1")
    ),
    Mutant(
        "a create that failed stays half-made",
        (Edit(ending, "_reject", {"operation.failure is not None and": "False and"}),),
        _P("P1"),
        rates=REFUSALS,
    ),
    Mutant(
        "unwinding has no deadline",
        (Edit(ending, "_begin_unwinding", {"unwind_deadline=deadline, ": ""}),),
        _P("P20"),
    ),
    Mutant(
        "nobody says what a job waits for",
        (Edit(ending, "_offer", {"waiting=turn.wait_for_worker(job, turn.effective(job, until))": "waiting=None"}),),
        _P("P20"),
    ),
)

TIME = (
    Mutant(
        "deadlines count time in which nothing could be done (the query and the decision mask each other)",
        (
            Edit(Turn, "effective", {"return stored + (self.around.lost - job.lost_before)": "return stored"}),
            Edit(MemoryStore, "_is_due", {"due + lost - job.lost_before <= now": "due <= now"}),
        ),
        _P("P1"),
        "target-away",
    ),
    Mutant(
        "a breaker never half-opens",
        (Edit(Breaker, "lets_through", {" or (self.retry_at is not None and self.retry_at <= now)": ""}),),
        _P("P1", "Livelock"),
        rates={"nemesis outage": 0.5},
    ),
    Mutant(
        "a breaker lets all holders probe",
        (Edit(Breaker, "lets_begin", {"self.probe == job_id": "self.state is BreakerState.HALF_OPEN"}),),
        _P("P14"),
        rates={"nemesis outage": 0.5},
    ),
    Mutant(
        "a probe is nobody's: whoever comes while it is due goes through",
        (Edit(Breaker, "_probing", {"retry_at=now + PROBE_TIME": "retry_at=self.retry_at"}),),
        _P("P14"),
        rates={"nemesis outage": 0.5},
    ),
    Mutant(
        "a breaker never opens",
        (Edit(Breaker, "after", {"self.state is BreakerState.CLOSED and failures < THRESHOLD": "True"}),),
        _P("P1"),
        "target-away",
    ),
)

COMMITTED = (
    Mutant(
        "a caller is answered before the commit",
        (
            Edit(
                Folding, "__call__", {"self.hints = tuple(": "self.answers = folded.results\n    self.hints = tuple("}
            ),
            Edit(
                Engine,
                "_commit",
                {
                    "await self._settle(uncertain) is Settlement.ABORTED": "not hasattr(fold, 'answers')"
                    " and await self._settle(uncertain) is Settlement.ABORTED",
                    "results = uncertain.results": "results = fold.answers",
                },
            ),
        ),
        _P("P1", "P6", "P9", "exception"),
        rates=ROLLBACKS,
    ),
    Mutant(
        "an uncertain commit is taken for done",
        (Edit(Engine, "_commit", {"await self._settle(uncertain) is Settlement.ABORTED": "False"}),),
        _P("P1", "P6", "P9", "exception"),
        rates=ROLLBACKS,
    ),
    Mutant(
        "rows are written, and events apart from them (a dual write)",
        (
            Edit(
                MemoryStore,
                "_commit",
                {
                    "    if sometimes(ROLLED_BACK": "    written = folded.written.items()\n"
                    "    silent = {key: replace(each, consequences=()) for key, each in written}\n"
                    "    database.write(batch, replace(folded, written=silent))\n"
                    "    if sometimes(ROLLED_BACK"
                },
            ),
        ),
        _P("P5", "P6", "P10", "P20"),
        rates=ROLLBACKS,
    ),
    Mutant(
        "an Idempotency-Key is ignored",
        (Edit(_Folding, "_known", {"return self.loaded": "return None and self.loaded"}),),
        _P("P9"),
    ),
    Mutant(
        "a key is good for any request",
        (Edit(_Folding, "one", {"if known.request_digest == asked.keyed.request_digest": "if True"}),),
        _P("P9"),
    ),
    Mutant(
        "a version is not raised",
        (Edit(Turn, "result", {"version=old.version + 1": "version=old.version"}),),
        _P("P5"),
    ),
    Mutant(
        "a job is submitted by nobody",
        (Edit(asking, "_enqueue", {'turn.entry("job.submitted"': '(lambda *_, **__: None)("job.submitted"'}),),
        _P("P10"),
    ),
    Mutant(
        "a job ends without an event",
        (Edit(ending, "finish", {"turn.job_fact(job, job.state.value,": "(lambda *_, **__: None)("}),),
        _P("P6"),
    ),
    Mutant(
        "two events have one number",
        (
            Edit(
                Turn,
                "fact",
                {"event_sequence=sequence)": "event_sequence=sequence - (type_ == 'job.claimed'))"},
            ),
        ),
        _P("P6"),
    ),
    Mutant(
        "numbers of events have gaps",
        (
            Edit(
                Turn,
                "fact",
                {"self.instance.event_sequence + 1": "self.instance.event_sequence + 1 + (type_ == 'job.unwinding')"},
            ),
        ),
        _P("P6"),
    ),
    Mutant(
        "a secret is told",
        (
            Edit(
                JobRun,
                "_tried",
                {
                    "await self._concealed(await self._outcome_of(step, act, seconds))": "await self._outcome_of("
                    "step, act, seconds)"
                },
            ),
        ),
        _P("P18"),
        rates={"service never healthy": 0.3},
    ),
)

MUTANTS = (*HEARD, *HELD, *UNDONE, *STEPS, *EFFECTS, *QUEUE, *TIME, *COMMITTED)
