-- Audit records: reading them, and the chains in which they are sealed.

-- name: audit_list
-- An organization's records after an id, in the order of time.
SELECT id, organization_id, recorded_at, actor, action, subject, request_id, evidence, seal_number, seal_previous, seal_hash, sealed_at
FROM audit
WHERE organization_id = $1 AND id > $2 AND ($4::text IS NULL OR subject = $4) AND ($5::text IS NULL OR actor = $5)
  AND ($6::text IS NULL OR action = $6)
ORDER BY id LIMIT $3;

-- name: audit_chain
-- An organization's sealed records after a number, in the order of their chain.
SELECT id, organization_id, recorded_at, actor, action, subject, request_id, evidence, seal_number, seal_previous, seal_hash, sealed_at
FROM audit
WHERE organization_id = $1 AND seal_number > $2 AND ($4::text IS NULL OR subject = $4) AND ($5::text IS NULL OR actor = $5)
  AND ($6::text IS NULL OR action = $6)
ORDER BY seal_number LIMIT $3;

-- name: audit_head
-- Where an organization's chain ends.
SELECT organization_id, number, hash, sealed_at, key_id, signature FROM audit_heads WHERE organization_id = $1;

-- name: audit_waits
-- Whose record is not sealed yet, if any is. In an order: else the planner may read the whole table for nothing.
SELECT organization_id FROM audit WHERE seal_number IS NULL ORDER BY organization_id LIMIT 1;

-- name: audit_unsealed
-- Records that are not sealed yet, at most so many: of the organizations after one, found by hopping from one to the next in the
-- index, the oldest of each. A record of a transaction that commits late is found once it is visible, whatever its id.
WITH RECURSIVE organizations AS (
    (SELECT organization_id FROM audit
     WHERE seal_number IS NULL AND organization_id > $1 ORDER BY organization_id LIMIT 1)
    UNION ALL
    SELECT (SELECT a.organization_id FROM audit a
            WHERE a.seal_number IS NULL AND a.organization_id > o.organization_id ORDER BY a.organization_id LIMIT 1)
    FROM organizations o WHERE o.organization_id IS NOT NULL
)
SELECT u.id, u.organization_id, u.recorded_at, u.actor, u.action, u.subject, u.request_id, u.evidence, statement_timestamp() AS now
FROM (SELECT organization_id FROM organizations WHERE organization_id IS NOT NULL ORDER BY organization_id LIMIT 100) AS o
CROSS JOIN LATERAL (
    SELECT * FROM audit a WHERE a.organization_id = o.organization_id AND a.seal_number IS NULL ORDER BY a.id LIMIT 250
) AS u
ORDER BY u.organization_id, u.id LIMIT $2;

-- name: audit_ends
-- Where the chains of organizations end: the head, or the last sealed record where there is no head.
SELECT o.id AS organization_id, h.number, h.hash, h.sealed_at, h.key_id, h.signature,
       l.seal_number AS last_number, l.seal_hash AS last_hash, l.sealed_at AS last_sealed_at
FROM unnest($1::text[]) AS o (id)
LEFT JOIN audit_heads h ON h.organization_id = o.id
LEFT JOIN LATERAL (
    SELECT a.seal_number, a.seal_hash, a.sealed_at FROM audit a
    WHERE h.number IS NULL AND a.organization_id = o.id AND a.seal_number IS NOT NULL ORDER BY a.seal_number DESC LIMIT 1
) AS l ON true;

-- name: audit_seal
-- Seals, each on its record. One that is sealed already is refused by its trigger.
UPDATE audit a SET seal_number = n.number, seal_previous = n.previous, seal_hash = n.hash, sealed_at = $5
FROM unnest($1::text[], $2::bigint[], $3::bytea[], $4::bytea[]) AS n (id, number, previous, hash) WHERE a.id = n.id;

-- name: audit_heads_move
-- Where chains end now.
INSERT INTO audit_heads (organization_id, number, hash, sealed_at, key_id, signature)
SELECT n.organization_id, n.number, n.hash, $6, n.key_id, n.signature
FROM unnest($1::text[], $2::bigint[], $3::bytea[], $4::text[], $5::bytea[]) AS n (organization_id, number, hash, key_id, signature)
ON CONFLICT (organization_id) DO UPDATE SET number = excluded.number, hash = excluded.hash, sealed_at = excluded.sealed_at,
    key_id = excluded.key_id, signature = excluded.signature;
