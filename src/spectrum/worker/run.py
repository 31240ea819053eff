"""One job in the hands of its holder: which step next, what came of it, what to tell the control plane (DESIGN §3.5–3.11).

Before an effect its intent is committed; after it, the outcome. Outcome n and intent n+1 travel in one report.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from opentelemetry.trace import SpanKind

from spectrum import tracing
from spectrum.core import plan as plans
from spectrum.core.concealing import conceal_failure, conceal_lines, withhold
from spectrum.core.errors import ErrorClass, Failure, Fault, Problem, StaleFence
from spectrum.core.jobs.commands import Holding, Intent, Outcome, Result, Verdict
from spectrum.core.jobs.model import Instance, Job, Step
from spectrum.core.jobs.table import UNWOUND, JobState, Phase, StepState, WaitsFor, Wants
from spectrum.core.observation import Observed, Presence, record_of
from spectrum.core.plan import Catalog
from spectrum.core.retry import backoff
from spectrum.operations.context import Action, GivenUp
from spectrum.ports import Clock, Spawner
from spectrum.providers.protocol import Call, Provider, Strength
from spectrum.telemetry import bound
from spectrum.transports.protocol import NEWS_LIMIT, Handback, Incarnation, Link, LinkDown, News
from spectrum.worker.context import Renderer, StepContext
from spectrum.worker.spool import Spool

RELEASE_AFTER = 20.0  # seconds of waiting that are better spent without holding the job
REFUSED_PAUSE = 1.0
SURVEY_SECONDS = 30.0
ATTEMPT_MARGIN = 0.85  # of an attempt's time: the worker gives up before the engine does
ABSENT_SIGHTINGS = 2
UNDECIDED_SIGHTINGS = 3
SECRETS_SECONDS = 5.0  # within which they are there, or what they might stand in is not told
SAID = "tail"  # the member of an output that holds log lines
FENCE_TRIES = 3
KEPT_REPORTS = 64  # answered ones, to be sent again where the control plane has lost them
UNWOUND_CHECK = "(unwound)"  # stands among the attempts, and is no step's name

_log = structlog.get_logger(__name__)


@dataclass
class Means:
    """What every job of a worker is run with."""

    link: Link
    catalog: Catalog
    renderer: Renderer
    clock: Clock
    spawner: Spawner
    spool: Spool
    incarnation: Incarnation
    right: Callable[[], Awaitable[None]]


@dataclass
class JobRun:
    """Runs a job until it ends, is handed back, or is lost."""

    means: Means
    provider: Provider
    holding: Holding
    job: Job = field(init=False)
    instance: Instance = field(init=False)
    absent: frozenset[tuple[str, str]] = frozenset()
    gone: bool = False
    cancelling: bool = False
    draining: bool = False

    def __post_init__(self) -> None:
        self.renderer = self.means.renderer
        self.clock = self.means.clock
        self._number = 0
        self._answered: deque[News] = deque(maxlen=KEPT_REPORTS)
        self._attempts: dict[str, asyncio.Task[None]] = {}
        self._outcomes: list[Outcome] = []
        self._pauses: dict[str, float] = {}
        self._reopen: tuple[str, ...] = ()
        self._secrets: tuple[str, ...] | None = None
        self._verdict = Verdict.NONE
        self._wake = asyncio.Event()
        self._take(self.holding)

    # ---- seen by attempts

    @property
    def giving_up(self) -> bool:
        return self.gone or self.cancelling

    @property
    def incarnation(self) -> Incarnation:
        return self.means.incarnation

    async def right(self) -> None:
        await self.means.right()

    # ---- told by the worker

    def lose(self) -> None:
        """The job is somebody else's: nothing that is still under way here counts."""
        self.gone = True
        self._wake.set()

    def cancel(self) -> None:
        """A cancel was asked for: stop at the next safe point."""
        self.cancelling = True
        self._wake.set()

    def hand_back(self) -> None:
        """The worker is to end: begin nothing new, and give the job to another at the next safe point."""
        self.draining = True
        self._wake.set()

    # ---- the run

    async def run(self) -> None:
        try:
            if await self._deliver_fence():
                while not self.gone:
                    await self._round()
        finally:
            for task in self._attempts.values():
                task.cancel()

    async def _deliver_fence(self) -> bool:
        """The first act of a claim: only then may what is observed be believed (DESIGN §3.15)."""
        trouble = ""
        for tries in range(FENCE_TRIES):
            try:
                await self._survey()
            except StaleFence:
                return False
            except (Fault, OSError) as error:  # no answer in time is one of the latter
                if isinstance(error, Fault) and not error.failure.kind.retryable and await self._say_hopeless(error):
                    return not self.gone
                trouble = str(error) or "no answer in time"
                _log.info("target does not answer", job_id=self.job.id, error=trouble)
                await self.clock.sleep(backoff(tries + 1, f"{self.job.id}:{self.job.fence}:{tries}").total_seconds())
            else:
                return not self.gone
        await self._release(WaitsFor.BREAKER, 5.0, trouble)
        return False

    async def _say_hopeless(self, fault: Fault) -> bool:
        """The target can't take this instance at all: the job's next step fails for good, before anything was touched."""
        ready = [step for step in plans.ready(self.job.steps) if step.state is StepState.PENDING]
        if self.job.state is not JobState.RUNNING or not ready:
            return False
        outcome = Outcome(ready[0].name, Phase.DO, ready[0].token, Result.ERROR, failure=fault.failure)
        await self._report((outcome,), (), Verdict.NONE)
        return True

    async def _survey(self) -> Mapping[str, Observed]:
        with tracing.span("target survey", tracing.of_job(self.job), kind=SpanKind.CLIENT):
            async with asyncio.timeout(SURVEY_SECONDS):
                return {seen.slot: seen for seen in await self.provider.survey(self.instance.id, self.job.fence)}

    async def _round(self) -> None:
        self._wake.clear()
        outcomes, self._outcomes = tuple(self._outcomes[:NEWS_LIMIT]), self._outcomes[NEWS_LIMIT:]
        intents = self._next_intents(outcomes)[:NEWS_LIMIT]
        verdict = self._next_verdict(outcomes)
        if outcomes or intents or verdict is not Verdict.NONE:
            await self._report(outcomes, intents, verdict)
            return
        if self.draining and not self._attempts:
            await self._release(WaitsFor.WORKER, 0.0)
            return
        self._observe_unknown()
        if not self._attempts and not self._start_unwound_check():
            pause = self._next_due()
            if pause > RELEASE_AFTER:
                await self._release(WaitsFor.RETRY, pause)
                return
        await self._wait(self._next_due())

    async def _wait(self, seconds: float) -> None:
        """Until something ends, is told, or is due."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(max(seconds, 0.01), 3600.0)):
                await self._wake.wait()

    # ---- what to do next

    def _next_intents(self, outcomes: tuple[Outcome, ...]) -> tuple[Intent, ...]:
        failed = any(outcome.result in (Result.ERROR, Result.TIMEOUT, Result.UNDECIDABLE) for outcome in outcomes)
        if failed or self.draining:
            return ()
        finished = {outcome.step for outcome in outcomes if outcome.result in (Result.DONE, Result.ADOPTED)}
        if self.job.state is JobState.RUNNING and not self.cancelling:
            seen_absent = {outcome.step for outcome in outcomes if outcome.result is Result.ABSENT}
            ready = plans.ready(self.job.steps, finished)
            return tuple(self._intent(step) for step in ready if self._may_start(step, seen_absent))
        if self.job.state is JobState.UNWINDING:
            undone = {outcome.step for outcome in outcomes if outcome.phase is Phase.UNDO} & finished
            ready = plans.unwindable(self.job.steps, undone)
            return tuple(Intent(step.name, Phase.UNDO) for step in ready if self._idle(step) and self._due(step))
        return ()

    def _intent(self, step: Step) -> Intent:
        return Intent(step.name, Phase.REPLACE if step.state is StepState.REPLACING else Phase.DO)

    def _may_start(self, step: Step, seen_absent: set[str]) -> bool:
        if not self._idle(step) or not self._due(step):
            return False
        return step.state is not StepState.UNKNOWN or step.slot is None or step.name in seen_absent

    def _idle(self, step: Step) -> bool:
        return step.name not in self._attempts and not step.outstanding

    def _due(self, step: Step) -> bool:
        paused = self._pauses.get(step.name, 0.0) > self.clock.monotonic()
        return not paused and (step.retry_at is None or step.retry_at <= self._server_now())

    def _next_due(self) -> float:
        """Seconds until a step may be tried again; long where nothing waits for time.

        A step that is due and was not begun waits for something else, and is looked at again after a while.
        """
        now, mono = self._server_now(), self.clock.monotonic()
        retries = [(step.retry_at - now).total_seconds() for step in self.job.steps if step.retry_at is not None]
        pauses = [until - mono for until in self._pauses.values() if until > mono]
        due = [seconds if seconds > 0 else REFUSED_PAUSE for seconds in (*retries, *pauses)]
        return min(due) if due else 3600.0 if self._attempts else 1.0

    def _server_now(self) -> datetime:
        return self.holding.at + timedelta(seconds=self.clock.monotonic() - self._taken_at)

    def _next_verdict(self, outcomes: tuple[Outcome, ...]) -> Verdict:
        if self._verdict is not Verdict.NONE:
            return self._verdict
        cancelling = self.cancelling or self.job.state is JobState.CANCELLING
        if cancelling and self.job.state in (JobState.RUNNING, JobState.CANCELLING) and not self._attempts:
            reported = {outcome.step for outcome in outcomes}
            if all(not step.outstanding or step.name in reported for step in self.job.steps):
                return Verdict.ACKNOWLEDGED
        return Verdict.NONE

    # ---- attempts

    def _start(self, step: Step, work: Callable[[Step], Awaitable[Outcome | None]]) -> None:
        async def attempt() -> None:
            try:
                outcome = await self._traced(step, work)
            except StaleFence:
                self.lose()
            else:
                if outcome is not None:
                    self._outcomes.append(outcome)
            finally:
                self._attempts.pop(step.name, None)
                self._wake.set()

        self._attempts[step.name] = self.means.spawner.spawn(attempt(), f"attempt {step.name}")

    async def _traced(self, step: Step, work: Callable[[Step], Awaitable[Outcome | None]]) -> Outcome | None:
        what = "look" if step.state is StepState.UNKNOWN else step.phase.value
        about = {
            "spectrum.step_id": step.id,
            "spectrum.attempt": step.attempt,
            "spectrum.fence": self.job.fence,
            "spectrum.token": step.token,
        }
        with (
            bound(step=step.name, attempt=str(step.attempt)),
            tracing.span(f"{what} {step.name}", tracing.of_job(self.job), about=about) as noted,
        ):
            outcome = await work(step)
            if outcome is not None and outcome.failure is not None:
                noted.fail(outcome.failure.code)
            return outcome

    def _action(self, step: Step) -> Action:
        operation = self.means.catalog[self.job.operation, self.job.operation_version]
        action: Action = operation.actions[step.action]
        return action

    async def _work(self, step: Step) -> Outcome:
        """One announced attempt: do, undo, or take the old key away."""
        context = StepContext(self, step)

        async def act() -> Mapping[str, Any]:
            match step.phase:
                case Phase.DO:
                    return await self._action(step).do(context)
                case Phase.UNDO:
                    undo = self._action(step).undo
                    return await undo(context) if undo is not None else record_of(await context.restore())
                case Phase.REPLACE:
                    return record_of(await context.remove())

        return await self._tried(step, act, step.attempt_seconds * ATTEMPT_MARGIN)

    async def _tried(self, step: Step, act: Callable[[], Awaitable[Mapping[str, Any]]], seconds: float) -> Outcome:
        """The outcome of `act`, without a secret in it. Whatever it raises is classified; what it leaves open is a timeout."""
        return await self._concealed(await self._outcome_of(step, act, seconds))

    async def _concealed(self, outcome: Outcome) -> Outcome:
        """What the instance's own programs said is evidence, and may hold what they were given (P18)."""
        said = outcome.output.get(SAID)
        if not said and not (outcome.failure and outcome.failure.evidence):
            return outcome
        output: Mapping[str, Any]
        try:
            async with asyncio.timeout(SECRETS_SECONDS):
                secrets = await self._secret_values()
        except Exception as error:
            # Whatever it is: what can't be searched is not told, and the outcome must not wait for it.
            _log.info("evidence is withheld", job_id=self.job.id, step=outcome.step, error=type(error).__name__)
            output = {name: value for name, value in outcome.output.items() if name != SAID}
            return replace(outcome, output=output, failure=withhold(outcome.failure) if outcome.failure else None)
        failure = conceal_failure(outcome.failure, secrets) if outcome.failure else None
        output = {**outcome.output, SAID: conceal_lines(said, secrets)} if said else outcome.output
        return replace(outcome, output=output, failure=failure)

    async def _secret_values(self) -> tuple[str, ...]:
        """Fetched once a claim, and only where there is something to hide them in."""
        if self._secrets is None:
            self._secrets = await self.renderer.secrets(self)
        return self._secrets

    async def _outcome_of(self, step: Step, act: Callable[[], Awaitable[Mapping[str, Any]]], seconds: float) -> Outcome:
        def outcome(result: Result, **rest: Any) -> Outcome:
            return Outcome(step.name, step.phase, step.token, result, **rest)

        try:
            async with asyncio.timeout(seconds):
                return outcome(Result.DONE, output=await act())
        except StaleFence:
            raise
        except TimeoutError as error:  # without a text: it is this one's time that has passed
            failure = Failure(ErrorClass.TRANSIENT, "timeout", str(error) or f"No answer within {seconds:g} s.")
            return outcome(Result.TIMEOUT, failure=failure)
        except GivenUp:
            failure = Failure(ErrorClass.TRANSIENT, "given-up", "Given up, because the job is to be cancelled.")
            return outcome(Result.ERROR if step.slot is None else Result.TIMEOUT, failure=failure)
        except Fault as fault:
            return outcome(Result.ERROR, failure=fault.failure)
        except (LinkDown, Problem) as error:
            failure = Failure(ErrorClass.TRANSIENT, "control-plane", f"The control plane did not help: {error}")
            return outcome(Result.ERROR, failure=failure)
        except Exception as error:
            _log.exception("step raised what it should not", job_id=self.job.id, step=step.name)
            failure = Failure(ErrorClass.TRANSIENT, "internal", f"{type(error).__name__}: {error}")
            return outcome(Result.ERROR, failure=failure)

    # ---- unknown attempts

    def _observe_unknown(self) -> None:
        if self.job.state is not JobState.RUNNING or self.giving_up or self.draining:
            return
        for step in plans.ready(self.job.steps):
            if step.state is StepState.UNKNOWN and step.slot and self._idle(step) and self._due(step):
                self._start(step, self._observe)

    async def _observe(self, step: Step) -> Outcome:
        """What became of an attempt that nobody spoke for: adopted, absent twice, or undecidable (DESIGN §3.8)."""
        found: list[Result] = []

        async def act() -> Mapping[str, Any]:
            result, output = await self._decide_unknown(step)
            found.append(result)
            return output

        outcome = await self._tried(step, act, step.step_seconds)
        if outcome.result is Result.DONE:
            return Outcome(step.name, step.phase, step.token, found[0], output=outcome.output)
        return outcome

    async def _decide_unknown(self, step: Step) -> tuple[Result, Mapping[str, Any]]:
        context = StepContext(self, step)
        opposite = undecided = 0
        while True:
            seen = await self._look(step)
            match self._as_wanted(step, seen):
                case True:
                    adopt = self._action(step).adopt
                    return Result.ADOPTED, await adopt(context) if adopt is not None else record_of(seen)
                case False:
                    opposite += 1
                    if opposite == ABSENT_SIGHTINGS:
                        return Result.ABSENT, {}
                case None:
                    undecided += 1
                    if undecided == UNDECIDED_SIGHTINGS:
                        return Result.UNDECIDABLE, {}
            await context.pause(self.provider.settle)

    async def _look(self, step: Step) -> Observed:
        """What is in the slot. The step's own time is for what goes on there, not for one look whose answer was lost."""
        try:
            async with asyncio.timeout(SURVEY_SECONDS):
                return await self.provider.observe(Call(self.instance.id, step.slot or "", "", self.job.fence))
        except TimeoutError:
            raise TimeoutError(f"No look was answered within {SURVEY_SECONDS:g} s.") from None

    def _as_wanted(self, step: Step, seen: Observed) -> bool | None:
        if seen.presence is Presence.UNKNOWN:
            return None
        present = seen.presence is Presence.PRESENT
        if step.wants is Wants.PRESENT:
            return present and seen.key == step.effect_key
        return not present

    # ---- the unwound post-condition

    def _start_unwound_check(self) -> bool:
        settled = all(step.state in UNWOUND for step in self.job.steps)
        if self.job.state is not JobState.UNWINDING or not settled or self._verdict is not Verdict.NONE:
            return False
        task = self.means.spawner.spawn(self._check_unwound(), "check unwound")
        self._attempts[UNWOUND_CHECK] = task
        return True

    async def _check_unwound(self) -> None:
        """Success is never assumed: the slots are looked at (DESIGN §3.10).

        Where a late call may still land, absence is what was seen twice.
        """
        try:
            wrong = await self._not_as_before()
            if not wrong and self.provider.strength is Strength.BEST_EFFORT:
                await self.clock.sleep(self.provider.settle)
                wrong = await self._not_as_before()
            self._verdict, self._reopen = (Verdict.REOPENED, wrong[:NEWS_LIMIT]) if wrong else (Verdict.UNWOUND, ())
        except StaleFence:
            self.lose()
        except (Fault, OSError) as error:
            _log.info("unwound state can't be seen", job_id=self.job.id, error=str(error))
            await self.clock.sleep(self.provider.settle)
        finally:
            self._attempts.pop(UNWOUND_CHECK, None)
            self._wake.set()

    async def _not_as_before(self) -> tuple[str, ...]:
        seen = await self._survey()
        return tuple(
            step.name
            for step in self.job.steps
            if step.state is StepState.UNDONE and step.slot and not self._as_before(step.slot, seen.get(step.slot))
        )

    def _as_before(self, slot: str, seen: Observed | None) -> bool:
        key = self.job.baseline.get(slot)
        if key is None:
            return seen is None or seen.presence is Presence.ABSENT
        return seen is not None and seen.presence is Presence.PRESENT and seen.key == key

    # ---- telling

    async def _report(self, outcomes: tuple[Outcome, ...], intents: tuple[Intent, ...], verdict: Verdict) -> None:
        news = News(
            self.job.organization_id,
            self.instance.id,
            self.job.id,
            self.job.fence,
            self._number + 1,
            outcomes,
            intents,
            verdict,
            self._reopen,
        )
        with tracing.span("report", tracing.of_job(self.job), kind=SpanKind.CLIENT) as noted:
            answer = await self._deliver(replace(news, traceparent=str(noted.trace)) if noted.trace else news)
        if answer is None or answer.gone:
            self.lose()
            return
        self._number += 1
        self._answered.append(news)
        self._verdict, self._reopen = Verdict.NONE, ()
        self._take(answer)
        for intent in intents:
            self._begin(intent, answer)

    async def _deliver(self, news: News) -> Holding | None:
        """The answer to a report, however long the control plane is away; None where it is refused.

        A control plane that has lost its last commits names the first report that it misses: it gets what it lost, then this one.
        """
        unheard, missed = [news], False
        answer: Holding | None = None
        while unheard:
            try:
                answer = await self._send(unheard[0])
            except Problem as problem:
                lost = [] if missed else self._kept_since(problem)
                _log.info(
                    "report refused",
                    job_id=news.job_id,
                    problem=problem.slug,
                    detail=problem.detail,
                    resent=len(lost),
                )
                if not lost:
                    self.means.spool.drop(unheard[0])
                    return None
                unheard, missed = [*lost, news], True
            else:
                sent = unheard.pop(0)
                # What was granted and is refused now may run here: only a new fence makes an end of it.
                if answer is None or (unheard and answer.refused):
                    return None
                if missed:
                    self.means.spool.drop(sent)
        return answer

    def _kept_since(self, problem: Problem) -> list[News]:
        """The answered reports from the one that a `report-gap` names; none where that one is not kept (any more)."""
        first = problem.extra.get("resend_from") if problem.slug == "report-gap" else None
        kept = [news for news in self._answered if first is not None and news.number >= first]
        return kept if kept and kept[0].number == first else []

    async def _send(self, news: News) -> Holding | None:
        """The answer; None where the job is lost meanwhile.

        Raises Problem where the report is refused: whether it stays in the spool is the caller's to say.
        """
        tries = 0
        while not self.gone:
            try:
                answer = await self.means.link.report(self.means.incarnation, news)
            except LinkDown:
                if tries == 0:
                    self.means.spool.put(news)
                tries += 1
                pause = backoff(min(tries, 4), f"{news.job_id}:{news.fence}:{news.number}:{tries}")
                await self.clock.sleep(pause.total_seconds())
            else:
                if tries:
                    self.means.spool.drop(news)
                return answer
        return None

    def _take(self, answer: Holding) -> None:
        self.holding = answer
        self.job = answer.job
        self.instance = answer.instance
        self.absent = frozenset(answer.keys_absent)
        self._taken_at = self.clock.monotonic()
        if self.job.state is JobState.CANCELLING:
            self.cancelling = True
        elif self.job.state is JobState.UNWINDING:
            self.cancelling = False

    def _begin(self, intent: Intent, answer: Holding) -> None:
        step = self.job.step(intent.step)
        if why := answer.refused.get(intent.step):
            self._pauses[intent.step] = self.clock.monotonic() + REFUSED_PAUSE
            _log.debug("intent refused", job_id=self.job.id, step=intent.step, why=why)
        elif step is not None and step.outstanding:
            self._start(step, self._work)

    async def _release(self, why: WaitsFor, seconds: float, holder: str = "") -> None:
        until = self._server_now() + timedelta(seconds=seconds)
        handback = Handback(self.job.organization_id, self.instance.id, self.job.id, self.job.fence, until, why, holder)
        tries = 0
        # Not listing it in a heartbeat would hand it back too, but would count as a loss.
        while not self.gone:
            try:
                await self.means.link.release(self.means.incarnation, handback)
            except LinkDown:
                tries += 1
                pause = backoff(min(tries, 4), f"{self.job.id}:{self.job.fence}:release:{tries}")
                await self.clock.sleep(pause.total_seconds())
            except Problem as problem:
                _log.info("release refused", job_id=self.job.id, problem=problem.slug)
                break
            else:
                break
        self.lose()
