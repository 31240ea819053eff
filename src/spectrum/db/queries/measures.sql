-- What is measured of the cell.

-- name: measures_readers
-- How far each consumer of the log is behind its end: in events, and the age in seconds of the oldest of them.
SELECT c.consumer, greatest(s.position - c.position, 0)::double precision AS events,
       coalesce((SELECT greatest(extract(epoch FROM clock_timestamp() - e.recorded_at), 0) FROM events e
                 WHERE e.position = c.position + 1), 0)::double precision AS seconds
FROM cursors c JOIN cursors s ON s.consumer = 'sequencer' WHERE c.consumer <> 'sequencer';

-- name: measures_present
-- Attempts in the hands of workers, the age in seconds of the oldest event without a position and of the oldest audit record without
-- a seal, and quarantined instances.
SELECT (SELECT count(*) FROM steps s JOIN jobs j ON j.id = s.job_id
        WHERE s.attempt_deadline IS NOT NULL AND s.outstanding AND j.lease_id IS NOT NULL)::double precision AS in_flight,
       coalesce((SELECT greatest(extract(epoch FROM clock_timestamp() - recorded_at), 0) FROM events WHERE position IS NULL
                 ORDER BY xid LIMIT 1), 0)::double precision AS lag,
       coalesce((SELECT greatest(extract(epoch FROM clock_timestamp() - min(recorded_at)), 0) FROM audit WHERE seal_number IS NULL),
                0)::double precision AS unsealed,
       (SELECT count(*) FROM instances WHERE hold = 'quarantined')::double precision AS stuck;

-- name: measures_jobs
-- Open jobs by state, and for how many seconds the oldest of them that may be claimed has waited for a worker.
SELECT state, count(*)::double precision AS jobs,
       coalesce(max(extract(epoch FROM clock_timestamp() - greatest(waiting_since, not_before)))
                FILTER (WHERE lease_id IS NULL AND state IN ('ready', 'unwinding') AND coalesce(not_before <= clock_timestamp(), true)),
                0)::double precision AS unclaimed
FROM jobs WHERE finished_at IS NULL GROUP BY state;

-- name: measures_fleet
-- Workers whose lease has not ended, and targets with a breaker that is not closed.
SELECT (SELECT count(*) FROM leases WHERE ended_at IS NULL)::double precision AS workers,
       (SELECT count(DISTINCT target_id) FROM breakers WHERE state <> 'closed')::double precision AS breakers;
