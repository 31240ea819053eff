-- Products and their releases.

-- name: product_list
-- The products in scope by name, each with its newest release.
SELECT p.name, p.created_at, count(r.id) AS releases, (array_agg(r.version ORDER BY r.published_at DESC, r.id DESC))[1] AS latest
FROM products p LEFT JOIN releases r ON (r.organization_id, r.product) = (p.organization_id, p.name)
WHERE p.organization_id = $1 AND p.name > $2 AND ($4::text IS NULL OR p.name = $4)
GROUP BY p.organization_id, p.name ORDER BY p.name LIMIT $3;

-- name: product_make
-- A product; nothing where it is there.
INSERT INTO products (organization_id, name, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING;

-- name: release_list
-- A product's releases, newest first, those before an id.
SELECT id, product, version, sha256, document->'x-spectrum'->'plans' AS plans,
       document->'x-spectrum'->'parameters' AS parameters, published_at FROM releases
WHERE organization_id = $1 AND product = $2 AND ($3 = '' OR id < $3) ORDER BY id DESC LIMIT $4;

-- name: release_find
-- One release by its version.
SELECT id, product, version, sha256, document->'x-spectrum'->'plans' AS plans,
       document->'x-spectrum'->'parameters' AS parameters, published_at FROM releases
WHERE organization_id = $1 AND product = $2 AND version = $3;

-- name: release_create
-- A new release; nothing where the version is there.
INSERT INTO releases (id, organization_id, product, version, document, sha256, outline, publisher, event_sequence, published_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1, $9)
ON CONFLICT (organization_id, product, version) DO NOTHING
RETURNING id, product, version, sha256, document->'x-spectrum'->'plans' AS plans,
       document->'x-spectrum'->'parameters' AS parameters, published_at;
