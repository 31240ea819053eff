-- Who leads: one copy at a time does what must not be done twice, under a term that every write of it checks.

-- name: lead_take
-- A new term, where nobody leads: nobody ever did, or the last term has run out or was one's own. One that ends a whole term later than one that
-- is given out now was given out by a clock that was wrong, and has run out too.
INSERT INTO leader_terms (name, term, holder, acquired_at, expires_at)
VALUES ($1, 1, $2, clock_timestamp(), clock_timestamp() + make_interval(secs => $3))
ON CONFLICT (name) DO UPDATE SET term = leader_terms.term + 1, holder = excluded.holder, acquired_at = excluded.acquired_at,
    expires_at = excluded.expires_at
WHERE leader_terms.holder = excluded.holder OR leader_terms.expires_at + make_interval(secs => $4) < clock_timestamp()
   OR leader_terms.expires_at > excluded.expires_at + make_interval(secs => $3)
RETURNING term;

-- name: lead_renew
-- The leader goes on; nothing where another term has begun.
UPDATE leader_terms SET expires_at = clock_timestamp() + make_interval(secs => $3) WHERE name = $1 AND term = $2 RETURNING term;

-- name: lead_resign
-- The leader goes, and nobody has to wait for the end of its term.
UPDATE leader_terms SET expires_at = '-infinity' WHERE name = $1 AND term = $2;

-- name: lead_hold
-- The term under which something is about to be written, held until the end of the transaction: nobody takes over meanwhile.
SELECT term FROM leader_terms WHERE name = $1 AND term = $2 FOR NO KEY UPDATE;
