-- What must hold of the database once faults are over and every job has ended: each query finds what breaks its promise, a sentence each.

-- name: p1_every_job_has_ended
-- Nothing is stuck.
SELECT 'job ' || id || ' is ' || state || ' for ever'
FROM jobs
WHERE state NOT IN ({terminal});

-- name: p2_each_step_was_done_once
-- No step has taken effect twice: one attempt at most did it, or found it done.
SELECT 'step ' || s.name || ' of job ' || a.job_id || ' was done ' || count(*) || ' times'
FROM attempts a JOIN steps s ON s.id = a.step_id AND s.job_id = a.job_id
WHERE a.phase = 'do' AND a.outcome IN ('done', 'adopted')
GROUP BY a.job_id, s.name HAVING count(*) > 1;

-- name: p4_fences_grow_from_holder_to_holder
-- In the order of their tokens the attempts on an instance have growing fences, a new one for each job and each worker.
SELECT 'instance ' || instance_id || ': token ' || token || ' of job ' || job_id || ' has fence ' || fence || ' after ' || fence_before
FROM (
  SELECT j.instance_id, a.token, a.job_id, a.fence, a.worker_id,
         lag(a.fence) OVER w AS fence_before, lag(a.job_id) OVER w AS job_before, lag(a.worker_id) OVER w AS worker_before
  FROM attempts a JOIN jobs j ON j.id = a.job_id
  WHERE a.token IS NOT NULL
  WINDOW w AS (PARTITION BY j.instance_id ORDER BY a.token)
) AS sequence
WHERE fence < fence_before OR (fence = fence_before AND (job_id <> job_before OR worker_id <> worker_before));

-- name: p3_what_is_wanted_is_proven
-- Of an instance that is not on hold, what is wanted is seen to be so.
SELECT e.slot || ' of instance ' || e.instance_id || ' is wanted ' || e.wanted || ', and that is not proven'
FROM effects e JOIN instances i ON i.id = e.instance_id
WHERE NOT e.proven AND NOT e.replaced AND i.hold = 'none' AND i.lifecycle IN ('running', 'purged');
