-- A hundred thousand rows in every table that grows without end, twenty thousand in others, most of them history. One organization has a
-- fifth of everything, fifty share the rest. Of a hundred jobs one is open. {stem}, {many} and {some} are filled in.

SET LOCAL session_replication_role = replica;
CREATE FUNCTION pg_temp.made(prefix text, n bigint) RETURNS text LANGUAGE sql IMMUTABLE
    RETURN prefix || {stem} || lpad(to_hex(n), 12, '0');
CREATE FUNCTION pg_temp.place(n bigint) RETURNS bigint LANGUAGE sql IMMUTABLE RETURN CASE WHEN n % 5 = 0 THEN 1 ELSE 1 + n % 50 END;
CREATE FUNCTION pg_temp.owner(n bigint) RETURNS text LANGUAGE sql IMMUTABLE RETURN pg_temp.made('org', pg_temp.place(n));

INSERT INTO organizations (id, name)
SELECT pg_temp.made('org', n), 'org-' || n FROM generate_series(1, 1000) n;

INSERT INTO tokens (id, organization_id, name, prefix, hash, scopes, created_by)
SELECT pg_temp.made('tok', n), pg_temp.owner(n), 't' || n, 'spk_x', sha256(n::text::bytea), '{read}', 'tester'
    FROM generate_series(1, {some}) n;

INSERT INTO pools (id, organization_id, name)
SELECT pg_temp.made('pol', n), pg_temp.made('org', n), 'p' || n FROM generate_series(1, 100) n;

INSERT INTO targets (id, organization_id, name, url, pool_id)
SELECT pg_temp.made('tgt', n), pg_temp.made('org', n), 'local', 'process:///t' || n, pg_temp.made('pol', n)
    FROM generate_series(1, 100) n;

INSERT INTO workers (id, organization_id, pool_id, name, signing_public_key, sealing_public_key, protocol_version,
        enrolled_at)
SELECT pg_temp.made('wrk', n), pg_temp.owner(n), pg_temp.made('pol', pg_temp.place(n)), 'w' || n, sha256(n::text::bytea),
        sha256(n::text::bytea), 1, now() FROM generate_series(1, 1000) n;

INSERT INTO leases (id, organization_id, worker_id, pool_id, incarnation, boot, started_at, renewed_at, ended_at, end_reason)
SELECT pg_temp.made('lea', n), pg_temp.owner(n), pg_temp.made('wrk', 1 + n % 1000), pg_temp.made('pol', pg_temp.place(n)), n, 'b' || n,
        now(), now(), CASE WHEN n <= {some} - 1000 THEN now() END, CASE WHEN n <= {some} - 1000 THEN 'lapsed' END
    FROM generate_series(1, {some}) n;

INSERT INTO idempotency_keys (organization_id, method, path, key, request_digest, status, created_at, expires_at)
SELECT pg_temp.owner(n), 'POST', '/v1/instances', 'k' || n, 'd', 202, now(), now() + n * interval '30 seconds'
    FROM generate_series(1, {many}) n;

INSERT INTO products (organization_id, name)
SELECT pg_temp.made('org', n / 20), 'p' || n % 20 FROM generate_series(0, 14999) n;

INSERT INTO releases (id, organization_id, product, version, document, sha256, outline, publisher, published_at)
SELECT pg_temp.made('rel', n), pg_temp.made('org', n / 100), 'p' || n % 20, '1.' || n, '{}', sha256(n::text::bytea), '{}', 'tester',
        now() FROM generate_series(0, 19999) n;

INSERT INTO instances (id, organization_id, name, product, release_id, plan, target_id, pool_id, desired_state, lifecycle,
        generation, requested, counter, active_job_id, created_at, updated_at, deleted_at, purge_at, purged_at)
SELECT pg_temp.made('ins', n), pg_temp.owner(n), 'i' || n, 'p' || n % 20, pg_temp.made('rel', 100 * pg_temp.place(n) + n % 100), 'small',
        pg_temp.made('tgt', pg_temp.place(n)), pg_temp.made('pol', pg_temp.place(n)), 'running',
        CASE WHEN n % 6 = 0 THEN 'purged' WHEN n % 97 = 0 THEN 'deleted' ELSE 'running' END, 1, '{}', 1,
        CASE WHEN n % 100 < 1 THEN pg_temp.made('job', n) END, now(), now(),
        CASE WHEN n % 6 = 0 OR n % 97 = 0 THEN now() END, CASE WHEN n % 6 = 0 OR n % 97 = 0 THEN now() + interval '7 days' END,
        CASE WHEN n % 6 = 0 THEN now() END
    FROM generate_series(1, {many}) n;

INSERT INTO placements (id, organization_id, instance_id, target_id, role, created_at, updated_at)
SELECT pg_temp.made('plc', n), pg_temp.owner(n), pg_temp.made('ins', n), pg_temp.made('tgt', pg_temp.place(n)), 'active', now(), now()
    FROM generate_series(1, {some}) n;

INSERT INTO effects (placement_id, slot, effect_key, organization_id, instance_id, wanted, proven, fence, token, created_at,
        updated_at)
SELECT pg_temp.made('plc', n), 'web/container', 'web.container.1.1', pg_temp.owner(n), pg_temp.made('ins', n), 'present', true, 1, 2,
        now(), now() FROM generate_series(1, {some}) n;

INSERT INTO secrets (instance_id, name, version, organization_id, ciphertext, key_id, created_at)
SELECT pg_temp.made('ins', n), 'password', 1, pg_temp.owner(n), 'x', 'k1', now() FROM generate_series(1, {some}) n;

INSERT INTO jobs (id, organization_id, subject_type, subject_id, instance_id, target_id, number, operation, operation_version,
        pool_id, generation, actor, command_id, deadline, created_at, state, finished_at, unwind_deadline, lease_id, worker_id, incarnation,
        claim_number, waiting_for, waiting_holder, waiting_since, waiting_until, waiting_unblock)
SELECT pg_temp.made('job', n), pg_temp.owner(n), 'instance', pg_temp.made('ins', n), pg_temp.made('ins', n),
        pg_temp.made('tgt', pg_temp.place(n)), 1, 'create', 1, pg_temp.made('pol', 1 + n % 7), 1, 'tester', 'c' || n,
        now() + interval '1 hour', now(), state, CASE WHEN state = 'succeeded' THEN now() END,
        CASE WHEN state = 'unwinding' THEN now() + interval '1 hour' END,
        CASE WHEN state = 'running' THEN pg_temp.made('lea', {some} - n % 1000) END, CASE WHEN state = 'running' THEN 'w' END,
        CASE WHEN state = 'running' THEN 1 END, CASE WHEN state = 'running' THEN 1 END,
        CASE WHEN state = 'waiting' THEN 'queue' END, CASE WHEN state = 'waiting' THEN '' END, CASE WHEN state = 'waiting' THEN now() END,
        CASE WHEN state = 'waiting' THEN now() END, CASE WHEN state = 'waiting' THEN '' END
    FROM (SELECT n, CASE WHEN n % 100 > 0 THEN 'succeeded'
                    ELSE (ARRAY['ready', 'ready', 'running', 'running', 'waiting', 'unwinding'])[1 + n / 100 % 6] END AS state
          FROM generate_series(1, {many}) n) AS j;

INSERT INTO steps (id, organization_id, job_id, position, name, action, wants, phase, tries_allowed, attempt_seconds,
        step_seconds, retry_cap, state, outstanding, attempt_deadline)
SELECT pg_temp.made('stp', n), pg_temp.owner(n / 2), pg_temp.made('job', n / 2), 1 + n % 2, 's' || n % 2, 'prepare', 'nothing', 'do', 5,
        60, 300, 30, CASE WHEN n % 200 = 0 THEN 'running' ELSE 'done' END, n % 200 = 0,
        CASE WHEN n % 200 = 0 THEN now() + interval '1 minute' END FROM generate_series(2, {many}) n;

INSERT INTO attempts (job_id, step_id, number, organization_id, phase, cause, fence, token, intent_at)
SELECT pg_temp.made('job', n / 2), pg_temp.made('stp', n), 1, pg_temp.owner(n / 2), 'do', 'first', 1, 2, now()
    FROM generate_series(2, {many}) n;

INSERT INTO events (id, organization_id, epoch, position, subject, sequence, type, data, recorded_at)
SELECT pg_temp.made('evt', n), pg_temp.owner(n), 1, CASE WHEN n <= {many} - 100 THEN n END, pg_temp.made('ins', n % 20000), 1 + n / 20000,
        'io.spectrum.job.submitted.v1', '{}', now() FROM generate_series(1, {many}) n;

INSERT INTO audit (id, organization_id, recorded_at, actor, action, subject)
SELECT pg_temp.made('aud', n), pg_temp.owner(n), now(), 'tester', 'job.submitted', pg_temp.made('ins', n % 20000)
    FROM generate_series(1, {many}) n;

INSERT INTO worker_requests (id, organization_id, pool_id, target_id, instance_id, kind, actor, created_at, expires_at,
        taken_at, worker_id)
SELECT pg_temp.made('req', n), pg_temp.owner(n), pg_temp.made('pol', pg_temp.place(n)), pg_temp.made('tgt', pg_temp.place(n)),
        pg_temp.made('ins', n), 'logs', 'tester', now(), now() + interval '1 minute', CASE WHEN n % 100 > 0 THEN now() END,
        CASE WHEN n % 100 > 0 THEN pg_temp.made('wrk', 1) END FROM generate_series(1, {some}) n;

INSERT INTO request_chunks (request_id, number, organization_id, lines, size)
SELECT pg_temp.made('req', n), 1, pg_temp.owner(n), '[]', 2 FROM generate_series(1, {some}) n;

INSERT INTO watches (instance_id, organization_id, pool_id, look_at)
SELECT pg_temp.made('ins', n), pg_temp.owner(n), pg_temp.made('pol', pg_temp.place(n)), now() + n * interval '0.1 ms'
    FROM generate_series(1, {some}) n;

SET LOCAL session_replication_role = origin;
SET LOCAL default_statistics_target = 400;  -- the whole table is looked at: the same statistics in every run
ANALYZE;
