-- When instances are looked at, what their health was seen to be, and the streams of requests.
ALTER TABLE instances ADD COLUMN health_seen text
    CONSTRAINT instances_health_seen CHECK (health_seen IN ('healthy', 'degraded', 'unhealthy', 'unknown'));
ALTER TABLE worker_requests ADD COLUMN closed_at timestamptz, ADD COLUMN last_chunk bigint NOT NULL DEFAULT 0,
    ADD COLUMN ended_at timestamptz, ADD UNIQUE (id, organization_id);

-- What came back on the stream of a request and was not read yet: any copy takes it in, the one that was asked passes it on.
CREATE TABLE request_chunks (
    request_id text COLLATE "C" NOT NULL,
    number bigint NOT NULL CHECK (number > 0),
    organization_id text COLLATE "C" NOT NULL REFERENCES organizations,
    lines jsonb NOT NULL,
    size bigint NOT NULL CHECK (size >= 0),
    ends boolean NOT NULL DEFAULT false,
    problem text,
    PRIMARY KEY (request_id, number),
    FOREIGN KEY (request_id, organization_id) REFERENCES worker_requests (id, organization_id) ON DELETE CASCADE
) WITH (autovacuum_vacuum_scale_factor = 0.02);

-- When an instance is looked at next. Apart from its own row, which is locked and written by what matters more.
CREATE TABLE watches (
    instance_id text COLLATE "C" PRIMARY KEY,
    organization_id text COLLATE "C" NOT NULL REFERENCES organizations,
    pool_id text COLLATE "C" NOT NULL REFERENCES pools,
    look_at timestamptz NOT NULL,
    FOREIGN KEY (instance_id, organization_id) REFERENCES instances (id, organization_id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX watches_due ON watches (pool_id, look_at);

DO $$
DECLARE
    own constant text := 'organization_id = ANY ((SELECT coalesce(nullif(current_setting(''app.organizations'', true), ''''), ''{}'')::text[])::text[])';
    title text;
    owners text[];
    one text;
BEGIN
    FOREACH title IN ARRAY ARRAY['request_chunks', 'watches'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', title);
        EXECUTE format('CREATE POLICY own ON %I TO spectrum_owner, spectrum_api, spectrum_engine USING (%s) WITH CHECK (%s)',
                       title, own, own);
        EXECUTE format('CREATE POLICY system ON %I TO spectrum_system USING (true)', title);
    END LOOP;

    -- Instances that were there before: organization by organization, as every backfill.
    PERFORM set_config('app.organizations', '{org_00000000-0000-7000-8000-000000000000}', true);
    SELECT array_agg(id) INTO owners FROM organizations;
    FOREACH one IN ARRAY owners LOOP
        PERFORM set_config('app.organizations', format('{%s}', one), true);
        INSERT INTO watches (instance_id, organization_id, pool_id, look_at)
        SELECT id, organization_id, pool_id, created_at FROM instances WHERE purged_at IS NULL;
    END LOOP;
    PERFORM set_config('app.organizations', '', true);
END
$$;

-- Requests that are not jobs: the API asks and reads, the engine hands out and takes in, the system spreads and forgets.
GRANT UPDATE (expires_at, closed_at) ON worker_requests TO spectrum_api;
GRANT SELECT, DELETE ON request_chunks TO spectrum_api;
GRANT SELECT ON watches TO spectrum_api;
GRANT SELECT, INSERT, DELETE ON request_chunks TO spectrum_engine;
GRANT SELECT, INSERT ON watches TO spectrum_engine;
GRANT SELECT (closed_at) ON worker_requests TO spectrum_system;
GRANT SELECT (request_id, organization_id, number) ON request_chunks TO spectrum_system;
GRANT SELECT, DELETE ON watches TO spectrum_system;
GRANT UPDATE (look_at) ON watches TO spectrum_system;
