-- What every change outside of the engine does: remember its key, write its audit row, tell of it.

-- name: change_begin
-- One change at a time under one key; the moment, from PostgreSQL's clock, after the lock.
WITH locked AS MATERIALIZED (SELECT pg_advisory_xact_lock(hashtextextended($1, 0)))
SELECT clock_timestamp() AS now FROM locked;

-- name: change_moment
-- The moment of a change that has no key.
SELECT clock_timestamp();

-- name: changes_find
-- What was answered under some keys of an organization, by their places in the arrays.
SELECT w.place, k.request_digest, k.status, k.location, k.body, k.ciphertext, k.key_id, k.ciphertext_expires_at,
       k.ciphertext_expires_at > clock_timestamp() AS still_shown
FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS w (method, path, key, place)
CROSS JOIN LATERAL (
    SELECT * FROM idempotency_keys i
    WHERE i.organization_id = $1 AND i.method = w.method AND i.path = w.path AND i.key = w.key OFFSET 0) AS k;

-- name: change_remember
-- Keeps the answer under its key.
INSERT INTO idempotency_keys (organization_id, method, path, key, request_digest, status, location, body,
                              ciphertext, key_id, ciphertext_expires_at, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13);

-- name: change_audit
-- Who did what to what, in the transaction that did it.
INSERT INTO audit (id, organization_id, recorded_at, actor, action, subject, request_id, evidence)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: change_event
-- A fact; the sequencer gives it its position.
INSERT INTO events (id, organization_id, epoch, subject, sequence, type, data, traceparent, recorded_at)
SELECT $1, $2, cell.epoch, $3, $4, $5, $6, $7, $8 FROM cell;
