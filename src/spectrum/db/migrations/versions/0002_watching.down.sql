-- Nobody looks at instances any more, and streams are cut off.
DROP TABLE watches, request_chunks;
REVOKE UPDATE (expires_at, closed_at) ON worker_requests FROM spectrum_api;
ALTER TABLE worker_requests DROP CONSTRAINT worker_requests_id_organization_id_key, DROP COLUMN closed_at, DROP COLUMN last_chunk,
    DROP COLUMN ended_at;
ALTER TABLE instances DROP COLUMN health_seen;
