-- What must hold of the database after a run without faults: each query finds what breaks its promise, a sentence each.

-- name: p2_each_attempt_is_the_first
-- Nothing is tried again where nothing went wrong.
SELECT a.phase || ' of step ' || s.name || ' of job ' || a.job_id || ' was tried again (' || a.cause || '): before, ' || b.phase || ' ended as '
       || coalesce(b.outcome, 'nothing') || ' after ' || coalesce(extract(epoch FROM b.outcome_at - b.intent_at)::text, '?') || ' s'
       || coalesce(': ' || (b.failure ->> 'code') || ': ' || (b.failure ->> 'message'), '')
FROM attempts a
JOIN steps s ON s.id = a.step_id AND s.job_id = a.job_id
LEFT JOIN attempts b ON b.job_id = a.job_id AND b.step_id = a.step_id AND b.number = a.number - 1
WHERE a.cause <> 'first' OR a.number > 1;

-- name: p1_no_job_is_rescued
-- No worker is lost where none was harmed.
SELECT 'job ' || (data ->> 'job_id') || ' was rescued: ' || (data ->> 'why')
FROM events WHERE type = 'io.spectrum.job.rescued.v1';

-- name: p2_each_job_is_claimed_once
-- A job has one holder from its beginning to its end.
SELECT 'job ' || (data ->> 'job_id') || ' was claimed ' || count(*) || ' times'
FROM events WHERE type = 'io.spectrum.job.claimed.v1'
GROUP BY data ->> 'job_id' HAVING count(*) > 1;

-- name: p4_each_claim_has_a_higher_fence
-- In the order of their claims, the fences of an instance's jobs grow strictly.
SELECT 'job ' || job || ' of instance ' || subject || ' was claimed under fence ' || fence || ' after ' || before
FROM (
  SELECT subject, data ->> 'job_id' AS job, (data ->> 'fence')::bigint AS fence,
         lag((data ->> 'fence')::bigint) OVER (PARTITION BY subject ORDER BY sequence) AS before
  FROM events WHERE type = 'io.spectrum.job.claimed.v1'
) AS claims
WHERE fence <= before;
