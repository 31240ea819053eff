-- name: transaction_begin
-- The scope of a batch, and the id by which its commit can be settled, as long as PostgreSQL runs on without a recovery. What was
-- known before the cell's epoch was raised may be of rows that were put back.
SELECT set_config('app.organizations', $1::text[]::text, true), pg_current_xact_id()::text AS xid,
       concat_ws(' ', extract(epoch FROM pg_postmaster_start_time()), pg_last_wal_replay_lsn()) AS run,
       (SELECT epoch FROM cell) AS epoch;

-- name: transaction_status
-- What became of a transaction whose acknowledgement was lost: committed, aborted, in progress, or null (nobody knows).
SELECT CASE WHEN concat_ws(' ', extract(epoch FROM pg_postmaster_start_time()), pg_last_wal_replay_lsn()) = $2
            THEN pg_xact_status($1::text::xid8) END AS status;

-- name: keys_lock
-- Takes the batch's idempotency keys and instance names, in order; false where another transaction has one.
SELECT hash, pg_try_advisory_xact_lock(hash) AS taken FROM unnest($1::bigint[]) AS h (hash) ORDER BY hash;

-- name: keys_remembered
-- Answers that were given under these keys.
SELECT organization_id, method, path, key, request_digest, status, location, body
FROM idempotency_keys
WHERE (organization_id, method, path, key) IN (SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]));

-- name: keys_remember
-- Answers to be given again to whoever repeats a key.
INSERT INTO idempotency_keys (organization_id, method, path, key, request_digest, command_id, status, location, body, created_at, expires_at)
SELECT organization_id, method, path, key, request_digest, command_id, status, location, body, $10::timestamptz, $10::timestamptz + interval '30 days'
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::smallint[], $8::text[], $9::jsonb[])
    AS k (organization_id, method, path, key, request_digest, command_id, status, location, body);

-- name: names_taken
-- Which of these instance names are taken in their organizations.
SELECT i.organization_id, i.name FROM instances i
JOIN unnest($1::text[], $2::text[]) AS n (organization_id, name) ON n.organization_id = i.organization_id AND n.name = i.name
WHERE i.purged_at IS NULL;

-- name: instances_lock
-- Locks the aggregates of a batch in order, passing over those that another copy holds. The lateral join keeps it at one look-up an id.
SELECT i.id, i.version FROM (SELECT id FROM unnest($1::text[]) AS w (id) ORDER BY id) AS wanted
CROSS JOIN LATERAL (SELECT id, version FROM instances WHERE instances.id = wanted.id OFFSET 0 FOR NO KEY UPDATE SKIP LOCKED) AS i;

-- name: instances_placed
-- Instances with their active placements.
SELECT i.*, p.id AS placement_id FROM unnest($1::text[]) AS w (id)
CROSS JOIN LATERAL (SELECT * FROM instances WHERE instances.id = w.id OFFSET 0) AS i
CROSS JOIN LATERAL (SELECT id FROM placements WHERE placements.instance_id = w.id AND role = 'active' OFFSET 0) AS p;

-- name: instances_exist
-- Which of these exist, locked or not.
SELECT i.id FROM unnest($1::text[]) AS w (id) CROSS JOIN LATERAL (SELECT id FROM instances WHERE instances.id = w.id OFFSET 0) AS i;

-- name: jobs_of_instances
-- The open jobs of aggregates.
SELECT j.* FROM unnest($1::text[]) AS w (id)
CROSS JOIN LATERAL (SELECT * FROM jobs WHERE jobs.instance_id = w.id AND jobs.finished_at IS NULL OFFSET 0) AS j;

-- name: jobs_ended
-- Those of the named jobs that are of these aggregates and have ended.
SELECT j.* FROM unnest($2::text[]) AS w (id)
CROSS JOIN LATERAL (SELECT * FROM jobs WHERE jobs.id = w.id AND jobs.finished_at IS NOT NULL AND jobs.instance_id = ANY ($1) OFFSET 0) AS j;

-- name: steps_of_jobs
-- The steps of these jobs, in their order.
SELECT s.* FROM unnest($1::text[]) AS w (id)
CROSS JOIN LATERAL (SELECT * FROM steps WHERE steps.job_id = w.id ORDER BY position OFFSET 0) AS s;

-- name: effects_of_instances
-- What is wanted of the slots of these instances.
SELECT e.* FROM unnest($1::text[]) AS w (id)
CROSS JOIN LATERAL (SELECT * FROM effects WHERE effects.instance_id = w.id OFFSET 0) AS e;

-- name: outlines
-- What planning needs of these releases.
SELECT id, outline FROM releases WHERE id = ANY ($1);

-- name: surroundings
-- What holds at this moment for jobs of an organization on a target: the one clock, the cell, the target, and the brake that is on.
-- A gap that no tick has counted yet is lost already.
SELECT t.id AS target_id, w.organization_id, t.organization_id AS target_organization, t.url, clock.now, c.epoch, b.id AS brake,
       c.lost_total + CASE WHEN clock.now - c.alive_at > make_interval(secs => $3) THEN clock.now - c.alive_at ELSE '0' END + t.down_total + coalesce(clock.now - least(t.down_since, r.opened_at), '0') AS lost,
       r.state AS breaker_state, r.failures, r.openings, r.opened_at, r.retry_at, r.probe_holder, r.version AS breaker_version
FROM (SELECT greatest(clock_timestamp(), alive_at) AS now FROM cell) AS clock
CROSS JOIN cell c
CROSS JOIN unnest($1::text[], $2::text[]) AS w (target_id, organization_id)
JOIN targets t ON t.id = w.target_id
LEFT JOIN breakers r ON r.target_id = t.id AND r.call_kind = 'provider'
LEFT JOIN LATERAL (
    SELECT id FROM brakes
    WHERE released_at IS NULL AND (until IS NULL OR until > clock.now)
      AND (reach = 'everything' OR (reach = 'organization' AND organization_id = w.organization_id) OR (reach = 'target' AND target_id = t.id))
    ORDER BY id LIMIT 1) AS b ON true;

-- name: breakers_keep
-- What is known now of the targets' willingness to answer, where nobody has changed it since it was read: only so is a probe the only
-- one. Answers how many were kept. Time in which a breaker was open does not count for deadlines: it is added by the one who closes
-- it. All breakers are locked in order before the first is written, and all are written before the targets are locked in order: that
-- is what the two counts are for.
WITH changed AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::integer[], $6::timestamptz[], $7::timestamptz[], $8::text[], $9::bigint[])
        AS n (target_id, organization_id, state, failures, openings, opened_at, retry_at, probe, version)
), known AS MATERIALIZED (
    SELECT target_id, opened_at FROM breakers WHERE call_kind = 'provider' AND target_id = ANY ($1) ORDER BY target_id FOR NO KEY UPDATE
), kept AS (
    INSERT INTO breakers (target_id, call_kind, organization_id, state, failures, openings, opened_at, retry_at, probe_holder, probe_until, version)
    SELECT target_id, 'provider', organization_id, state, failures, openings, opened_at, retry_at, probe,
           CASE WHEN probe IS NOT NULL THEN retry_at END, version + 1 FROM changed
    WHERE (SELECT count(*) FROM known) >= 0 ORDER BY target_id
    ON CONFLICT (target_id, call_kind) DO UPDATE SET
        state = excluded.state, failures = excluded.failures, openings = excluded.openings, opened_at = excluded.opened_at,
        retry_at = excluded.retry_at, probe_holder = excluded.probe_holder, probe_until = excluded.probe_until, version = excluded.version
    WHERE breakers.version = excluded.version - 1
    RETURNING target_id
), closing AS MATERIALIZED (
    SELECT t.id, k.opened_at FROM known k JOIN kept USING (target_id) JOIN changed n USING (target_id) JOIN targets t ON t.id = k.target_id
    WHERE (SELECT count(*) FROM kept) > 0 AND n.state = 'closed' AND k.opened_at IS NOT NULL AND t.down_since IS NULL
    ORDER BY t.id FOR NO KEY UPDATE OF t
), counted AS (
    UPDATE targets t SET down_total = t.down_total + ($10::timestamptz - c.opened_at) FROM closing c WHERE t.id = c.id
)
SELECT count(*) FROM kept;

-- name: clock
-- The one clock, read after the locks; it never goes back behind the cell's last tick.
SELECT greatest(clock_timestamp(), alive_at) AS now FROM cell;

-- name: instances_insert
-- New instances, and when each is to be looked at first.
WITH made AS (
INSERT INTO instances (id, organization_id, name, product, release_id, plan, target_id, pool_id, labels, desired_state, lifecycle, hold,
    health, generation, accepted_generation, rejected_generation, requested, accepted, counter, job_counter, event_sequence, active_job_id,
    version, slot_numbers, facts, outputs, services, conditions, observed_at, created_at, updated_at, deleted_at, purge_at, purged_at)
SELECT id, organization_id, name, product, release_id, plan, target_id, pool_id, labels, desired_state, lifecycle, hold, health,
    generation, accepted_generation, rejected_generation, requested, accepted, counter, job_counter, event_sequence,
    active_job_id, version, slot_numbers, facts, outputs, services::jsonb, conditions::jsonb, observed_at, created_at,
    updated_at, deleted_at, purge_at, purged_at
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::jsonb[],
    $10::text[], $11::text[], $12::text[], $13::text[], $14::bigint[], $15::bigint[], $16::bigint[], $17::jsonb[], $18::jsonb[],
    $19::bigint[], $20::bigint[], $21::bigint[], $22::text[], $23::bigint[], $24::jsonb[], $25::jsonb[], $26::jsonb[], $27::text[],
    $28::text[], $29::timestamptz[], $30::timestamptz[], $31::timestamptz[], $32::timestamptz[], $33::timestamptz[], $34::timestamptz[])
    AS n (id, organization_id, name, product, release_id, plan, target_id, pool_id, labels, desired_state, lifecycle, hold, health,
    generation, accepted_generation, rejected_generation, requested, accepted, counter, job_counter, event_sequence,
    active_job_id, version, slot_numbers, facts, outputs, services, conditions, observed_at, created_at, updated_at, deleted_at,
    purge_at, purged_at)
RETURNING id, organization_id, pool_id, created_at)
INSERT INTO watches (instance_id, organization_id, pool_id, look_at)
SELECT id, organization_id, pool_id, created_at FROM made;

-- name: targets_removed
-- Which of these targets were removed. Asked after instances were put on them: their foreign key keeps a removal out from then on.
SELECT id, name FROM targets WHERE id = ANY ($1) AND removed_at IS NOT NULL;

-- name: instances_update
-- What a decision may change of an instance.
UPDATE instances i SET
    release_id = n.release_id, plan = n.plan, desired_state = n.desired_state, lifecycle = n.lifecycle, hold = n.hold, health = n.health,
    generation = n.generation, accepted_generation = n.accepted_generation, rejected_generation = n.rejected_generation,
    requested = n.requested, accepted = n.accepted, counter = n.counter, job_counter = n.job_counter, event_sequence = n.event_sequence,
    active_job_id = n.active_job_id, version = n.version, slot_numbers = n.slot_numbers, facts = n.facts, outputs = n.outputs,
    services = n.services::jsonb, conditions = n.conditions::jsonb, observed_at = n.observed_at, updated_at = n.updated_at, deleted_at = n.deleted_at,
    purge_at = n.purge_at, purged_at = n.purged_at, health_since = n.health_since, health_seen = n.health_seen,
    health_streak = n.health_streak
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::bigint[], $10::bigint[],
    $11::jsonb[], $12::jsonb[], $13::bigint[], $14::bigint[], $15::bigint[], $16::text[], $17::bigint[], $18::jsonb[], $19::jsonb[],
    $20::jsonb[], $21::text[], $22::text[], $23::timestamptz[], $24::timestamptz[], $25::timestamptz[], $26::timestamptz[],
    $27::timestamptz[], $28::timestamptz[], $29::text[], $30::integer[])
    AS n (id, release_id, plan, desired_state, lifecycle, hold, health, generation, accepted_generation, rejected_generation, requested,
    accepted, counter, job_counter, event_sequence, active_job_id, version, slot_numbers, facts, outputs, services, conditions,
    observed_at, updated_at, deleted_at, purge_at, purged_at, health_since, health_seen, health_streak)
WHERE i.id = n.id;

-- name: instances_move
-- What nearly every decision changes of an instance, and most change nothing else.
UPDATE instances i SET
    counter = n.counter, job_counter = n.job_counter, event_sequence = n.event_sequence, active_job_id = n.active_job_id,
    version = n.version, updated_at = n.updated_at
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[], $7::timestamptz[])
    AS n (id, counter, job_counter, event_sequence, active_job_id, version, updated_at)
WHERE i.id = n.id;

-- name: placements_insert
-- Where new instances run.
INSERT INTO placements (id, organization_id, instance_id, target_id, role, created_at, updated_at)
SELECT id, organization_id, instance_id, target_id, 'active', $5, $5
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS p (id, organization_id, instance_id, target_id);

-- name: jobs_insert
-- New jobs. What planning decides of them comes with the update of the same batch.
INSERT INTO jobs (id, organization_id, subject_type, subject_id, instance_id, target_id, parent_id, number, front, operation,
    operation_version, pool_id, parameters, spec, generation, actor, command_id, traceparent, state, waiting_for, waiting_holder,
    waiting_since, waiting_until, waiting_unblock, deadline, created_at)
SELECT id, organization_id, 'instance', instance_id, instance_id, target_id, parent_id, number, front, operation, operation_version, pool_id,
    parameters, spec, generation, actor, command_id, traceparent, 'waiting', 'queue', '', created_at, deadline, '', deadline, created_at
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::boolean[], $8::text[], $9::integer[], $10::text[],
    $11::jsonb[], $12::jsonb[], $13::bigint[], $14::text[], $15::text[], $16::text[], $17::timestamptz[], $18::timestamptz[])
    AS n (id, organization_id, instance_id, target_id, parent_id, number, front, operation, operation_version, pool_id, parameters, spec,
    generation, actor, command_id, traceparent, deadline, created_at);

-- name: jobs_update
-- What a decision may change of a job.
UPDATE jobs j SET
    state = n.state, version = n.version, fence = n.fence, lease_id = n.lease_id, worker_id = n.worker_id, incarnation = n.incarnation,
    claim_number = n.claim_number, not_before = n.not_before, rescues = n.rescues, alone = n.alone, report_fence = n.report_fence,
    report_number = n.report_number, reason = n.reason, failure = n.failure, residue = n.residue::jsonb, baseline = n.baseline,
    plan_hash = n.plan_hash, progress_done = n.progress_done, progress_total = n.progress_total, deadline = n.deadline,
    unwind_seconds = n.unwind_seconds, unwind_deadline = n.unwind_deadline, lost_before = n.lost_before, waiting_for = n.waiting_for,
    waiting_holder = n.waiting_holder, waiting_since = n.waiting_since, waiting_until = n.waiting_until,
    waiting_unblock = n.waiting_unblock, started_at = n.started_at, finished_at = n.finished_at
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::timestamptz[],
    $10::integer[], $11::boolean[], $12::bigint[], $13::bigint[], $14::text[], $15::jsonb[], $16::text[], $17::jsonb[], $18::text[],
    $19::integer[], $20::integer[], $21::timestamptz[], $22::double precision[], $23::timestamptz[], $24::interval[], $25::text[],
    $26::text[], $27::timestamptz[], $28::timestamptz[], $29::text[], $30::timestamptz[], $31::timestamptz[])
    AS n (id, state, version, fence, lease_id, worker_id, incarnation, claim_number, not_before, rescues, alone, report_fence,
    report_number, reason, failure, residue, baseline, plan_hash, progress_done, progress_total, deadline, unwind_seconds, unwind_deadline,
    lost_before, waiting_for, waiting_holder, waiting_since, waiting_until, waiting_unblock, started_at, finished_at)
WHERE j.id = n.id;

-- name: jobs_move
-- What a report that neither begins nor ends anything but steps changes of a job.
UPDATE jobs j SET
    version = n.version, report_fence = n.report_fence, report_number = n.report_number, progress_done = n.progress_done
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::integer[])
    AS n (id, version, report_fence, report_number, progress_done)
WHERE j.id = n.id;

-- name: steps_insert
-- The steps of jobs that were planned in this batch.
INSERT INTO steps (id, organization_id, job_id, position, name, action, needs, arguments, slot, wants, irreversible, destructive,
    tries_allowed, attempt_seconds, step_seconds, retry_cap, state, phase, effect_key)
SELECT id, organization_id, job_id, position, name, action, ARRAY(SELECT jsonb_array_elements_text(needs::jsonb)), arguments, slot, wants,
    irreversible, destructive, tries_allowed, attempt_seconds, step_seconds, retry_cap, state, phase, effect_key
FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::text[], $7::text[], $8::jsonb[], $9::text[], $10::text[],
    $11::boolean[], $12::boolean[], $13::integer[], $14::double precision[], $15::double precision[], $16::double precision[],
    $17::text[], $18::text[], $19::text[])
    AS n (id, organization_id, job_id, position, name, action, needs, arguments, slot, wants, irreversible, destructive, tries_allowed,
    attempt_seconds, step_seconds, retry_cap, state, phase, effect_key);

-- name: steps_update
-- What a decision may change of a step.
UPDATE steps s SET
    state = n.state, phase = n.phase, effect_key = n.effect_key, attempt = n.attempt, token = n.token, tries = n.tries,
    undo_tries = n.undo_tries, touched = n.touched, outstanding = n.outstanding, retry_at = n.retry_at,
    attempt_deadline = n.attempt_deadline, deadline = n.deadline, failure = n.failure, output = n.output
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::integer[], $6::bigint[], $7::integer[], $8::integer[], $9::boolean[],
    $10::boolean[], $11::timestamptz[], $12::timestamptz[], $13::timestamptz[], $14::jsonb[], $15::jsonb[])
    AS n (id, state, phase, effect_key, attempt, token, tries, undo_tries, touched, outstanding, retry_at, attempt_deadline, deadline,
    failure, output)
WHERE s.id = n.id;

-- name: effects_delete
-- Effects that are proven absent.
DELETE FROM effects e USING unnest($1::text[], $2::text[], $3::text[]) AS n (placement_id, slot, effect_key)
WHERE e.placement_id = n.placement_id AND e.slot = n.slot AND e.effect_key = n.effect_key;

-- name: effects_upsert
-- What is wanted of slots from now on.
INSERT INTO effects (placement_id, slot, effect_key, organization_id, instance_id, wanted, proven, replaced, fence, token, created_at, updated_at)
SELECT placement_id, slot, effect_key, organization_id, instance_id, wanted, proven, replaced, fence, token, $11, $11
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::boolean[], $8::boolean[], $9::bigint[], $10::bigint[])
    AS n (placement_id, slot, effect_key, organization_id, instance_id, wanted, proven, replaced, fence, token)
ON CONFLICT (placement_id, slot, effect_key) DO UPDATE SET
    wanted = excluded.wanted, proven = excluded.proven, replaced = excluded.replaced, fence = excluded.fence, token = excluded.token,
    updated_at = excluded.updated_at;

-- name: attempts_open
-- Attempts that an intent or an adoption began.
INSERT INTO attempts (job_id, step_id, number, organization_id, phase, cause, fence, token, worker_id, outcome, failure, intent_at, outcome_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::text[],
    $10::text[], $11::jsonb[], $12::timestamptz[], $13::timestamptz[]);

-- name: attempts_close
-- Outcomes of attempts that were opened before; the first one stays.
UPDATE attempts a SET outcome = n.outcome, outcome_at = n.outcome_at, failure = n.failure
FROM unnest($1::text[], $2::text[], $3::integer[], $4::text[], $5::timestamptz[], $6::jsonb[])
    AS n (job_id, step_id, number, outcome, outcome_at, failure)
WHERE a.job_id = n.job_id AND a.step_id = n.step_id AND a.number = n.number AND a.outcome IS NULL;

-- name: secrets_insert
-- Secret parameters of instances: ciphertext.
INSERT INTO secrets (instance_id, name, version, organization_id, ciphertext, key_id, created_at)
SELECT instance_id, name, version, organization_id, ciphertext, key_id, $7
FROM unnest($1::text[], $2::text[], $3::integer[], $4::text[], $5::bytea[], $6::text[])
    AS n (instance_id, name, version, organization_id, ciphertext, key_id);

-- name: secrets_delete
-- The secrets of instances that are purged.
DELETE FROM secrets WHERE instance_id = ANY ($1);

-- name: events_append
-- Facts, in the transaction that made them true (P6).
INSERT INTO events (id, organization_id, epoch, subject, sequence, type, data, traceparent, recorded_at)
SELECT id, organization_id, epoch, subject, sequence, type, data, traceparent, $9
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::text[], $7::jsonb[], $8::text[])
    AS n (id, organization_id, epoch, subject, sequence, type, data, traceparent);

-- name: audit_append
-- Who did what, in the transaction in which it was done (P10).
INSERT INTO audit (id, organization_id, recorded_at, actor, action, subject, evidence)
SELECT id, organization_id, $7, actor, action, subject, evidence
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::jsonb[])
    AS n (id, organization_id, actor, action, subject, evidence);

-- name: jobs_claimable
-- Jobs of a pool that nobody has and that are due. Organizations take turns: each gives the one that has been due for longest, so that
-- who was tried and handed back goes behind who was not. They are found by hopping from one organization to the next in the index.
WITH RECURSIVE organizations AS (
    (SELECT organization_id FROM jobs
     WHERE pool_id = $1 AND lease_id IS NULL AND state IN ('ready', 'unwinding') ORDER BY organization_id LIMIT 1)
    UNION ALL
    SELECT (SELECT j.organization_id FROM jobs j
            WHERE j.pool_id = $1 AND j.lease_id IS NULL AND j.state IN ('ready', 'unwinding') AND j.organization_id > o.organization_id
            ORDER BY j.organization_id LIMIT 1)
    FROM organizations o WHERE o.organization_id IS NOT NULL
)
SELECT c.organization_id, c.instance_id, c.id, c.fence FROM organizations o
CROSS JOIN LATERAL (
    SELECT j.organization_id, j.instance_id, j.id, j.fence, row_number() OVER (ORDER BY coalesce(j.not_before, j.created_at), j.id) AS turn FROM jobs j
    WHERE j.pool_id = $1 AND j.lease_id IS NULL AND j.state IN ('ready', 'unwinding') AND j.organization_id = o.organization_id
      AND (j.not_before IS NULL OR j.not_before <= clock_timestamp())
      AND (j.operation, j.operation_version) IN (SELECT * FROM unnest($2::text[], $3::integer[]))
      AND ($5 OR NOT j.alone)
      AND NOT EXISTS (
          SELECT FROM breakers r WHERE r.target_id = j.target_id AND r.call_kind = 'provider' AND r.state <> 'closed'
            AND r.retry_at > clock_timestamp())
      AND (j.state = 'unwinding' OR NOT EXISTS (
          SELECT FROM brakes b WHERE b.released_at IS NULL AND (b.until IS NULL OR b.until > clock_timestamp())
            AND (b.reach = 'everything' OR (b.reach = 'organization' AND b.organization_id = j.organization_id)
                 OR (b.reach = 'target' AND b.target_id = j.target_id))))
    ORDER BY coalesce(j.not_before, j.created_at), j.id LIMIT $4) AS c
ORDER BY c.turn, c.id LIMIT $4;

-- name: instances_due
-- Instances that the clock asks for: a deadline of a job or an attempt has passed, counting only time in which it could be met,
-- or somebody waits although nothing is active. A gap that no tick has counted yet is lost already.
WITH c AS MATERIALIZED (
    SELECT lost_total + CASE WHEN clock_timestamp() - alive_at > make_interval(secs => $2) THEN clock_timestamp() - alive_at ELSE '0' END
        AS lost_total FROM cell
)
SELECT organization_id, instance_id FROM (
    SELECT j.organization_id, j.instance_id,
           coalesce(j.unwind_deadline, j.deadline) + (c.lost_total + t.down_total
               + coalesce(clock_timestamp() - least(t.down_since, r.opened_at), '0') - j.lost_before) AS due
    FROM jobs j CROSS JOIN c JOIN targets t ON t.id = j.target_id
    LEFT JOIN breakers r ON r.target_id = t.id AND r.call_kind = 'provider'
    WHERE j.finished_at IS NULL AND coalesce(j.unwind_deadline, j.deadline) <= clock_timestamp()
    UNION ALL
    SELECT j.organization_id, j.instance_id,
           s.attempt_deadline + (c.lost_total + t.down_total + coalesce(clock_timestamp() - least(t.down_since, r.opened_at), '0') - j.lost_before)
    FROM steps s JOIN jobs j ON j.id = s.job_id CROSS JOIN c JOIN targets t ON t.id = j.target_id
    LEFT JOIN breakers r ON r.target_id = t.id AND r.call_kind = 'provider'
    WHERE s.attempt_deadline IS NOT NULL AND s.attempt_deadline <= clock_timestamp() AND s.outstanding AND j.lease_id IS NOT NULL
    UNION ALL
    SELECT j.organization_id, j.instance_id, j.created_at
    FROM jobs j JOIN instances i ON i.id = j.instance_id
    WHERE j.state = 'waiting' AND i.active_job_id IS NULL
) AS d
WHERE due <= clock_timestamp() GROUP BY organization_id, instance_id ORDER BY min(due), instance_id LIMIT $1;

-- name: instances_purgeable
-- Deleted instances whose retention is over.
SELECT organization_id, id AS instance_id FROM instances
WHERE purge_at IS NOT NULL AND purged_at IS NULL AND purge_at <= clock_timestamp() AND lifecycle = 'deleted' AND active_job_id IS NULL
  AND hold = 'none'
ORDER BY purge_at, id LIMIT $1;
