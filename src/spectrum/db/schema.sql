-- The whole current schema. A new database gets it through the migrations; a test proves that both are the same.
--
-- Conventions
-- * Ids are text in the "C" collation, `<prefix>_<UUIDv7>`, checked where a row is born (docs/adr/0010). They sort by time, so what
--   only grows is partitioned by its id.
-- * `organization_id` is on every row that belongs to somebody, and part of every reference between such rows: foreign keys are
--   checked past row-level security, so the key itself has to keep organizations apart (P11).
-- * Times come from the engine, which reads PostgreSQL's clock once per flush. Defaults of `now()` are only where no decision
--   hangs on them.
-- * No reference leads from or to a partitioned table: a partition is dropped without looking at other tables.

-- Helpers ---------------------------------------------------------------------------------------------------------------------

CREATE FUNCTION is_id(value text, prefix text) RETURNS boolean
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN value ~ ('^' || prefix || '_[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$');

-- The smallest id of a moment, in milliseconds since 1970: where a partition begins.
CREATE FUNCTION id_at(prefix text, moment timestamptz) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN prefix || '_' || regexp_replace(
        lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0'), '^(.{8})(.{4})$', '\1-\2') || '-7000-8000-000000000000';

CREATE FUNCTION refuse_change() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: this row has had its one change', TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation', HINT = 'Write a new row instead.';
END
$$;

-- The cell --------------------------------------------------------------------------------------------------------------------

-- One row: which cell this is, and its liveness. Epoch in front of every fence and token: epoch * 2^32 + counter < 2^53.
CREATE TABLE cell (
    id text COLLATE "C" PRIMARY KEY CHECK (is_id(id, 'cel')),
    only_row boolean NOT NULL DEFAULT true UNIQUE CHECK (only_row),
    epoch bigint NOT NULL CHECK (epoch BETWEEN 1 AND 2097151),
    system_identifier text NOT NULL,
    timeline bigint NOT NULL,
    database_oid bigint NOT NULL,
    signing_key_id text,
    signing_public_key bytea CHECK (octet_length(signing_public_key) = 32),
    alive_at timestamptz NOT NULL,
    resumed_at timestamptz NOT NULL,
    lost_total interval NOT NULL DEFAULT '0',
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((signing_key_id IS NULL) = (signing_public_key IS NULL))
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- Who leads (sequencer, sealer, sweeper …): every write of a leader carries its term, an older one is refused.
CREATE TABLE leader_terms (
    name text COLLATE "C" PRIMARY KEY,
    term bigint NOT NULL CHECK (term > 0),
    holder text NOT NULL,
    acquired_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- How far each consumer of the log has come. The sequencer's own row keeps the snapshot that it read last.
CREATE TABLE cursors (
    consumer text COLLATE "C" PRIMARY KEY,
    epoch bigint NOT NULL,
    position bigint NOT NULL CHECK (position >= 0),
    snapshot text,
    term bigint,
    updated_at timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- Organizations and access ----------------------------------------------------------------------------------------------------

CREATE TABLE organizations (
    id text COLLATE "C" PRIMARY KEY CHECK (is_id(id, 'org')),
    name text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    platform boolean NOT NULL DEFAULT false CHECK (platform = (id = 'org_00000000-0000-7000-8000-000000000000')),
    created_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);

CREATE TABLE tokens (
    id text COLLATE "C" PRIMARY KEY CHECK (is_id(id, 'tok')),
    organization_id text COLLATE "C" NOT NULL REFERENCES organizations,
    name text NOT NULL,
    prefix text NOT NULL,
    hash bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    scopes text[] NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz,
    spent_until timestamptz
);
CREATE INDEX tokens_organization ON tokens (organization_id, id);

CREATE TABLE quotas (
    organization_id text COLLATE "C" NOT NULL REFERENCES organizations,
    key text COLLATE "C" NOT NULL,
    cap bigint NOT NULL CHECK (cap >= 0),
    used bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (organization_id, key),
    CONSTRAINT quotas_never_exceeded CHECK (used BETWEEN 0 AND cap)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);

-- Keyed by what the caller chose; whoever repeats it gets the same answer (P9). An answer with a secret is ciphertext, and short-lived.
CREATE TABLE idempotency_keys (
    organization_id text COLLATE "C" NOT NULL REFERENCES organizations,
    method text COLLATE "C" NOT NULL,
    path text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    request_digest text NOT NULL,
    command_id text,
    status smallint NOT NULL,
    location text,
    body jsonb,
    ciphertext bytea,
    key_id text,
    ciphertext_expires_at timestamptz,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (organization_id, method, path, key),
    CHECK (body IS NULL OR ciphertext IS NULL),
    CHECK ((ciphertext IS NULL) = (key_id IS NULL)),
    CHECK ((ciphertext IS NULL) OR (ciphertext_expires_at IS NOT NULL))
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);
CREATE INDEX idempotency_keys_ciphertext_expiry ON idempotency_keys (ciphertext_expires_at) WHERE key_id IS NOT NULL;

-- Where instances run ---------------------------------------------------------------------------------------------------------

CREATE TABLE pools (
    id text COLLATE "C" PRIMARY KEY CHECK (is_id(id, 'pol')),
    organization_id text COLLATE "C" NOT NULL REFERENCES organizations,
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (organization_id, name)
);

CREATE TABLE targets (
    id text COLLATE "C" PRIMARY KEY CHECK (is_id(id, 'tgt')),
    organization_id text COLLATE "C" NOT NULL REFERENCES organizations,
    name text NOT NULL,
    url text NOT NULL,
    pool_id text COLLATE "C" NOT NULL REFERENCES pools,
    limits jsonb NOT NULL DEFAULT '{}',
    down_since timestamptz,
    down_total interval NOT NULL DEFAULT '0',
    gone_at timestamptz,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    removed_at timestamptz
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX targets_name ON targets (organization_id, name) WHERE removed_at IS NULL;
CREATE INDEX targets_pool ON targets (pool_id);

CREATE TABLE workers (
    id text COLLATE "C" PRIMARY KEY CHECK (is_id(id, 'wrk')),
    organization_id text COLLATE "C" NOT NULL REFERENCES organizations,
    pool_id text COLLATE "C" NOT NULL REFERENCES pools,
    name text NOT NULL,
    signing_public_key bytea NOT NULL UNIQUE CHECK (octet_length(signing_public_key) = 32),
    sealing_public_key bytea NOT NULL CHECK (octet_length(sealing_public_key) = 32),
    protocol_version integer NOT NULL,
    operations jsonb NOT NULL DEFAULT '{}',
    event_sequence bigint NOT NULL DEFAULT 0,
    enrolled_at timestamptz NOT NULL,
    draining_at timestamptz,
    revoked_at timestamptz
) WITH (fillfactor = 80);
CREATE INDEX workers_pool ON workers (pool_id) WHERE revoked_at IS NULL;

-- Used up by the first key that enrols with it; the same key gets the same answer again.
CREATE TABLE join_tokens (
    hash bytea PRIMARY KEY CHECK (octet_length(hash) = 32),
    organization_id text COLLATE "C" NOT NULL REFERENCES organizations,
    pool_id text COLLATE "C" NOT NULL REFERENCES pools,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    used_by_key bytea CHECK (octet_length(used_by_key) = 32),
    worker_id text COLLATE "C" REFERENCES workers,
    CHECK ((used_at IS NULL) = (used_by_key IS NULL)),
    CHECK ((used_at IS NULL) = (worker_id IS NULL))
);

-- The right of one incarnation to hold jobs. The row of a living one changes with every call: nothing of that is indexed.
CREATE TABLE leases (
    id text COLLATE "C" PRIMARY KEY CHECK (is_id(id, 'lea')),
    organization_id text COLLATE "C" NOT NULL REFERENCES organizations,
    worker_id text COLLATE "C" NOT NULL REFERENCES workers,
    pool_id text COLLATE "C" NOT NULL REFERENCES pools,
    incarnation bigint NOT NULL CHECK (incarnation > 0),
    boot text NOT NULL,
    started_at timestamptz NOT NULL,
    renewed_at timestamptz NOT NULL,
    ended_at timestamptz,
    end_reason text,
    heartbeat_number bigint NOT NULL DEFAULT 0,
    claim_number bigint NOT NULL DEFAULT 0,
    claim_answer jsonb NOT NULL DEFAULT '[]',
    call_highest bigint NOT NULL DEFAULT 0,
    call_window bytea NOT NULL DEFAULT decode(repeat('00', 128), 'hex') CHECK (octet_length(call_window) = 128),
    UNIQUE (worker_id, incarnation),
    UNIQUE (worker_id, boot),
    CHECK ((ended_at IS NULL) = (end_reason IS NULL))
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
CREATE UNIQUE INDEX leases_living ON leases (worker_id) WHERE ended_at IS NULL;

-- A breaker per target and kind of call, with its retry budget (P14). `probe_*`: who holds the one probe while it is half open.
CREATE TABLE breakers (
    target_id text COLLATE "C" NOT NULL REFERENCES targets,
    call_kind text COLLATE "C" NOT NULL,
    organization_id text COLLATE "C" NOT NULL REFERENCES organizations,
    state text NOT NULL DEFAULT 'closed' CONSTRAINT breakers_state CHECK (state IN ('closed', 'open', 'half_open')),
    failures integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
    successes integer NOT NULL DEFAULT 0 CHECK (successes >= 0),
    window_started_at timestamptz,
    opened_at timestamptz,
    retry_at timestamptz,
    openings integer NOT NULL DEFAULT 0,
    retry_tokens double precision NOT NULL DEFAULT 0 CHECK (retry_tokens >= 0),
    retry_refilled_at timestamptz,
    probe_holder text COLLATE "C",
    probe_until timestamptz,
    version bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (target_id, call_kind),
    CHECK ((state = 'closed') = (opened_at IS NULL)),
    CHECK ((probe_holder IS NULL) = (probe_until IS NULL)),
    CHECK (probe_holder IS NULL OR state = 'half_open')
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);

-- Stops claims and destructive steps: for an organization, for a target, or (a brake of the platform) for everything.
CREATE TABLE brakes (
    id text COLLATE "C" PRIMARY KEY CHECK (is_id(id, 'brk')),
    organization_id text COLLATE "C" NOT NULL REFERENCES organizations,
    reach text NOT NULL CONSTRAINT brakes_reach CHECK (reach IN ('everything', 'organization', 'target')),
    target_id text COLLATE "C" REFERENCES targets,
    reason text NOT NULL,
    evidence jsonb NOT NULL DEFAULT '{}',
    actor text NOT NULL,
    pulled_at timestamptz NOT NULL,
    until timestamptz,
    released_at timestamptz,
    CHECK ((reach = 'target') = (target_id IS NOT NULL)),
    CHECK (reach <> 'everything' OR organization_id = 'org_00000000-0000-7000-8000-000000000000')
);
CREATE INDEX brakes_pulled ON brakes (organization_id, reach, target_id) WHERE released_at IS NULL;

-- Products --------------------------------------------------------------------------------------------------------------------

CREATE TABLE products (
    organization_id text COLLATE "C" NOT NULL REFERENCES organizations,
    name text COLLATE "C" NOT NULL CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, name)
);

CREATE TABLE releases (
    id text COLLATE "C" PRIMARY KEY CHECK (is_id(id, 'rel')),
    organization_id text COLLATE "C" NOT NULL,
    product text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL CHECK (length(version) BETWEEN 1 AND 128),
    document jsonb NOT NULL,
    sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32),
    outline jsonb NOT NULL,
    publisher text NOT NULL,
    event_sequence bigint NOT NULL DEFAULT 0,
    published_at timestamptz NOT NULL,
    UNIQUE (organization_id, product, version),
    UNIQUE (id, organization_id),
    FOREIGN KEY (organization_id, product) REFERENCES products (organization_id, name)
);
CREATE INDEX releases_sha256 ON releases (sha256);

-- Instances -------------------------------------------------------------------------------------------------------------------

-- `counter` is the one of which fence and token are readings; `job_counter` numbers the queue; `event_sequence` the events.
CREATE TABLE instances (
    id text COLLATE "C" PRIMARY KEY CHECK (is_id(id, 'ins')),
    organization_id text COLLATE "C" NOT NULL REFERENCES organizations,
    name text COLLATE "C" NOT NULL CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    product text COLLATE "C" NOT NULL,
    release_id text COLLATE "C" NOT NULL,
    plan text NOT NULL,
    target_id text COLLATE "C" NOT NULL REFERENCES targets,
    pool_id text COLLATE "C" NOT NULL REFERENCES pools,
    labels jsonb NOT NULL DEFAULT '{}',
    desired_state text NOT NULL CONSTRAINT instances_desired_state CHECK (desired_state IN ('running', 'stopped')),
    lifecycle text NOT NULL
        CONSTRAINT instances_lifecycle CHECK (lifecycle IN ('creating', 'running', 'stopped', 'suspended', 'deleted', 'purged', 'failed')),
    hold text NOT NULL DEFAULT 'none' CONSTRAINT instances_hold CHECK (hold IN ('none', 'quarantined', 'frozen')),
    hold_since timestamptz,
    hold_until timestamptz,
    hold_evidence jsonb,
    health text NOT NULL DEFAULT 'unknown'
        CONSTRAINT instances_health CHECK (health IN ('healthy', 'degraded', 'unhealthy', 'unknown')),
    health_since timestamptz,
    health_streak integer NOT NULL DEFAULT 0,
    generation bigint NOT NULL CHECK (generation > 0),
    accepted_generation bigint NOT NULL DEFAULT 0 CHECK (accepted_generation BETWEEN 0 AND generation),
    rejected_generation bigint NOT NULL DEFAULT 0,
    requested jsonb NOT NULL,
    accepted jsonb,
    counter bigint NOT NULL CHECK (counter BETWEEN 0 AND 9007199254740991),
    job_counter bigint NOT NULL DEFAULT 0,
    event_sequence bigint NOT NULL DEFAULT 0,
    active_job_id text COLLATE "C",
    version bigint NOT NULL DEFAULT 1,
    slot_numbers jsonb NOT NULL DEFAULT '{}',
    facts jsonb NOT NULL DEFAULT '{}',
    outputs jsonb NOT NULL DEFAULT '{}',
    services jsonb NOT NULL DEFAULT '[]',
    conditions jsonb NOT NULL DEFAULT '[]',
    observed_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    deleted_at timestamptz,
    purge_at timestamptz,
    purged_at timestamptz,
    health_seen text CONSTRAINT instances_health_seen CHECK (health_seen IN ('healthy', 'degraded', 'unhealthy', 'unknown')),
    UNIQUE (id, organization_id),
    FOREIGN KEY (release_id, organization_id) REFERENCES releases (id, organization_id),
    CONSTRAINT instances_frozen_has_an_end CHECK (hold <> 'frozen' OR hold_until IS NOT NULL),
    CONSTRAINT instances_deleted_has_its_time CHECK (lifecycle <> 'deleted' OR (deleted_at IS NOT NULL AND purge_at IS NOT NULL)),
    CONSTRAINT instances_purged_has_its_time CHECK ((lifecycle = 'purged') = (purged_at IS NOT NULL)),
    CONSTRAINT instances_accepted_together CHECK ((accepted_generation = 0) = (accepted IS NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE UNIQUE INDEX instances_name ON instances (organization_id, name) WHERE purged_at IS NULL;
CREATE INDEX instances_list ON instances (organization_id, id);
CREATE INDEX instances_target ON instances (target_id) WHERE purged_at IS NULL;
CREATE INDEX instances_purge ON instances (purge_at) WHERE purge_at IS NOT NULL AND purged_at IS NULL;
CREATE INDEX instances_frozen ON instances (hold_until) WHERE hold = 'frozen';
CREATE INDEX instances_quarantined ON instances (id) WHERE hold = 'quarantined';

-- At most one per role, looked at when the transaction ends: a move swaps roles in any order of rows.
CREATE TABLE placements (
    id text COLLATE "C" PRIMARY KEY CHECK (is_id(id, 'plc')),
    organization_id text COLLATE "C" NOT NULL,
    instance_id text COLLATE "C" NOT NULL,
    target_id text COLLATE "C" NOT NULL REFERENCES targets,
    role text COLLATE "C" NOT NULL CONSTRAINT placements_role CHECK (role IN ('active', 'incoming', 'outgoing')),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    FOREIGN KEY (instance_id, organization_id) REFERENCES instances (id, organization_id),
    UNIQUE (id, organization_id),
    CONSTRAINT placements_one_per_role UNIQUE (instance_id, role) DEFERRABLE INITIALLY DEFERRED
) WITH (fillfactor = 80);
CREATE INDEX placements_target ON placements (target_id);

-- What is wanted of every slot, and whether that is proven. One key per slot is wanted present at most (P2); old ones stay until
-- they are proven absent, and `replaced` ones until purge: a late call may still make them.
CREATE TABLE effects (
    placement_id text COLLATE "C" NOT NULL,
    slot text COLLATE "C" NOT NULL,
    effect_key text COLLATE "C" NOT NULL,
    organization_id text COLLATE "C" NOT NULL,
    instance_id text COLLATE "C" NOT NULL,
    wanted text COLLATE "C" NOT NULL CONSTRAINT effects_wanted CHECK (wanted IN ('present', 'absent')),
    proven boolean NOT NULL,
    replaced boolean NOT NULL DEFAULT false,
    spec_digest text,
    generation bigint,
    fence bigint NOT NULL CHECK (fence BETWEEN 0 AND 9007199254740991),
    token bigint NOT NULL CHECK (token BETWEEN 0 AND 9007199254740991),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (placement_id, slot, effect_key),
    FOREIGN KEY (placement_id, organization_id) REFERENCES placements (id, organization_id),
    FOREIGN KEY (instance_id, organization_id) REFERENCES instances (id, organization_id),
    CONSTRAINT effects_one_wanted_present EXCLUDE USING btree (placement_id WITH =, slot WITH =) WHERE (wanted = 'present')
        DEFERRABLE INITIALLY DEFERRED
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX effects_instance ON effects (instance_id);

-- Ciphertext with its key's id; the key itself is never here.
CREATE TABLE secrets (
    instance_id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    organization_id text COLLATE "C" NOT NULL,
    ciphertext bytea NOT NULL,
    key_id text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (instance_id, name, version),
    FOREIGN KEY (instance_id, organization_id) REFERENCES instances (id, organization_id)
);
CREATE INDEX secrets_key ON secrets (key_id);

-- Jobs ------------------------------------------------------------------------------------------------------------------------

CREATE TABLE jobs (
    id text COLLATE "C" PRIMARY KEY CHECK (is_id(id, 'job')),
    organization_id text COLLATE "C" NOT NULL REFERENCES organizations,
    subject_type text COLLATE "C" NOT NULL,
    subject_id text COLLATE "C" NOT NULL,
    instance_id text COLLATE "C",
    target_id text COLLATE "C" REFERENCES targets,
    parent_id text COLLATE "C",
    number bigint NOT NULL CHECK (number > 0),
    front boolean NOT NULL DEFAULT false,
    operation text COLLATE "C" NOT NULL,
    operation_version integer NOT NULL,
    protocol_version integer NOT NULL DEFAULT 1,
    pool_id text COLLATE "C" NOT NULL REFERENCES pools,
    parameters jsonb NOT NULL DEFAULT '{}',
    spec jsonb,
    generation bigint NOT NULL,
    actor text NOT NULL,
    command_id text NOT NULL,
    traceparent text,
    state text COLLATE "C" NOT NULL CONSTRAINT jobs_state
        CHECK (state IN ('waiting', 'ready', 'running', 'cancelling', 'unwinding', 'succeeded', 'failed', 'cancelled')),
    version bigint NOT NULL DEFAULT 1,
    fence bigint NOT NULL DEFAULT 0 CHECK (fence BETWEEN 0 AND 9007199254740991),
    lease_id text COLLATE "C" REFERENCES leases,
    worker_id text COLLATE "C" REFERENCES workers,
    incarnation bigint,
    claim_number bigint,
    not_before timestamptz,
    rescues integer NOT NULL DEFAULT 0,
    alone boolean NOT NULL DEFAULT false,
    report_fence bigint NOT NULL DEFAULT 0,
    report_number bigint NOT NULL DEFAULT 0,
    reason text COLLATE "C",
    failure jsonb,
    residue jsonb NOT NULL DEFAULT '[]',
    baseline jsonb NOT NULL DEFAULT '{}',
    plan_hash text NOT NULL DEFAULT '',
    progress_done integer NOT NULL DEFAULT 0,
    progress_total integer NOT NULL DEFAULT 0,
    deadline timestamptz NOT NULL,
    unwind_seconds double precision NOT NULL DEFAULT 3600,
    unwind_deadline timestamptz,
    lost_before interval NOT NULL DEFAULT '0',
    waiting_for text COLLATE "C" CONSTRAINT jobs_waiting_for CHECK (waiting_for IN
        ('lease', 'queue', 'retry', 'breaker', 'brake', 'limit', 'worker', 'soak', 'window', 'approval', 'child')),
    waiting_holder text,
    waiting_since timestamptz,
    waiting_until timestamptz,
    waiting_unblock text,
    created_at timestamptz NOT NULL,
    started_at timestamptz,
    finished_at timestamptz,
    UNIQUE (id, organization_id),
    UNIQUE (subject_id, number),
    FOREIGN KEY (instance_id, organization_id) REFERENCES instances (id, organization_id),
    FOREIGN KEY (parent_id, organization_id) REFERENCES jobs (id, organization_id),
    CONSTRAINT jobs_finished_has_its_time CHECK ((state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    CONSTRAINT jobs_unwinding_has_a_deadline CHECK (state <> 'unwinding' OR unwind_deadline IS NOT NULL),
    CONSTRAINT jobs_waiting_is_told CHECK (state <> 'waiting' OR waiting_for IS NOT NULL),
    CONSTRAINT jobs_waiting_is_told_in_full CHECK (
        num_nulls(waiting_for, waiting_holder, waiting_since, waiting_until, waiting_unblock) IN (0, 5)),
    CONSTRAINT jobs_finished_waits_for_nothing CHECK (finished_at IS NULL OR waiting_for IS NULL),
    CONSTRAINT jobs_owned_as_a_whole CHECK (num_nulls(lease_id, worker_id, incarnation, claim_number) IN (0, 4)),
    CONSTRAINT jobs_owner_fits_the_state CHECK (
        CASE
            WHEN state IN ('running', 'cancelling') THEN lease_id IS NOT NULL
            WHEN state IN ('unwinding') THEN true
            ELSE lease_id IS NULL
        END),
    CONSTRAINT jobs_instance_is_the_subject CHECK (
        (subject_type = 'instance') = (instance_id IS NOT NULL AND instance_id = subject_id)),
    CONSTRAINT jobs_one_active_per_subject EXCLUDE USING btree (subject_id WITH =)
        WHERE (state IN ('ready', 'running', 'cancelling', 'unwinding')) DEFERRABLE INITIALLY DEFERRED
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX jobs_candidates ON jobs (pool_id, organization_id, coalesce(not_before, created_at), id)
    WHERE lease_id IS NULL AND state IN ('ready', 'unwinding');
CREATE INDEX jobs_deadline ON jobs (coalesce(unwind_deadline, deadline)) WHERE finished_at IS NULL;
CREATE INDEX jobs_lease ON jobs (lease_id) WHERE lease_id IS NOT NULL;
CREATE INDEX jobs_queue ON jobs (subject_id, number) WHERE state = 'waiting';
CREATE INDEX jobs_children ON jobs (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX jobs_list ON jobs (organization_id, id);
CREATE INDEX jobs_instance ON jobs (instance_id, id) WHERE instance_id IS NOT NULL;
CREATE INDEX jobs_target ON jobs (target_id) WHERE finished_at IS NULL;

ALTER TABLE instances ADD CONSTRAINT instances_active_job
    FOREIGN KEY (active_job_id, organization_id) REFERENCES jobs (id, organization_id) DEFERRABLE INITIALLY DEFERRED;

CREATE TABLE steps (
    id text COLLATE "C" PRIMARY KEY CHECK (is_id(id, 'stp')),
    organization_id text COLLATE "C" NOT NULL,
    job_id text COLLATE "C" NOT NULL,
    position integer NOT NULL CHECK (position > 0),
    name text COLLATE "C" NOT NULL,
    action text COLLATE "C" NOT NULL,
    needs text[] NOT NULL DEFAULT '{}',
    arguments jsonb NOT NULL DEFAULT '{}',
    slot text COLLATE "C",
    wants text COLLATE "C" NOT NULL CONSTRAINT steps_wants CHECK (wants IN ('present', 'absent', 'nothing')),
    irreversible boolean NOT NULL DEFAULT false,
    destructive boolean NOT NULL DEFAULT false,
    tries_allowed integer NOT NULL,
    attempt_seconds double precision NOT NULL,
    step_seconds double precision NOT NULL,
    retry_cap double precision NOT NULL,
    state text COLLATE "C" NOT NULL CONSTRAINT steps_state CHECK (state IN
        ('pending', 'running', 'retrying', 'unknown', 'replacing', 'done', 'failed', 'undoing', 'undone', 'skipped', 'undo_failed')),
    phase text COLLATE "C" NOT NULL CONSTRAINT steps_phase CHECK (phase IN ('do', 'undo', 'replace')),
    effect_key text COLLATE "C",
    attempt integer NOT NULL DEFAULT 0,
    token bigint NOT NULL DEFAULT 0 CHECK (token BETWEEN 0 AND 9007199254740991),
    tries integer NOT NULL DEFAULT 0,
    undo_tries integer NOT NULL DEFAULT 0,
    touched boolean NOT NULL DEFAULT false,
    outstanding boolean NOT NULL DEFAULT false,
    retry_at timestamptz,
    attempt_deadline timestamptz,
    deadline timestamptz,
    failure jsonb,
    output jsonb NOT NULL DEFAULT '{}' CONSTRAINT steps_output_is_small CHECK (pg_column_size(output) <= 32768),
    UNIQUE (job_id, position),
    UNIQUE (job_id, name),
    FOREIGN KEY (job_id, organization_id) REFERENCES jobs (id, organization_id),
    CONSTRAINT steps_slot_is_wanted_for_something CHECK ((slot IS NULL) = (wants = 'nothing')),
    CONSTRAINT steps_retrying_has_its_time CHECK (state <> 'retrying' OR retry_at IS NOT NULL)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX steps_attempt_deadline ON steps (attempt_deadline) WHERE attempt_deadline IS NOT NULL;

-- Every try at a step, for ever: written with its intent, changed once, by its outcome.
CREATE TABLE attempts (
    job_id text COLLATE "C" NOT NULL,
    step_id text COLLATE "C" NOT NULL,
    number integer NOT NULL CHECK (number > 0),
    organization_id text COLLATE "C" NOT NULL,
    phase text COLLATE "C" NOT NULL CONSTRAINT attempts_phase CHECK (phase IN ('do', 'undo', 'replace')),
    cause text COLLATE "C" NOT NULL CONSTRAINT attempts_cause CHECK (cause IN ('first', 'retry', 'rescue')),
    fence bigint NOT NULL CHECK (fence BETWEEN 0 AND 9007199254740991),
    token bigint CHECK (token BETWEEN 0 AND 9007199254740991),
    worker_id text COLLATE "C",
    outcome text COLLATE "C",
    failure jsonb,
    intent_at timestamptz,
    outcome_at timestamptz,
    PRIMARY KEY (job_id, step_id, number),
    CHECK ((outcome IS NULL) = (outcome_at IS NULL))
) PARTITION BY RANGE (job_id);
CREATE TABLE attempts_default PARTITION OF attempts DEFAULT WITH (fillfactor = 80);
CREATE TRIGGER attempts_change_once BEFORE UPDATE ON attempts FOR EACH ROW
    WHEN (old.outcome IS NOT NULL) EXECUTE FUNCTION refuse_change();

-- What grows: events and audit ------------------------------------------------------------------------------------------------

-- The log. `xid` and `epoch` let the sequencer read it in an order of commits; `position` is what it gives and all consumers read by.
CREATE TABLE events (
    id text COLLATE "C" NOT NULL PRIMARY KEY CHECK (is_id(id, 'evt')),
    organization_id text COLLATE "C" NOT NULL,
    epoch bigint NOT NULL,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    position bigint CHECK (position > 0),
    subject text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL CHECK (sequence > 0),
    type text COLLATE "C" NOT NULL,
    data jsonb NOT NULL,
    traceparent text,
    recorded_at timestamptz NOT NULL
) PARTITION BY RANGE (id);
CREATE TABLE events_default PARTITION OF events DEFAULT WITH (fillfactor = 70);
CREATE INDEX events_unsequenced ON events (xid) WHERE position IS NULL;
CREATE INDEX events_position ON events (position);
CREATE INDEX events_organization ON events (organization_id, position);
CREATE INDEX events_subject ON events (subject, sequence);
CREATE TRIGGER events_change_once BEFORE UPDATE ON events FOR EACH ROW
    WHEN (old.position IS NOT NULL) EXECUTE FUNCTION refuse_change();

-- Who did what to what. `seal_*`: the sealer's chain, one per organization (RFC 6962 in spirit: verifiable without the database).
CREATE TABLE audit (
    id text COLLATE "C" NOT NULL PRIMARY KEY CHECK (is_id(id, 'aud')),
    organization_id text COLLATE "C" NOT NULL,
    recorded_at timestamptz NOT NULL,
    actor text NOT NULL,
    action text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    request_id text,
    before_digest bytea CHECK (octet_length(before_digest) = 32),
    after_digest bytea CHECK (octet_length(after_digest) = 32),
    evidence jsonb NOT NULL DEFAULT '{}',
    seal_number bigint,
    seal_previous bytea,
    seal_hash bytea CHECK (octet_length(seal_hash) = 32),
    sealed_at timestamptz,
    CONSTRAINT audit_sealed_as_a_whole CHECK (num_nulls(seal_number, seal_previous, seal_hash, sealed_at) IN (0, 4))
) PARTITION BY RANGE (id);
CREATE TABLE audit_default PARTITION OF audit DEFAULT WITH (fillfactor = 70);
CREATE INDEX audit_unsealed ON audit (organization_id, id) WHERE seal_number IS NULL;
CREATE INDEX audit_list ON audit (organization_id, id);
CREATE INDEX audit_chain ON audit (organization_id, seal_number) WHERE seal_number IS NOT NULL;
CREATE INDEX audit_subject ON audit (subject, id);
CREATE TRIGGER audit_change_once BEFORE UPDATE ON audit FOR EACH ROW
    WHEN (old.seal_number IS NOT NULL) EXECUTE FUNCTION refuse_change();

-- Where each organization's audit chain ends: apart from the records, whose partitions will not stay for ever.
CREATE TABLE audit_heads (
    organization_id text COLLATE "C" PRIMARY KEY REFERENCES organizations,
    number bigint NOT NULL CHECK (number > 0),
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    sealed_at timestamptz NOT NULL,
    key_id text COLLATE "C" NOT NULL,
    signature bytea NOT NULL CHECK (octet_length(signature) = 64)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- Large things and requests ---------------------------------------------------------------------------------------------------

-- Logs and large outputs; the bytes are in the blob store.
CREATE TABLE blobs (
    id text COLLATE "C" PRIMARY KEY CHECK (is_id(id, 'blb')),
    organization_id text COLLATE "C" NOT NULL REFERENCES organizations,
    instance_id text COLLATE "C",
    job_id text COLLATE "C",
    name text NOT NULL,
    url text NOT NULL,
    size bigint NOT NULL CHECK (size >= 0),
    sha256 bytea CHECK (octet_length(sha256) = 32),
    created_at timestamptz NOT NULL,
    completed_at timestamptz,
    expires_at timestamptz NOT NULL,
    FOREIGN KEY (instance_id, organization_id) REFERENCES instances (id, organization_id)
);
CREATE INDEX blobs_expiry ON blobs (expires_at);
CREATE INDEX blobs_instance ON blobs (instance_id, id);

-- What a release needs on a target, made once and shared.
CREATE TABLE artifacts (
    target_id text COLLATE "C" NOT NULL REFERENCES targets,
    digest text COLLATE "C" NOT NULL,
    organization_id text COLLATE "C" NOT NULL REFERENCES organizations,
    name text NOT NULL,
    kind text COLLATE "C" NOT NULL,
    size bigint CHECK (size >= 0),
    made_at timestamptz NOT NULL,
    used_at timestamptz NOT NULL,
    PRIMARY KEY (target_id, digest)
);

-- Requests to workers that are not jobs (logs, describe, observations): out in the answer to a poll, back on a stream.
CREATE TABLE worker_requests (
    id text COLLATE "C" PRIMARY KEY CHECK (is_id(id, 'req')),
    organization_id text COLLATE "C" NOT NULL REFERENCES organizations,
    pool_id text COLLATE "C" NOT NULL REFERENCES pools,
    target_id text COLLATE "C" NOT NULL REFERENCES targets,
    instance_id text COLLATE "C",
    kind text COLLATE "C" NOT NULL,
    parameters jsonb NOT NULL DEFAULT '{}',
    actor text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    taken_at timestamptz,
    worker_id text COLLATE "C" REFERENCES workers,
    answered_at timestamptz,
    closed_at timestamptz,
    last_chunk bigint NOT NULL DEFAULT 0,
    ended_at timestamptz,
    UNIQUE (id, organization_id),
    FOREIGN KEY (instance_id, organization_id) REFERENCES instances (id, organization_id),
    CHECK ((taken_at IS NULL) = (worker_id IS NULL))
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX worker_requests_open ON worker_requests (pool_id, id) WHERE taken_at IS NULL;
CREATE INDEX worker_requests_expiry ON worker_requests (expires_at);

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

-- Partitions ------------------------------------------------------------------------------------------------------------------

-- Makes the weekly partitions of what grows, from the week of the first moment to the week of the second. Returns how many it made.
-- A range of which the default partition holds rows already (a clock was wrong) stays there: no row is ever refused.
CREATE FUNCTION make_partitions(first_moment timestamptz, last_moment timestamptz) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    parent record;
    week timestamptz;
    name text;
    made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('spectrum.partitions'));
    FOR parent IN SELECT * FROM (VALUES ('attempts', 'job', 80), ('events', 'evt', 70), ('audit', 'aud', 70)) AS p (title, prefix, fill) LOOP
        week := date_trunc('week', first_moment);
        WHILE week <= last_moment LOOP
            name := parent.title || '_' || to_char(week, 'YYYYMMDD');
            IF to_regclass(name) IS NULL THEN
                BEGIN
                    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL) WITH (fillfactor = %s)', name, parent.title, parent.fill);
                    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
                    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent.title, name,
                                   id_at(parent.prefix, week), id_at(parent.prefix, week + interval '7 days'));
                    made := made + 1;
                EXCEPTION WHEN check_violation THEN
                    RAISE WARNING 'rows of the week of % are in %_default: they stay there', week::date, parent.title;
                END;
            END IF;
            week := week + interval '7 days';
        END LOOP;
    END LOOP;
    RETURN made;
END
$$;
REVOKE ALL ON FUNCTION make_partitions(timestamptz, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION make_partitions(timestamptz, timestamptz) TO spectrum_system;

-- Row-level security ----------------------------------------------------------------------------------------------------------

-- Alembic's own table: it is made before the first migration runs.
CREATE TABLE IF NOT EXISTS alembic_version (
    version_num varchar(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

-- The scope is an array of organizations, set for one transaction; unset, nobody sees anything, the owner neither. The setting
-- is read inside a sub-select, so that it is evaluated once per statement and not once per row.
DO $$
DECLARE
    scope constant text := '(SELECT coalesce(nullif(current_setting(''app.organizations'', true), ''''), ''{}'')::text[])::text[]';
    platform constant text := quote_literal('org_00000000-0000-7000-8000-000000000000');
    own constant text := format('organization_id = ANY (%s)', scope);
    as_platform constant text := format('%s = ANY (%s)', platform, scope);
    scoped constant text := format('cardinality(%s) > 0', scope);
    title text;
BEGIN
    FOR title IN SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', title);
    END LOOP;

    FOREACH title IN ARRAY ARRAY['tokens', 'quotas', 'idempotency_keys', 'pools', 'targets', 'workers', 'join_tokens', 'leases',
            'breakers', 'brakes', 'products', 'releases', 'instances', 'placements', 'effects', 'secrets', 'jobs', 'steps',
            'attempts', 'events', 'audit', 'blobs', 'artifacts', 'worker_requests',
            'request_chunks', 'watches', 'audit_heads'] LOOP
        EXECUTE format('CREATE POLICY own ON %I TO spectrum_owner, spectrum_api, spectrum_engine USING (%s) WITH CHECK (%s)',
                       title, own, own);
    END LOOP;

    -- The platform's own are read by every organization, and written under the platform's scope alone.
    FOREACH title IN ARRAY ARRAY['pools', 'targets', 'workers', 'breakers', 'brakes'] LOOP
        EXECUTE format('CREATE POLICY shared ON %I FOR SELECT TO spectrum_api, spectrum_engine USING (organization_id = %s AND %s)',
                       title, platform, scoped);
    END LOOP;

    EXECUTE format('CREATE POLICY own ON organizations FOR SELECT TO spectrum_owner, spectrum_api, spectrum_engine USING (id = ANY (%s))', scope);
    EXECUTE format('CREATE POLICY platform ON organizations TO spectrum_owner, spectrum_api USING (%s)', as_platform);
    EXECUTE format('CREATE POLICY own ON cell FOR SELECT TO spectrum_api, spectrum_engine USING (%s)', scoped);
    FOREACH title IN ARRAY ARRAY['cell', 'leader_terms', 'cursors'] LOOP
        EXECUTE format('CREATE POLICY platform ON %I TO spectrum_owner USING (%s)', title, as_platform);
    END LOOP;
    CREATE POLICY migrations ON alembic_version TO spectrum_owner USING (true);

    -- The system's rows are all rows; what it sees of them is its column grants, below.
    FOREACH title IN ARRAY ARRAY['cell', 'leader_terms', 'cursors', 'alembic_version', 'organizations', 'tokens', 'idempotency_keys',
            'pools', 'targets', 'workers', 'join_tokens', 'leases', 'breakers', 'brakes', 'instances', 'placements', 'effects',
            'secrets', 'jobs', 'steps', 'attempts', 'events', 'audit', 'blobs', 'artifacts', 'worker_requests',
            'request_chunks', 'watches', 'audit_heads'] LOOP
        EXECUTE format('CREATE POLICY system ON %I TO spectrum_system USING (true)', title);
    END LOOP;
END
$$;

-- Grants ----------------------------------------------------------------------------------------------------------------------

-- The API reads, and writes what no job touches. Hashes of tokens and ciphertexts are none of its business.
GRANT SELECT ON organizations, quotas, idempotency_keys, pools, targets, workers, leases, breakers, brakes, products, releases, instances,
    placements, effects, jobs, steps, attempts, events, audit, blobs, artifacts, worker_requests, cell TO spectrum_api;
GRANT SELECT (id, organization_id, name, prefix, scopes, created_by, created_at, expires_at, last_used_at, revoked_at) ON tokens TO spectrum_api;
GRANT SELECT (organization_id, pool_id, created_by, created_at, expires_at, used_at, worker_id) ON join_tokens TO spectrum_api;
GRANT SELECT (instance_id, name, version, organization_id, key_id, created_at) ON secrets TO spectrum_api;
GRANT INSERT ON organizations, tokens, quotas, idempotency_keys, pools, targets, join_tokens, brakes, products, releases, events, audit,
    worker_requests TO spectrum_api;
GRANT UPDATE (name, deleted_at) ON organizations TO spectrum_api;
GRANT UPDATE (name, revoked_at) ON tokens TO spectrum_api;
GRANT UPDATE (cap) ON quotas TO spectrum_api;
GRANT UPDATE (name, url, limits, version, removed_at) ON targets TO spectrum_api;
GRANT UPDATE (expires_at) ON join_tokens TO spectrum_api;
GRANT UPDATE (until, released_at) ON brakes TO spectrum_api;
GRANT UPDATE (event_sequence) ON releases TO spectrum_api;

-- The engine writes what jobs touch. Events and audit it can only add to; of an attempt it sets the outcome.
GRANT SELECT ON cell, organizations, quotas, idempotency_keys, pools, targets, workers, join_tokens, leases, breakers, brakes, products,
    releases, instances, placements, effects, secrets, jobs, steps, attempts, events, audit, blobs, artifacts, worker_requests
    TO spectrum_engine;
GRANT INSERT ON quotas, idempotency_keys, workers, leases, breakers, brakes, instances, placements, effects, secrets, jobs, steps,
    attempts, events, audit, blobs, artifacts, worker_requests TO spectrum_engine;
GRANT UPDATE ON quotas, idempotency_keys, workers, leases, breakers, brakes, instances, placements, effects, jobs, steps, blobs, artifacts,
    worker_requests TO spectrum_engine;
GRANT UPDATE (down_since, down_total, gone_at, version) ON targets TO spectrum_engine;
GRANT UPDATE (used_at, used_by_key, worker_id) ON join_tokens TO spectrum_engine;
GRANT UPDATE (event_sequence) ON releases TO spectrum_engine;
GRANT UPDATE (ciphertext, key_id) ON secrets TO spectrum_engine;
GRANT UPDATE (outcome, outcome_at, failure) ON attempts TO spectrum_engine;
GRANT DELETE ON placements, effects, secrets, blobs, artifacts TO spectrum_engine;

-- The system finds and orders, over all organizations: ids, states, deadlines, hashes, positions; whole rows of events and audit only.
GRANT SELECT, INSERT, UPDATE ON leader_terms, cursors TO spectrum_system;
GRANT SELECT ON cell, alembic_version, events, audit TO spectrum_system;
GRANT UPDATE (alive_at, resumed_at, lost_total) ON cell TO spectrum_system;
GRANT UPDATE (position) ON events TO spectrum_system;
GRANT UPDATE (seal_number, seal_previous, seal_hash, sealed_at) ON audit TO spectrum_system;
GRANT SELECT (id, platform, deleted_at) ON organizations TO spectrum_system;
GRANT SELECT (id, organization_id, hash, scopes, expires_at, last_used_at, revoked_at, spent_until) ON tokens TO spectrum_system;
GRANT UPDATE (last_used_at, spent_until) ON tokens TO spectrum_system;
GRANT SELECT (organization_id, created_at, expires_at, key_id, ciphertext_expires_at) ON idempotency_keys TO spectrum_system;
GRANT UPDATE (ciphertext, key_id) ON idempotency_keys TO spectrum_system;
GRANT DELETE ON idempotency_keys, worker_requests TO spectrum_system;
GRANT SELECT (id, organization_id) ON pools TO spectrum_system;
GRANT SELECT (id, organization_id, pool_id, limits, down_since, down_total, gone_at, removed_at) ON targets TO spectrum_system;
GRANT SELECT (id, organization_id, pool_id, signing_public_key, sealing_public_key, protocol_version, operations, enrolled_at, draining_at,
    revoked_at) ON workers TO spectrum_system;
GRANT SELECT (hash, organization_id, pool_id, expires_at, used_at, used_by_key, worker_id) ON join_tokens TO spectrum_system;
GRANT SELECT (id, organization_id, worker_id, pool_id, incarnation, boot, started_at, renewed_at, ended_at, heartbeat_number, claim_number)
    ON leases TO spectrum_system;
GRANT SELECT (target_id, call_kind, organization_id, state, opened_at, retry_at, probe_holder, probe_until) ON breakers TO spectrum_system;
GRANT SELECT (id, organization_id, reach, target_id, until, released_at) ON brakes TO spectrum_system;
GRANT SELECT (id, organization_id, target_id, pool_id, desired_state, lifecycle, hold, hold_since, hold_until, health, health_since,
    generation, accepted_generation, counter, active_job_id, version, observed_at, deleted_at, purge_at, purged_at)
    ON instances TO spectrum_system;
GRANT SELECT (id, organization_id, instance_id, target_id, role) ON placements TO spectrum_system;
GRANT SELECT (placement_id, slot, effect_key, organization_id, instance_id, wanted, proven, replaced, fence, token)
    ON effects TO spectrum_system;
GRANT SELECT (instance_id, organization_id, version, key_id) ON secrets TO spectrum_system;
GRANT SELECT (id, organization_id, subject_type, subject_id, instance_id, target_id, parent_id, number, operation, operation_version,
    protocol_version, pool_id, generation, state, version, fence, lease_id, worker_id, incarnation, claim_number, alone, not_before,
    rescues, front, deadline, unwind_deadline, lost_before, waiting_for, waiting_since, waiting_until, created_at, started_at,
    finished_at) ON jobs TO spectrum_system;
GRANT SELECT (id, organization_id, job_id, position, state, phase, token, touched, outstanding, retry_at, deadline, attempt_deadline)
    ON steps TO spectrum_system;
GRANT SELECT (job_id, step_id, number, organization_id, fence, token, worker_id, outcome, intent_at, outcome_at) ON attempts TO spectrum_system;
GRANT SELECT (id, organization_id, instance_id, sha256, created_at, expires_at) ON blobs TO spectrum_system;
GRANT SELECT (target_id, digest, organization_id, used_at) ON artifacts TO spectrum_system;
GRANT SELECT (id, organization_id, pool_id, target_id, instance_id, expires_at, taken_at, worker_id) ON worker_requests TO spectrum_system;

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

-- The sealer alone says where a chain ends.
GRANT SELECT ON audit_heads TO spectrum_api;
GRANT SELECT, INSERT, UPDATE ON audit_heads TO spectrum_system;

-- The platform's own organization ---------------------------------------------------------------------------------------------

SELECT set_config('app.organizations', '{org_00000000-0000-7000-8000-000000000000}', true);
INSERT INTO organizations (id, name, platform) VALUES ('org_00000000-0000-7000-8000-000000000000', 'platform', true);
