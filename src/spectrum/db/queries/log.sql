-- Reading what happened.

-- name: event_list
-- An organization's events after a position, in the order of the log.
SELECT id, organization_id, position, subject, sequence, type, data, traceparent, recorded_at FROM events
WHERE organization_id = $1 AND position > $2 AND ($4::text IS NULL OR subject = $4) ORDER BY position LIMIT $3;

-- name: audit_list
-- An organization's audit records after an id.
SELECT id, recorded_at, actor, action, subject, request_id, evidence FROM audit
WHERE organization_id = $1 AND id > $2 AND ($4::text IS NULL OR subject = $4) ORDER BY id LIMIT $3;
