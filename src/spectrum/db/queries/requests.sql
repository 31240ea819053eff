-- Requests to workers that are not jobs: looks at instances, and streams that come back (DESIGN §3.16).

-- name: lease_lives
-- Whether a lease is its worker's living one, and the moment, from PostgreSQL's clock.
SELECT clock_timestamp() AS now, EXISTS (SELECT FROM leases WHERE id = $1 AND worker_id = $2 AND ended_at IS NULL) AS lives;

-- name: watches_due
-- Takes up to so many due looks of a pool; each is due again at another moment. Of two that ask at once, one gets it.
WITH due AS MATERIALIZED (
    SELECT instance_id FROM watches WHERE pool_id = $1 AND look_at <= $2 ORDER BY look_at, instance_id LIMIT $3
    FOR NO KEY UPDATE SKIP LOCKED)
UPDATE watches w SET look_at = $4 FROM due WHERE w.instance_id = due.instance_id
RETURNING w.instance_id, w.organization_id;

-- name: watches_next
-- When the next look of a pool is due.
SELECT min(look_at) FROM watches WHERE pool_id = $1;

-- name: watches_over
-- What is purged is not looked at again.
DELETE FROM watches w USING instances i
WHERE w.instance_id = ANY ($1) AND i.id = w.instance_id AND i.purged_at IS NOT NULL;

-- name: looks
-- Of these instances those that may be looked at now, with the fence and generation that the look begins under. One that is stopped
-- only where it was not seen since a moment.
SELECT i.id, i.counter, i.generation, t.url FROM unnest($1::text[]) AS w (id)
CROSS JOIN LATERAL (SELECT * FROM instances WHERE instances.id = w.id OFFSET 0) AS i
JOIN targets t ON t.id = i.target_id
WHERE (i.lifecycle = 'running' OR (i.lifecycle = 'stopped' AND (i.observed_at IS NULL OR i.observed_at <= $2))) AND i.active_job_id IS NULL AND t.gone_at IS NULL;

-- name: instances_of_pool
-- Whose these instances are, as far as they are of the pool.
SELECT i.id, i.organization_id FROM unnest($1::text[]) AS w (id)
CROSS JOIN LATERAL (SELECT id, organization_id, pool_id FROM instances WHERE instances.id = w.id OFFSET 0) AS i
WHERE i.pool_id = $2;

-- name: workers_living
-- Whether a pool has a worker that may be asked, and since when its target is down, if it is.
SELECT EXISTS (SELECT FROM leases l JOIN workers w ON w.id = l.worker_id
               WHERE l.pool_id = $1 AND l.ended_at IS NULL AND w.draining_at IS NULL AND w.revoked_at IS NULL) AS living,
       (SELECT coalesce(gone_at, down_since) FROM targets WHERE id = $2) AS down_since;

-- name: instance_to_read
-- The instance whose logs are asked for.
SELECT i.id, i.name, i.pool_id, i.target_id, i.lifecycle, i.services, p.name AS pool, t.name AS target FROM instances i
JOIN pools p ON p.id = i.pool_id JOIN targets t ON t.id = i.target_id
WHERE i.organization_id = $1 AND (i.id = $2 OR (i.name = $2 AND i.purged_at IS NULL));

-- name: request_make
-- A request that a worker of the pool is to take up.
INSERT INTO worker_requests (id, organization_id, pool_id, target_id, instance_id, kind, parameters, actor, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: requests_open
-- Requests of a pool that nobody has taken up, oldest first.
SELECT id, organization_id FROM worker_requests
WHERE pool_id = $1 AND taken_at IS NULL AND closed_at IS NULL AND expires_at > $2 ORDER BY id LIMIT $3;

-- name: requests_take
-- Gives requests to a worker. Of two that ask at once, one gets each.
UPDATE worker_requests r SET taken_at = $2, worker_id = $3
FROM (SELECT id FROM worker_requests WHERE id = ANY ($1) AND taken_at IS NULL AND closed_at IS NULL ORDER BY id FOR NO KEY UPDATE SKIP LOCKED) AS open
JOIN worker_requests o ON o.id = open.id JOIN targets t ON t.id = o.target_id
WHERE r.id = open.id
RETURNING r.id, r.instance_id, r.parameters, t.url;

-- name: request_owner
-- Whose request it is, and who took it up.
SELECT organization_id, worker_id FROM worker_requests WHERE id = $1;

-- name: request_lock
-- A request whose stream goes on, how far it is, and how much of it waits to be read.
SELECT r.last_chunk, clock_timestamp() AS now,
       r.closed_at IS NULL AND r.ended_at IS NULL AND r.expires_at > clock_timestamp() AS open,
       (SELECT coalesce(sum(size), 0) FROM request_chunks c WHERE c.request_id = r.id) AS unread
FROM worker_requests r WHERE r.id = $1 FOR NO KEY UPDATE OF r;

-- name: chunk_add
-- The next piece of a stream.
INSERT INTO request_chunks (request_id, number, organization_id, lines, size, ends, problem) VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: chunk_added
-- How far the stream is, and whether that was the end.
UPDATE worker_requests SET last_chunk = $2, answered_at = coalesce(answered_at, $3), ended_at = CASE WHEN $4 THEN $3 END WHERE id = $1;

-- name: chunks_heard
-- A stream is still wanted; how far its worker is with it.
UPDATE worker_requests SET expires_at = $2 WHERE id = $1 AND closed_at IS NULL RETURNING taken_at, last_chunk;

-- name: chunks_read
-- What of a stream was not read yet.
SELECT number, lines, ends, problem FROM request_chunks WHERE request_id = $1 AND number > $2 ORDER BY number;

-- name: chunks_forget
-- What was read need not be kept.
DELETE FROM request_chunks WHERE request_id = $1 AND number <= $2;

-- name: request_close
-- Nobody reads the stream any more.
UPDATE worker_requests SET closed_at = coalesce(closed_at, $2) WHERE id = $1;

-- name: requests_forget
-- Removes requests that are over, with what nobody read of them. One at a time: they are found in any order.
DELETE FROM worker_requests WHERE (SELECT pg_try_advisory_xact_lock(hashtextextended('requests forget', 0))) AND expires_at < $1;
