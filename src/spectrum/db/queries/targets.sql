-- Pools and targets.

-- name: pool_find
-- A pool by name: the organization's own before the platform's.
SELECT id, organization_id, name FROM pools WHERE name = $2 ORDER BY organization_id = $1 DESC LIMIT 1;

-- name: pool_make
-- A pool of the organization; nothing where it is there.
INSERT INTO pools (id, organization_id, name, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT (organization_id, name) DO NOTHING;

-- name: target_list
-- The targets in scope, the shared ones too.
SELECT t.id, t.organization_id, t.name, t.url, p.name AS pool, t.down_since, t.gone_at, t.created_at
FROM targets t JOIN pools p ON p.id = t.pool_id
WHERE t.removed_at IS NULL AND t.id > $1 ORDER BY t.id LIMIT $2;

-- name: target_find
-- One target by id or name: the organization's own before the platform's.
SELECT t.id, t.organization_id, t.name, t.url, t.pool_id, p.name AS pool, t.down_since, t.gone_at, t.created_at
FROM targets t JOIN pools p ON p.id = t.pool_id
WHERE t.removed_at IS NULL AND (t.id = $2 OR t.name = $2) ORDER BY t.organization_id = $1 DESC LIMIT 1;

-- name: target_create
-- A new target; nothing where the name is taken.
INSERT INTO targets (id, organization_id, name, url, pool_id, created_at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (organization_id, name) WHERE removed_at IS NULL DO NOTHING
RETURNING id;

-- name: target_hold
-- A target, held against instances that would come while it is being removed.
SELECT t.id FROM targets t WHERE t.id = $1 AND t.organization_id = $2 AND t.removed_at IS NULL FOR UPDATE OF t;

-- name: target_instances
-- How many instances are on a target. Asked once it is held: the statement that waits for the lock does not see who came meanwhile.
SELECT count(*) FROM instances WHERE target_id = $1 AND purged_at IS NULL;

-- name: target_remove
-- Takes a target out of the lists; its row stays for what refers to it.
UPDATE targets SET removed_at = $2, version = version + 1 WHERE id = $1;
