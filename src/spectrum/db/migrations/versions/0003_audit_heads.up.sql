-- Where each organization's audit chain ends: apart from the records, whose partitions will not stay for ever.
CREATE TABLE audit_heads (
    organization_id text COLLATE "C" PRIMARY KEY REFERENCES organizations,
    number bigint NOT NULL CHECK (number > 0),
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    sealed_at timestamptz NOT NULL,
    key_id text COLLATE "C" NOT NULL,
    signature bytea NOT NULL CHECK (octet_length(signature) = 64)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- Exports read the chain in its own order.
CREATE INDEX audit_chain ON audit (organization_id, seal_number) WHERE seal_number IS NOT NULL;

ALTER TABLE audit_heads ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON audit_heads TO spectrum_owner, spectrum_api, spectrum_engine
    USING (organization_id = ANY ((SELECT coalesce(nullif(current_setting('app.organizations', true), ''), '{}')::text[])::text[]))
    WITH CHECK (organization_id = ANY ((SELECT coalesce(nullif(current_setting('app.organizations', true), ''), '{}')::text[])::text[]));
CREATE POLICY system ON audit_heads TO spectrum_system USING (true);

GRANT SELECT ON audit_heads TO spectrum_api;
GRANT SELECT, INSERT, UPDATE ON audit_heads TO spectrum_system;
