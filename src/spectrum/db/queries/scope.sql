-- name: scope_set
-- The organizations that the rest of this transaction may see and change.
SELECT set_config('app.organizations', $1::text[]::text, true);
