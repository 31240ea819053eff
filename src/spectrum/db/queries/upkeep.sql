-- What has had its time. Rows are found in any order: so one at a time removes them, and the others leave it to that one.

-- name: keys_expire
-- Removes idempotency keys that nobody may repeat any more, the oldest so many.
DELETE FROM idempotency_keys WHERE (SELECT pg_try_advisory_xact_lock(hashtextextended('keys expire', 0))) AND expires_at <= (
    SELECT max(expires_at) FROM (
        SELECT expires_at FROM idempotency_keys WHERE expires_at <= clock_timestamp() ORDER BY expires_at LIMIT $1) AS oldest);

-- name: ciphertexts_expire
-- Removes answers that hold a secret and may not be shown any more; the key stays, and says that the secret was shown.
UPDATE idempotency_keys SET ciphertext = NULL, key_id = NULL
WHERE (SELECT pg_try_advisory_xact_lock(hashtextextended('keys expire', 0))) AND key_id IS NOT NULL AND ciphertext_expires_at <= clock_timestamp();
