-- What must hold of the database after any interleaving: each query finds what breaks its promise, a sentence each. Braces name words of
-- `core.jobs.table`, and rows of the kept state that the interleaving began from.

-- name: p1_one_active_job
-- An instance has at most one active job.
SELECT 'instance ' || instance_id || ' has ' || count(*) || ' active jobs'
FROM jobs
WHERE state IN ({active})
GROUP BY instance_id HAVING count(*) > 1;

-- name: p1_active_job_is_known
-- An instance knows its active job.
SELECT 'job ' || j.id || ' is ' || j.state || ', and its instance does not know it'
FROM jobs j JOIN instances i ON i.id = j.instance_id
WHERE j.state IN ({active}) AND i.active_job_id IS DISTINCT FROM j.id;

-- name: p1_known_job_is_active
-- What an instance takes for its active job is active.
SELECT 'instance ' || i.id || ' takes ' || j.id || ' for active, which is ' || j.state
FROM instances i JOIN jobs j ON j.id = i.active_job_id
WHERE j.state NOT IN ({active});

-- name: p1_nobody_waits_behind_nobody
-- A job waits only behind another.
SELECT 'job ' || j.id || ' waits behind nobody'
FROM jobs j JOIN instances i ON i.id = j.instance_id
WHERE j.state = 'waiting' AND i.active_job_id IS NULL;

-- name: p1_owner_where_one_may_be
-- A job has an owner only where its state allows one.
SELECT 'job ' || id || ' is ' || state || ' and has an owner'
FROM jobs
WHERE lease_id IS NOT NULL AND state NOT IN ({ownable});

-- name: p1_success_means_all_steps
-- A job succeeds with every step done or skipped.
SELECT 'job ' || job_id || ' has succeeded without ' || name
FROM steps JOIN jobs j ON j.id = job_id
WHERE j.state = 'succeeded' AND steps.state NOT IN ('done', 'skipped');

-- name: p4_new_owner_new_fence
-- Whoever gets or loses a job does so under another fence.
SELECT 'job ' || j.id || ' changed hands under fence ' || j.fence
FROM jobs j JOIN {jobs_before} b USING (id)
WHERE j.lease_id IS DISTINCT FROM b.lease_id AND j.fence = b.fence AND j.state NOT IN ({terminal});

-- name: p5_transitions_of_the_table
-- A job went where the transition table leads, in any number of steps.
SELECT 'job ' || j.id || ' went from ' || b.state || ' to ' || j.state
FROM jobs j JOIN {jobs_before} b USING (id)
WHERE (b.state, j.state) NOT IN ({moves});

-- name: p5_versions_and_fences_grow
-- A job that changed has a higher version; neither version nor fence falls.
SELECT 'job ' || j.id || ': version ' || b.version || ' became ' || j.version || ', fence ' || b.fence || ' ' || j.fence
FROM jobs j JOIN {jobs_before} b USING (id)
WHERE j.version < b.version OR j.fence < b.fence OR (j.version = b.version AND (j.state, j.fence, j.lease_id) IS DISTINCT FROM (b.state, b.fence, b.lease_id));

-- name: p5_instance_versions_grow
-- Neither version nor counter of an instance falls.
SELECT 'instance ' || i.id || ': version ' || b.version || ' became ' || i.version || ', counter ' || b.counter || ' ' || i.counter
FROM instances i JOIN {instances_before} b USING (id)
WHERE i.version < b.version OR i.counter < b.counter;

-- name: p5_ended_jobs_have_no_open_attempt
-- A job that ended has left no attempt open.
SELECT 'attempt ' || a.number || ' of ' || step_id || ' is open, its job has ended'
FROM attempts a JOIN jobs j ON j.id = job_id
WHERE a.outcome IS NULL AND j.state IN ({terminal});

-- name: p5_attempts_without_a_gap
-- The attempts at a step are numbered without a gap.
SELECT 'step ' || step_id || ' has ' || count(*) || ' attempts up to number ' || max(number)
FROM attempts
GROUP BY step_id HAVING count(*) <> max(number);

-- name: p5_tokens_are_given_once
-- No token of an instance is given twice.
SELECT 'token ' || token || ' was given ' || count(*) || ' times'
FROM attempts JOIN jobs j ON j.id = job_id
WHERE token IS NOT NULL
GROUP BY j.instance_id, token HAVING count(*) > 1;

-- name: p6_events_without_a_gap
-- The events of a subject are numbered from 1 without a gap or a double.
SELECT subject || ' has ' || count(*) || ' events up to number ' || max(sequence)
FROM events
GROUP BY subject HAVING count(*) <> max(sequence) OR count(DISTINCT sequence) <> count(*);

-- name: p6_instances_count_their_events
-- An instance has told as many events as it counts.
SELECT 'instance ' || i.id || ' counts ' || event_sequence || ' events, there are ' || count(e.id)
FROM instances i LEFT JOIN events e ON e.subject = i.id
GROUP BY i.id HAVING count(e.id) <> i.event_sequence;

-- name: p6_every_end_is_told_once
-- The end of a job is one event.
SELECT 'job ' || j.id || ' has ' || j.state || ', told ' || count(e.id) || ' times'
FROM jobs j LEFT JOIN events e ON e.data->>'job_id' = j.id AND e.type = 'io.spectrum.job.' || j.state || '.v1'
WHERE j.state IN ({terminal})
GROUP BY j.id HAVING count(e.id) <> 1;

-- name: p7_positions_without_a_gap
-- Positions of the log go from 1 on without a gap or a double.
SELECT 'the log has ' || count(*) || ' positions up to ' || max(position)
FROM events
WHERE position IS NOT NULL HAVING count(*) <> max(position) OR count(DISTINCT position) <> count(*);

-- name: p7_positions_in_the_order_of_the_subject
-- What a subject told earlier stands earlier in the log.
SELECT 'event ' || b.sequence || ' of ' || a.subject || ' stands before ' || a.sequence
FROM events a JOIN events b ON a.subject = b.subject AND a.sequence < b.sequence AND b.position < coalesce(a.position, 1e18);

-- name: p7_cursor_at_the_end_of_the_log
-- The sequencer's cursor is where the log ends, and no reader's is beyond it.
SELECT 'the cursor of ' || c.consumer || ' is at ' || c.position || ', the log at ' || e.last
FROM cursors c CROSS JOIN (SELECT coalesce(max(position), 0) AS last FROM events) AS e
WHERE c.position > e.last OR (c.consumer = 'sequencer' AND c.position < e.last);

-- name: p9_keys_name_jobs_that_are_there
-- The job that a key was answered with is there.
SELECT 'key ' || key || ' names ' || location || ', which is not there'
FROM idempotency_keys
WHERE location LIKE '/v1/jobs/%' AND NOT EXISTS (SELECT FROM jobs
WHERE id = substr(location, 10));

-- name: p10_jobs_are_submitted_once
-- A job has one audit row of its submit.
SELECT 'job ' || j.id || ' was submitted ' || count(a.id) || ' times'
FROM jobs j LEFT JOIN audit a ON a.subject = j.id AND a.action = 'job.submitted'
GROUP BY j.id HAVING count(a.id) <> 1;

-- name: p10_tokens_are_audited
-- A token has the audit row of who made it.
SELECT 'token ' || id || ' was made by nobody'
FROM tokens
WHERE NOT EXISTS (SELECT FROM audit
WHERE subject = tokens.id AND action = 'token.create');

-- name: p10_every_end_is_audited_once
-- The end of a job is one audit row.
SELECT 'job ' || j.id || ' has ' || j.state || ', audited ' || count(a.id) || ' times'
FROM jobs j LEFT JOIN audit a ON a.subject = j.id AND a.action = 'job.' || j.state
WHERE j.state IN ({terminal})
GROUP BY j.id HAVING count(a.id) <> 1;

-- name: p10_seals_without_a_gap
-- The seals of an organization are numbered from 1 without a gap or a double.
SELECT 'organization ' || organization_id || ' has ' || count(*) || ' seals up to number ' || max(seal_number)
FROM audit
WHERE seal_number IS NOT NULL
GROUP BY organization_id HAVING count(*) <> max(seal_number) OR count(DISTINCT seal_number) <> count(*);

-- name: p10_seals_follow_each_other
-- A seal holds the hash of the one before it.
SELECT 'seal ' || a.seal_number || ' of ' || a.organization_id || ' does not follow the one before it'
FROM audit a JOIN audit b ON b.organization_id = a.organization_id AND b.seal_number = a.seal_number - 1
WHERE a.seal_previous <> b.seal_hash;

-- name: p10_heads_at_the_end_of_their_chains
-- The head of a chain is its last seal.
SELECT 'the head of ' || organization_id || ' is number ' || number || ', which is not the end of its chain'
FROM audit_heads h
WHERE ROW (number, hash) IS DISTINCT FROM (SELECT ROW (seal_number, seal_hash) FROM audit a
WHERE a.organization_id = h.organization_id AND seal_number IS NOT NULL ORDER BY seal_number DESC LIMIT 1);

-- name: p10_chains_have_heads
-- Where something is sealed there is a head.
SELECT DISTINCT 'the chain of ' || organization_id || ' has no head'
FROM audit a
WHERE seal_number IS NOT NULL AND NOT EXISTS (SELECT FROM audit_heads h
WHERE h.organization_id = a.organization_id);

-- name: p13_revoked_workers_have_no_lease
-- A revoked worker has no living lease.
SELECT 'the revoked worker ' || w.id || ' has the living lease ' || l.id
FROM workers w JOIN leases l ON l.worker_id = w.id
WHERE w.revoked_at IS NOT NULL AND l.ended_at IS NULL;

-- name: p13_join_tokens_let_workers_in
-- Whoever used a join token up is the worker that it let in.
SELECT 'a join token let in ' || used_by_key::text || ', which is no worker'
FROM join_tokens t
WHERE used_by_key IS NOT NULL AND NOT EXISTS (SELECT FROM workers w
WHERE w.id = t.worker_id AND w.signing_public_key = t.used_by_key);

-- name: p16_no_instance_on_a_removed_target
-- No instance is on a target that was removed.
SELECT 'instance ' || i.id || ' is on the removed target ' || t.name
FROM instances i JOIN targets t ON t.id = i.target_id
WHERE t.removed_at IS NOT NULL AND i.purged_at IS NULL;

-- name: p18_purged_means_no_secrets
-- Of a purged instance no secret is kept.
SELECT 'the purged instance ' || i.id || ' has secrets'
FROM instances i JOIN secrets s ON s.instance_id = i.id
WHERE i.purged_at IS NOT NULL;

-- name: p20_waiting_says_why
-- A job that nobody runs says what it waits for.
SELECT 'job ' || id || ' is ' || state || ' and does not say what it waits for'
FROM jobs
WHERE lease_id IS NULL AND state NOT IN ({terminal}) AND waiting_for IS NULL;

-- name: p20_attempts_have_deadlines
-- An attempt under way has a deadline.
SELECT 'step ' || name || ' has an attempt without a deadline'
FROM steps JOIN jobs j ON j.id = job_id
WHERE outstanding AND attempt_deadline IS NULL AND j.state NOT IN ({terminal});

-- name: p20_streams_count_their_pieces
-- A stream is as far as its last piece.
SELECT 'stream ' || r.id || ' counts ' || last_chunk || ' pieces, the last is ' || max(c.number)
FROM worker_requests r JOIN request_chunks c ON c.request_id = r.id
GROUP BY r.id HAVING max(c.number) <> r.last_chunk;

-- name: p16_instances_are_watched
-- An instance that is not purged is looked at.
SELECT 'instance ' || id || ' is looked at by nobody'
FROM instances i
WHERE purged_at IS NULL AND NOT EXISTS (SELECT FROM watches w
WHERE w.instance_id = i.id);

