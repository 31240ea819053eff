-- Takes the ground away again: everything in it, and so everything that was ever stored.
DROP TABLE worker_requests, artifacts, blobs, audit, events, attempts, steps, jobs, secrets, effects, placements, instances, releases,
    products, brakes, breakers, leases, join_tokens, workers, targets, pools, idempotency_keys, quotas, tokens, organizations, cursors,
    leader_terms, cell CASCADE;
DROP POLICY migrations ON alembic_version;
DROP POLICY system ON alembic_version;
ALTER TABLE alembic_version NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY;
REVOKE ALL ON alembic_version FROM spectrum_system;
DROP FUNCTION make_partitions(timestamptz, timestamptz);
DROP FUNCTION refuse_change();
DROP FUNCTION id_at(text, timestamptz);
DROP FUNCTION is_id(text, text);
