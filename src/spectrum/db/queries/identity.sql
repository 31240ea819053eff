-- Organizations, API tokens, join tokens and the keys of workers.

-- name: organization_list
-- The organizations in scope, by id.
SELECT id, name, created_at FROM organizations
WHERE deleted_at IS NULL AND id > $1 ORDER BY id LIMIT $2;

-- name: organization_find
-- One organization in scope, by id or name.
SELECT id, name, created_at FROM organizations WHERE deleted_at IS NULL AND (id = $1 OR name = $1);

-- name: organization_create
-- A new organization; nothing where the name is taken.
INSERT INTO organizations (id, name, created_at) VALUES ($1, $2, $3)
ON CONFLICT (name) DO NOTHING
RETURNING id, name, created_at;

-- name: token_list
-- The tokens in scope, the revoked ones too.
SELECT id, organization_id, name, prefix, scopes, created_by, created_at, expires_at, last_used_at, revoked_at
FROM tokens WHERE organization_id = $1 AND id > $2 ORDER BY id LIMIT $3;

-- name: token_create
-- Keeps the hash of a token; the token itself is never here.
INSERT INTO tokens (id, organization_id, name, prefix, hash, scopes, created_by, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT DO NOTHING;

-- name: token_revoke
-- Ends a token; the moment of the first time stays.
UPDATE tokens SET revoked_at = coalesce(revoked_at, $3) WHERE id = $1 AND organization_id = $2 RETURNING id, name;

-- name: tokens_by_hash
-- Who holds some tokens, over all organizations.
SELECT t.hash, t.id, t.organization_id, t.scopes, t.expires_at, t.revoked_at, o.deleted_at, clock_timestamp() AS now,
       (t.last_used_at IS NULL OR t.last_used_at < clock_timestamp() - interval '1 minute') AS stale
FROM tokens t JOIN organizations o ON o.id = t.organization_id
WHERE t.hash = ANY ($1);

-- name: tokens_used
-- When tokens were last used, to the minute.
UPDATE tokens SET last_used_at = clock_timestamp() WHERE id = ANY ($1);

-- name: token_spending_hold
-- What a token has spent of its rate, held until the end of the transaction.
SELECT spent_until, clock_timestamp() AS now FROM tokens WHERE id = $1 FOR NO KEY UPDATE;

-- name: token_spend
-- What a token has spent now.
UPDATE tokens SET spent_until = $2 WHERE id = $1;

-- name: join_token_create
-- Keeps the hash of a join token, bound to one pool.
INSERT INTO join_tokens (hash, organization_id, pool_id, created_by, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6);

-- name: join_token_organization
-- Whose join token this is, over all organizations.
SELECT organization_id FROM join_tokens WHERE hash = $1;

-- name: join_token_hold
-- A join token, held until the end of the transaction: of two keys, one gets it.
SELECT j.pool_id, j.expires_at, j.used_by_key, j.worker_id, p.name AS pool
FROM join_tokens j JOIN pools p ON p.id = j.pool_id
WHERE j.hash = $1 FOR UPDATE OF j;

-- name: join_token_use
-- The first key uses a join token up.
UPDATE join_tokens SET used_at = $2, used_by_key = $3, worker_id = $4 WHERE hash = $1;

-- name: worker_create
-- A worker and its two public keys; nothing where the key is known already.
INSERT INTO workers (id, organization_id, pool_id, name, signing_public_key, sealing_public_key, protocol_version, operations,
                     event_sequence, enrolled_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1, $9)
ON CONFLICT (signing_public_key) DO NOTHING
RETURNING id;

-- name: worker_by_key
-- Who signs with a key, over all organizations.
SELECT id, organization_id, pool_id, sealing_public_key, protocol_version, draining_at, revoked_at
FROM workers WHERE signing_public_key = $1;

-- name: worker_list
-- The workers in scope with what they serve and when they were last heard of.
SELECT w.id, w.organization_id, w.name, p.name AS pool, w.enrolled_at, w.draining_at, w.revoked_at, l.renewed_at,
       l.id IS NOT NULL AND l.ended_at IS NULL AS live,
       ARRAY(SELECT t.name FROM targets t WHERE t.pool_id = w.pool_id AND t.removed_at IS NULL ORDER BY t.name) AS targets
FROM workers w
JOIN pools p ON p.id = w.pool_id
LEFT JOIN LATERAL (SELECT id, renewed_at, ended_at FROM leases WHERE worker_id = w.id ORDER BY incarnation DESC LIMIT 1) l ON true
WHERE w.id > $1 AND ($3::text IS NULL OR w.id = $3) ORDER BY w.id LIMIT $2;

-- name: worker_drain
-- Lets a worker take nothing new.
UPDATE workers SET draining_at = coalesce(draining_at, $2) WHERE id = $1 AND organization_id = $3 AND revoked_at IS NULL RETURNING id;

-- name: worker_revoke
-- Refuses a worker from now on; tells whether it was done before.
UPDATE workers SET revoked_at = $2, event_sequence = event_sequence + 1
WHERE id = $1 AND organization_id = $3 AND revoked_at IS NULL
RETURNING event_sequence;

-- name: worker_revoke_leases
-- A revoked worker holds nothing from now on: the sweeper finds the jobs of its ended lease.
UPDATE leases SET ended_at = clock_timestamp(), end_reason = 'revoked' WHERE worker_id = $1 AND ended_at IS NULL;
