-- name: lease_for_update
-- A lease, locked: what its worker may do is decided one call after the other.
SELECT * FROM leases WHERE id = $1 FOR NO KEY UPDATE;

-- name: lease_by_boot
-- The incarnation that a start under this boot id has opened already.
SELECT * FROM leases WHERE worker_id = $1 AND boot = $2;

-- name: worker_lock
-- One start of a worker after the other.
SELECT id, revoked_at IS NOT NULL AS revoked FROM workers WHERE id = $1 FOR NO KEY UPDATE;

-- name: leases_supersede
-- A newer incarnation ends the older ones.
UPDATE leases SET ended_at = clock_timestamp(), end_reason = 'superseded' WHERE worker_id = $1 AND ended_at IS NULL;

-- name: lease_open
-- The next incarnation of a worker.
INSERT INTO leases (id, organization_id, worker_id, pool_id, incarnation, boot, started_at, renewed_at)
SELECT $1, $2, $3, $4, 1 + coalesce(max(incarnation), 0), $5, clock_timestamp(), clock_timestamp() FROM leases WHERE worker_id = $3
RETURNING *;

-- name: lease_renew
-- A heartbeat that is newer than the last.
UPDATE leases SET renewed_at = clock_timestamp(), heartbeat_number = $2 WHERE id = $1 RETURNING *;

-- name: lease_claimed
-- The last claim of a lease and what it was answered, for its repeat.
UPDATE leases SET claim_number = $2, claim_answer = $3 WHERE id = $1;

-- name: lease_end
-- Ends a lease, only if it is still not renewed where that is asked. In a gap that no tick has counted yet nobody could renew.
UPDATE leases l SET ended_at = clock_timestamp(), end_reason = $2 FROM cell c
WHERE l.id = $1 AND l.ended_at IS NULL
  AND ($3::double precision IS NULL
       OR (greatest(l.renewed_at, c.resumed_at) < clock_timestamp() - make_interval(secs => $3)
           AND clock_timestamp() - c.alive_at <= make_interval(secs => $4)))
RETURNING l.ended_at;

-- name: worker_lost
-- The fact that nothing is heard of a worker, of the moment at which its lease ended. Of one that was revoked that is known.
WITH told AS (
    UPDATE workers SET event_sequence = event_sequence + 1 WHERE id = $2 AND revoked_at IS NULL RETURNING organization_id, event_sequence
)
INSERT INTO events (id, organization_id, epoch, subject, sequence, type, data, recorded_at)
SELECT $1, told.organization_id, cell.epoch, $2, told.event_sequence, $3, $4, $5 FROM told CROSS JOIN cell;

-- name: leases_lapsed
-- Living leases that were not renewed in time, and ended ones that still own jobs. In a gap that no tick has counted yet nobody
-- could renew.
SELECT l.id, l.worker_id, l.organization_id FROM leases l CROSS JOIN cell c
WHERE l.ended_at IS NULL AND greatest(l.renewed_at, c.resumed_at) < clock_timestamp() - make_interval(secs => $1)
  AND clock_timestamp() - c.alive_at <= make_interval(secs => $3)
UNION ALL
SELECT DISTINCT l.id, l.worker_id, l.organization_id FROM jobs j JOIN leases l ON l.id = j.lease_id
WHERE j.lease_id IS NOT NULL AND l.ended_at IS NOT NULL
ORDER BY id LIMIT $2;

-- name: lease_state
-- Whether a lease lives.
SELECT ended_at IS NULL AS live, organization_id FROM leases WHERE id = $1;

-- name: jobs_owned
-- What a lease holds.
SELECT id, organization_id, instance_id, fence, claim_number, state FROM jobs WHERE lease_id = $1 ORDER BY id;

-- name: jobs_owned_by_ended
-- What the ended leases of a worker still hold.
SELECT j.id, j.organization_id, j.instance_id, j.fence, j.claim_number, j.state FROM jobs j JOIN leases l ON l.id = j.lease_id
WHERE j.lease_id IS NOT NULL AND l.worker_id = $1 AND l.ended_at IS NOT NULL ORDER BY l.id, j.id;

-- name: cell_tick
-- Moves the liveness row. A gap longer than the tolerance is time in which no lease and no deadline counted.
UPDATE cell SET
    lost_total = lost_total + CASE WHEN clock.now - alive_at > make_interval(secs => $1) THEN clock.now - alive_at ELSE '0' END,
    resumed_at = CASE WHEN clock.now - alive_at > make_interval(secs => $1) THEN clock.now ELSE resumed_at END,
    alive_at = clock.now
FROM (SELECT greatest(clock_timestamp(), (SELECT alive_at FROM cell)) AS now) AS clock
RETURNING alive_at;
