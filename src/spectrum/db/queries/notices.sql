-- Hints from one copy of the control plane to the others.

-- name: notices_tell
-- Several payloads at once, in a transaction of their own: PostgreSQL commits transactions that notify one after the other.
SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS n (payload);

-- name: notices_ping
-- Whether the connection that listens is still one.
SELECT 1;
