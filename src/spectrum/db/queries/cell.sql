-- name: cell_identity
-- What PostgreSQL this is: changes with a restore, a promotion, a copy of the database.
SELECT pg_is_in_recovery() AS in_recovery,
       (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier,
       CASE WHEN NOT pg_is_in_recovery()
            THEN ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint
       END AS timeline,
       (SELECT oid::bigint FROM pg_database WHERE datname = current_database()) AS database_oid;

-- name: cell_for_update
-- The cell's row, held until the end of the transaction: two starts decide about the epoch one after the other.
SELECT id, epoch, system_identifier, timeline, database_oid FROM cell FOR UPDATE;

-- name: cell_create
-- The first epoch of a new cell.
INSERT INTO cell (id, epoch, system_identifier, timeline, database_oid, alive_at, resumed_at)
VALUES ($1, 1, $2, $3, $4, clock_timestamp(), clock_timestamp())
ON CONFLICT DO NOTHING;

-- name: cell_raise_epoch
-- A restored or copied database must not repeat a fence: its next one is above all that it may have given out.
UPDATE cell
SET epoch = epoch + 1, system_identifier = $1, timeline = $2, database_oid = $3, resumed_at = clock_timestamp(), alive_at = clock_timestamp()
RETURNING epoch;

-- name: cell_signing_key
-- The public half of the key with which the cell signs its answers to workers.
UPDATE cell SET signing_key_id = $1, signing_public_key = $2
WHERE (signing_key_id, signing_public_key) IS DISTINCT FROM ($1, $2);
