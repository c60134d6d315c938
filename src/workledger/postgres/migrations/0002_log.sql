-- The log: immutable events, and the dense order they are given after they commit.
--
-- A tour. `events` is visible the moment its transaction commits. It is partitioned by `event_id`: a UUIDv7
-- begins with its creation time, so a range of ids is a range of time, and the primary key stays exact without
-- a second column. The recording statement also puts the event's key into `event_inbox`, with a number from an
-- identity column. Whoever needs the log in order runs the sequencer, which moves the keys it can see from the
-- inbox into `event_positions` and gives them the next positions: 1, 2, 3, … without gaps (`log_head` holds the
-- last one). The identity number alone would not do as an order, because it is taken before the commit.
-- `consumers` remembers how far each named reader has come.

CREATE TABLE events (
    event_id       uuid NOT NULL,
    event_type     text NOT NULL CHECK (length(event_type) BETWEEN 1 AND 100),
    entity_type    text CHECK (length(entity_type) <= 100),
    entity_id      text CHECK (length(entity_id) <= 255),
    payload        jsonb DEFAULT '{}'::jsonb,
    severity       text DEFAULT 'info' CHECK (severity IN ('debug', 'info', 'warning', 'error', 'critical')),
    created_at     timestamptz NOT NULL DEFAULT now(),
    workflow_id    text,
    recorded_at    timestamptz NOT NULL DEFAULT now(),
    schema_version smallint NOT NULL DEFAULT 1,
    salt           uuid NOT NULL DEFAULT gen_random_uuid(),
    "timestamp"    timestamptz GENERATED ALWAYS AS (created_at) STORED,
    PRIMARY KEY (event_id)
) PARTITION BY RANGE (event_id);

CREATE INDEX idx_events_entity ON events (entity_type, entity_id);
CREATE INDEX idx_events_type ON events (event_type);
CREATE INDEX idx_events_created ON events (created_at);
CREATE INDEX events_by_workflow ON events (workflow_id, event_id) WHERE workflow_id IS NOT NULL;

CREATE TABLE event_inbox (
    seq      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id uuid NOT NULL
);

CREATE TABLE event_positions (
    position bigint PRIMARY KEY CHECK (position >= 1),
    event_id uuid NOT NULL UNIQUE
);

CREATE TABLE log_head (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    position bigint NOT NULL DEFAULT 0 CHECK (position >= 0)
);
INSERT INTO log_head DEFAULT VALUES;

CREATE TABLE consumers (
    name       text PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 255),
    position   bigint NOT NULL DEFAULT 0 CHECK (position >= 0),
    details    jsonb NOT NULL DEFAULT '{}'::jsonb,
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- The smallest UUIDv7 of an instant: its first 48 bits are Unix milliseconds (RFC 9562, section 5.7).
CREATE FUNCTION uuid_floor(at timestamptz) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;

-- The creation time that a UUIDv7 carries.
CREATE FUNCTION uuid_time(id uuid) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN to_timestamp(
        ('x' || lpad(replace(left(id::text, 13), '-', ''), 16, '0'))::bit(64)::bigint / 1000.0);

-- Makes the monthly partition that holds `at`, unless it is there. Safe from several writers at once: they
-- queue on an advisory lock, and the loser finds the winner's table. The partition is built apart and then
-- attached, so that the lock on `events` is short.
CREATE FUNCTION ensure_event_partition(at timestamptz) RETURNS text
    LANGUAGE plpgsql AS $$
DECLARE
    first_day timestamptz := date_trunc('month', at, 'UTC');
    next_day  timestamptz;
    partition text := 'events_' || to_char(first_day AT TIME ZONE 'UTC', 'YYYY_MM');
BEGIN
    next_day := date_trunc('month', first_day + interval '32 days', 'UTC');
    IF to_regclass(format('%I.%I', current_schema(), partition)) IS NOT NULL THEN
        RETURN NULL;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended(current_schema() || '.events', 0));
    IF to_regclass(format('%I.%I', current_schema(), partition)) IS NOT NULL THEN
        RETURN NULL;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED)',
                   partition);
    PERFORM guard_event_table(partition::regclass);
    EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                   partition, uuid_floor(first_day), uuid_floor(next_day));
    RETURN partition;
END $$;

-- Append-only: whoever tries to change or remove an event gets an error, whatever the role. A row trigger does
-- not see TRUNCATE, so there are two; ENABLE ALWAYS keeps them on under session_replication_role = replica.
CREATE FUNCTION refuse_change() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation',
              HINT = 'Record a correcting event instead; `workledger archive` and `workledger erase` are the ways out.';
END $$;

CREATE FUNCTION guard_event_table(event_table regclass) RETURNS void
    LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER append_only_rows BEFORE UPDATE OR DELETE ON %s'
                   ' FOR EACH ROW EXECUTE FUNCTION refuse_change()', event_table);
    EXECUTE format('CREATE TRIGGER append_only_table BEFORE TRUNCATE ON %s'
                   ' FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', event_table);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER append_only_rows', event_table);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER append_only_table', event_table);
END $$;

CREATE TRIGGER append_only_table BEFORE TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE events ENABLE ALWAYS TRIGGER append_only_table;

SELECT ensure_event_partition(now() + months * interval '1 month') FROM generate_series(-1, 3) AS months;
