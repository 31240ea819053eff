-- Instances as they are asked for and shown, under one organization's scope.

-- name: instances_find
-- Instances by id, or by name among those that are not purged, and by their places in the array: each with its target, its secrets'
-- versions, and how many jobs wait.
SELECT w.place, i.*, t.name AS target,
       (SELECT coalesce(jsonb_object_agg(s.name, s.version), '{}')
        FROM (SELECT name, max(version) AS version FROM secrets WHERE instance_id = i.id GROUP BY name) AS s) AS secret_versions,
       (SELECT count(*) FROM jobs j WHERE j.subject_id = i.id AND j.state = 'waiting') AS waiters
FROM unnest($2::text[]) WITH ORDINALITY AS w (name_or_id, place)
CROSS JOIN LATERAL (
    SELECT * FROM instances
    WHERE organization_id = $1 AND (id = w.name_or_id OR (name = w.name_or_id AND purged_at IS NULL)) OFFSET 0) AS i
JOIN targets t ON t.id = i.target_id;

-- name: instance_list
-- An organization's instances after an id. Purged ones are shown only to who asks for them. Nothing is joined and a filter that is
-- not asked for is no condition: so a page is read in the order of the ids, as far as it goes, however many there are.
SELECT i.*, (SELECT t.name FROM targets t WHERE t.id = i.target_id) AS target,
       (SELECT coalesce(jsonb_object_agg(s.name, s.version), '{}')
        FROM (SELECT name, max(version) AS version FROM secrets WHERE instance_id = i.id GROUP BY name) AS s) AS secret_versions,
       (SELECT count(*) FROM jobs j WHERE j.subject_id = i.id AND j.state = 'waiting') AS waiters
FROM instances i
WHERE i.organization_id = $1 AND i.id > $2
  AND ($4::text IS NULL OR i.product = $4)
  AND ($5::text IS NULL OR i.release_id = ANY (ARRAY(SELECT r.id FROM releases r WHERE r.organization_id = $1 AND r.version = $5)))
  AND ($6::text IS NULL OR i.plan = $6)
  AND ($7::text IS NULL OR i.target_id = ANY (ARRAY(SELECT t.id FROM targets t WHERE t.name = $7 OR t.id = $7)))
  AND CASE WHEN $8::text IS NULL THEN i.purged_at IS NULL ELSE i.lifecycle = $8 END
  AND ($9::text IS NULL OR i.hold = $9)
  AND ($10::text IS NULL OR i.health = $10)
  AND ($11::jsonb = '{}' OR i.labels @> $11)
  AND ($12 = '' OR starts_with(i.name, $12))
ORDER BY i.id LIMIT $3;

-- name: release_choice
-- A product's release of a version, or its newest one.
SELECT id, document FROM releases
WHERE organization_id = $1 AND product = $2 AND ($3::text IS NULL OR version = $3)
ORDER BY published_at DESC, id DESC LIMIT 1;

-- name: release_retention
-- How long a release keeps what was deleted.
SELECT document->'x-spectrum'->'retention' AS retention FROM releases WHERE id = $1;

-- name: target_choices
-- Targets that an instance could be made on: all, or the one of a name; the organization's own before the platform's.
SELECT id, name, url, pool_id FROM targets
WHERE removed_at IS NULL AND gone_at IS NULL AND ($2::text IS NULL OR name = $2)
ORDER BY organization_id = $1 DESC, id LIMIT 50;
