-- name: windows_lock
-- The call windows of some incarnations, locked in order.
SELECT l.id, l.worker_id, l.call_highest, l.call_window FROM (SELECT id FROM unnest($1::text[]) AS w (id) ORDER BY id) AS wanted
CROSS JOIN LATERAL (SELECT * FROM leases WHERE leases.id = wanted.id OFFSET 0 FOR NO KEY UPDATE) AS l;

-- name: windows_move
-- Call numbers that are used up now.
UPDATE leases l SET call_highest = n.highest, call_window = n.seen
FROM unnest($1::text[], $2::bigint[], $3::bytea[]) AS n (id, highest, seen) WHERE l.id = n.id;

-- name: lease_holds
-- Whether a worker that was not revoked holds a job, under this fence and by a lease of its own that lives.
SELECT EXISTS (
    SELECT FROM jobs j JOIN leases l ON l.id = j.lease_id JOIN workers w ON w.id = l.worker_id
    WHERE j.id = $1 AND j.instance_id = $2 AND j.organization_id = $3 AND j.fence = $4
      AND l.id = $5 AND l.ended_at IS NULL AND w.id = $6 AND w.revoked_at IS NULL);

-- name: secrets_of_instance
-- The newest version of each secret of an instance: ciphertext.
SELECT DISTINCT ON (name) name, version, ciphertext, key_id FROM secrets WHERE instance_id = $1 ORDER BY name, version DESC;

-- name: release_document
-- The document of a release, for a worker that renders it.
SELECT document FROM releases WHERE id = $1;

-- name: worker_operations
-- What a worker says that it can run, at its start.
UPDATE workers SET operations = $2 WHERE id = $1 AND operations IS DISTINCT FROM $2;
