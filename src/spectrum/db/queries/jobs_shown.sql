-- Jobs as they are shown, under one organization's scope. `lost` is the time in which deadlines of jobs on the target did not count,
-- as of the cell's last tick; `place` is a waiting job's place in its queue.

-- name: jobs_find
-- Some jobs of an organization.
SELECT j.*, i.name AS instance_name, c.lost_total + t.down_total + coalesce(greatest(c.alive_at - t.down_since, '0'), '0') AS lost,
       (SELECT count(*) FROM jobs a WHERE a.subject_id = j.subject_id AND a.state = 'waiting'
          AND (NOT a.front, a.number) <= (NOT j.front, j.number)) AS place
FROM jobs j JOIN instances i ON i.id = j.instance_id JOIN targets t ON t.id = j.target_id CROSS JOIN cell c
WHERE j.organization_id = $1 AND j.id = ANY ($2);

-- name: job_list
-- An organization's jobs before an id, newest first.
SELECT j.*, i.name AS instance_name, c.lost_total + t.down_total + coalesce(greatest(c.alive_at - t.down_since, '0'), '0') AS lost,
       (SELECT count(*) FROM jobs a WHERE a.subject_id = j.subject_id AND a.state = 'waiting'
          AND (NOT a.front, a.number) <= (NOT j.front, j.number)) AS place
FROM jobs j JOIN instances i ON i.id = j.instance_id JOIN targets t ON t.id = j.target_id CROSS JOIN cell c
WHERE j.organization_id = $1 AND j.id < $2
  AND ($4::text IS NULL OR j.state = $4) AND ($5::text IS NULL OR j.operation = $5)
ORDER BY j.id DESC LIMIT $3;

-- name: job_list_of_instance
-- An instance's jobs before an id, newest first.
SELECT j.*, i.name AS instance_name, c.lost_total + t.down_total + coalesce(greatest(c.alive_at - t.down_since, '0'), '0') AS lost,
       (SELECT count(*) FROM jobs a WHERE a.subject_id = j.subject_id AND a.state = 'waiting'
          AND (NOT a.front, a.number) <= (NOT j.front, j.number)) AS place
FROM jobs j JOIN instances i ON i.id = j.instance_id JOIN targets t ON t.id = j.target_id CROSS JOIN cell c
WHERE j.organization_id = $1 AND j.id < $2
  AND ($4::text IS NULL OR j.state = $4) AND ($5::text IS NULL OR j.operation = $5)
  AND j.instance_id = $6
ORDER BY j.id DESC LIMIT $3;

-- name: attempts_of_jobs
-- Every try at every step of these jobs, in order.
SELECT a.* FROM unnest($1::text[]) AS w (id)
CROSS JOIN LATERAL (SELECT * FROM attempts WHERE attempts.job_id = w.id ORDER BY step_id, number OFFSET 0) AS a;

-- name: job_obstacle
-- The brake that keeps a job from being claimed, as of the cell's last tick; nothing where there is none.
SELECT b.id, b.reach, b.reason, b.actor, b.pulled_at, b.until
FROM brakes b CROSS JOIN cell c JOIN jobs j ON j.organization_id = $1 AND j.id = $2
WHERE b.released_at IS NULL AND (b.until IS NULL OR b.until > c.alive_at)
  AND (b.reach = 'everything' OR (b.reach = 'organization' AND b.organization_id = j.organization_id)
       OR (b.reach = 'target' AND b.target_id = j.target_id))
ORDER BY b.id LIMIT 1;
