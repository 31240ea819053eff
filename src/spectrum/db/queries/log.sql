-- Reading what happened.

-- name: event_list
-- An organization's events after a position, in the order of the log.
SELECT id, organization_id, position, subject, sequence, type, data, traceparent, recorded_at FROM events
WHERE organization_id = $1 AND position > $2 AND ($4::text IS NULL OR subject = $4) ORDER BY position LIMIT $3;

-- name: readiness_cell
-- The epoch of the cell: PostgreSQL answers, and the schema is there.
SELECT epoch FROM cell;

-- name: log_cursor
-- How far the sequencer has come, and under which epoch, held until the end of the transaction.
SELECT c.position, c.snapshot, c.epoch = cell.epoch AS of_this_epoch FROM cursors c CROSS JOIN cell WHERE c.consumer = $1
FOR NO KEY UPDATE OF c;

-- name: log_cursor_begin
-- The sequencer's first row. A log that has positions already goes on after them.
INSERT INTO cursors (consumer, epoch, position, updated_at)
SELECT $1, cell.epoch, coalesce((SELECT max(position) FROM events), 0), clock_timestamp() FROM cell
ON CONFLICT (consumer) DO NOTHING;

-- name: log_new
-- Events that became visible since a snapshot was taken, at most so many, and with each all that its subject told before it; and
-- the snapshot by which this statement reads. Ids of transactions can be compared within one epoch only: without a first snapshot
-- everything counts that has no position.
WITH new AS MATERIALIZED (
    SELECT subject, sequence FROM events
    WHERE position IS NULL
      AND ($1::text IS NULL
           OR (xid >= pg_snapshot_xmin($1::text::pg_snapshot) AND NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot)))
    ORDER BY xid, id LIMIT $2
)
SELECT e.id, e.subject, e.sequence, e.recorded_at, pg_current_snapshot()::text AS snapshot, (SELECT count(*) FROM new) AS found
FROM (SELECT subject, max(sequence) AS last FROM new GROUP BY subject) AS s
JOIN events e ON e.subject = s.subject AND e.sequence <= s.last AND e.position IS NULL;

-- name: log_place
-- Positions, one after the other, in the order of the array.
UPDATE events e SET position = $2 + n.place FROM unnest($1::text[]) WITH ORDINALITY AS n (id, place) WHERE e.id = n.id;

-- name: log_cursor_move
-- How far the sequencer has come now.
UPDATE cursors c SET epoch = cell.epoch, position = $2, snapshot = $3, term = $4, updated_at = clock_timestamp() FROM cell WHERE c.consumer = $1;

-- name: log_waits
-- Whether any event has no position yet.
SELECT EXISTS (SELECT FROM events WHERE position IS NULL);

-- name: log_reader_cursor
-- How far a consumer of the log has come.
SELECT position FROM cursors WHERE consumer = $1;

-- name: log_reader_begin
-- A new consumer's cursor: before the oldest event that there is.
INSERT INTO cursors (consumer, epoch, position, updated_at)
SELECT $1, cell.epoch, coalesce((SELECT min(position) - 1 FROM events), 0), clock_timestamp() FROM cell
RETURNING position;

-- name: log_read
-- What follows a position, in the order of the log.
SELECT id, organization_id, position, subject, sequence, type, data, traceparent, recorded_at FROM events
WHERE position > $1 ORDER BY position LIMIT $2;

-- name: log_reader_move
-- How far a consumer has come now.
UPDATE cursors c SET epoch = cell.epoch, position = $2, term = $3, updated_at = clock_timestamp() FROM cell WHERE c.consumer = $1;
