-- The archive: finished history that was moved out of the database into files, and where it is.
--
-- A tour. `archives` has one row for each file: what it holds, where it is, and its digest. The row is written in one
-- transaction with the event `log.archived` that says the same, after the file was read again and compared with the
-- log and its seals. Events leave the database by partition: `drop_archived_partition` drops one whose rows are, all of
-- them, in files, and says so in `removed_at`; from that moment readers take the files instead. Positions stay: they
-- prove that the log is dense, and keep a retried event from being recorded twice. Finished workflows leave the state
-- tables by the event `workflow.archived`; `archived_workflows` and `archived_conversations` keep where they went,
-- and are state themselves, a function of the log. `archived_payloads` says which file has a large value,
-- `archived_strays` which files have events of a workflow outside of the span that `archived_workflows` names.

CREATE TABLE archives (
    name           text PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 255),
    kind           text NOT NULL CHECK (kind IN (
                       'events', 'payloads', 'workflows', 'task_executions', 'conversations', 'messages', 'feedback')),
    source         text NOT NULL,
    url            text NOT NULL,
    sha256         bytea NOT NULL CHECK (octet_length(sha256) = 32),
    size_bytes     bigint NOT NULL CHECK (size_bytes > 0),
    rows           bigint NOT NULL CHECK (rows > 0),
    first_position bigint,
    last_position  bigint,
    first_time     timestamptz,
    last_time      timestamptz,
    erased         bigint NOT NULL DEFAULT 0 CHECK (erased >= 0),
    format_version smallint NOT NULL DEFAULT 1,
    event_id       uuid NOT NULL,
    archived_at    timestamptz NOT NULL DEFAULT now(),
    removed_at     timestamptz,
    CHECK ((kind = 'events') = (first_position IS NOT NULL AND last_position >= first_position
                                AND first_time IS NOT NULL AND last_time IS NOT NULL))
);

CREATE INDEX archives_by_source ON archives (source, kind);
CREATE INDEX archives_by_position ON archives (last_position) WHERE kind = 'events';

CREATE TABLE archived_workflows (
    workflow_id    text PRIMARY KEY,
    archive        text NOT NULL,
    first_position bigint NOT NULL,
    last_position  bigint NOT NULL,
    archived_at    timestamptz NOT NULL,
    source_digest  text
);

CREATE TABLE archived_conversations (
    conversation_id text PRIMARY KEY,
    archive         text NOT NULL,
    archived_at     timestamptz NOT NULL
);

CREATE TABLE archived_payloads (
    digest  bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
    archive text NOT NULL REFERENCES archives (name)
);

CREATE TABLE archived_strays (
    workflow_id text NOT NULL,
    archive     text NOT NULL REFERENCES archives (name),
    PRIMARY KEY (workflow_id, archive)
);

-- Between which positions the events of an archived workflow are. It looks where the archive is, also for who sees
-- another moment's state under the names of the tables.
CREATE FUNCTION archived_span(of_workflow text) RETURNS TABLE (first_position bigint, last_position bigint)
    LANGUAGE sql STABLE AS $$
    SELECT a.first_position, a.last_position FROM archived_workflows a WHERE a.workflow_id = of_workflow
$$;

-- What is archived happened once: an id that was used is not used again.
CREATE FUNCTION refuse_archived_workflow() RETURNS trigger
    LANGUAGE plpgsql AS $$
DECLARE
    used text;
BEGIN
    SELECT a.workflow_id INTO used FROM begun b JOIN archived_workflows a ON a.workflow_id = b.workflow_id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'workflow % is archived', used
            USING ERRCODE = 'unique_violation', DETAIL = 'An archived workflow is not started again; use another id.';
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION refuse_archived_conversation() RETURNS trigger
    LANGUAGE plpgsql AS $$
DECLARE
    used text;
BEGIN
    SELECT a.conversation_id INTO used
    FROM begun b JOIN archived_conversations a ON a.conversation_id = b.conversation_id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'conversation % is archived', used
            USING ERRCODE = 'unique_violation', DETAIL = 'An archived conversation is not continued; use another id.';
    END IF;
    RETURN NULL;
END $$;

-- After the insert, and so with a snapshot that is younger than the wait for whoever is archiving the same id. Once a
-- statement, whatever it inserts: a batch pays for one look.
CREATE TRIGGER archived_once AFTER INSERT ON workflows REFERENCING NEW TABLE AS begun
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_archived_workflow();
CREATE TRIGGER archived_once AFTER INSERT ON conversations REFERENCING NEW TABLE AS begun
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_archived_conversation();

-- Where a month was archived and is recorded into again, the primary key does not know what was there; the positions
-- do.
CREATE FUNCTION refuse_archived_event() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM event_positions p WHERE p.event_id = NEW.event_id) THEN
        RAISE EXCEPTION 'event % is in the log already, and archived', NEW.event_id
            USING ERRCODE = 'unique_violation', DETAIL = 'It was recorded before; nothing needs to be done.';
    END IF;
    RETURN NEW;
END $$;

-- As in 0002, but for two things. Whoever waited for the lock looks at the catalogue itself: `to_regclass` may remember
-- that there was no such table. And a month that was archived is guarded as above.
CREATE OR REPLACE FUNCTION ensure_event_partition(at timestamptz) RETURNS text
    LANGUAGE plpgsql AS $$
DECLARE
    first_day timestamptz := date_trunc('month', at, 'UTC');
    next_day  timestamptz := date_trunc('month', first_day + interval '32 days', 'UTC');
    partition text := 'events_' || to_char(first_day AT TIME ZONE 'UTC', 'YYYY_MM');
    is_made   boolean := to_regclass(format('%I.%I', current_schema(), partition)) IS NOT NULL;
BEGIN
    IF NOT is_made THEN
        PERFORM pg_advisory_xact_lock(hashtextextended(current_schema() || '.events', 0));
        SELECT EXISTS (SELECT FROM pg_class WHERE relname = partition
                       AND relnamespace = current_schema()::regnamespace) INTO is_made;
    END IF;
    IF is_made THEN
        RETURN NULL;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED)',
                   partition);
    PERFORM guard_event_table(partition::regclass);
    IF EXISTS (SELECT FROM archives a WHERE a.source = partition AND a.kind = 'events') THEN
        EXECUTE format('CREATE TRIGGER archived_once BEFORE INSERT ON %I'
                       ' FOR EACH ROW EXECUTE FUNCTION refuse_archived_event()', partition);
    END IF;
    EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                   partition, uuid_floor(first_day), uuid_floor(next_day));
    RETURN partition;
END $$;

-- The archive is append-only as the log is; its way out is to say that a file's rows have left the database.
CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger
    LANGUAGE plpgsql AS $$
DECLARE
    way_out text := coalesce(current_setting('workledger.way_out', true), '');
BEGIN
    IF TG_LEVEL = 'ROW' AND way_out = 'forget' AND TG_OP = 'DELETE' AND TG_TABLE_NAME = 'event_positions' THEN
        RETURN OLD;
    END IF;
    IF TG_LEVEL = 'ROW' AND way_out = 'erase' AND TG_OP = 'UPDATE'
        AND to_jsonb(OLD) - '{payload,salt,timestamp}'::text[]
           = to_jsonb(NEW) - '{payload,salt,timestamp}'::text[] THEN
        RETURN NEW;
    END IF;
    IF TG_LEVEL = 'ROW' AND way_out = 'remove' AND TG_OP = 'UPDATE' AND TG_TABLE_NAME = 'archives'
        AND to_jsonb(OLD) - 'removed_at' = to_jsonb(NEW) - 'removed_at' AND (to_jsonb(OLD) -> 'removed_at') = 'null' THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation',
              HINT = 'Record a correcting event instead; `workledger archive` and `workledger erase` are the ways out.';
END $$;

SELECT guard_event_table('archives'::regclass);

-- Says that what the files of a source hold has left the database, or was never to leave it. Events leave by
-- `drop_archived_partition` alone.
CREATE FUNCTION mark_removed(of_source text) RETURNS bigint
    LANGUAGE plpgsql AS $$
DECLARE
    marked bigint;
BEGIN
    PERFORM set_config('workledger.way_out', 'remove', true);
    UPDATE archives SET removed_at = clock_timestamp()
    WHERE source = of_source AND kind <> 'events' AND removed_at IS NULL;
    GET DIAGNOSTICS marked = ROW_COUNT;
    PERFORM set_config('workledger.way_out', '', true);
    RETURN marked;
END $$;

-- The ids that belong into a monthly partition of `events`: from the first, up to but without the next.
CREATE FUNCTION event_partition_bounds(partition text, OUT first_id uuid, OUT next_id uuid)
    LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    first_day timestamptz := make_timestamptz(
        split_part(partition, '_', 2)::integer, split_part(partition, '_', 3)::integer, 1, 0, 0, 0, 'UTC');
BEGIN
    first_id := uuid_floor(first_day);
    next_id := uuid_floor(date_trunc('month', first_day + interval '32 days', 'UTC'));
END $$;

-- Drops a partition of `events` whose rows are all in verified files, and says so; returns how many rows it had.
--
-- Nothing is lost. The rows are counted at one moment, together with the head of the log. Then, in tries of
-- `lock_timeout_ms` so that nobody who records waits for longer, `events` is locked: whatever was committed after that
-- moment waits in the inbox or has a position beyond that head, and if any of it is in this partition, nothing is
-- dropped, for then another file is due. Whoever verifies holds `events` in share; that is waited for, too.
CREATE FUNCTION drop_archived_partition(partition text, tries integer, lock_timeout_ms integer) RETURNS bigint
    LANGUAGE plpgsql AS $$
DECLARE
    first_id  uuid;
    next_id   uuid;
    head      bigint;
    present   bigint;
    archived  bigint;
    erased_in bigint;
    erased_of bigint;
    is_locked boolean := false;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = to_regclass(format('%I.events', current_schema()))
                   AND inhrelid = to_regclass(format('%I.%I', current_schema(), partition))) THEN
        RAISE EXCEPTION '% is no partition of events', partition USING ERRCODE = 'undefined_table';
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a partition is dropped in READ COMMITTED, which sees what comes while it waits'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    SELECT p.first_id, p.next_id INTO first_id, next_id FROM event_partition_bounds(partition) AS p;
    EXECUTE format('SELECT (SELECT position FROM log_head), (SELECT count(*) FROM %I)', partition) INTO head, present;
    SELECT coalesce(sum(a.rows), 0), coalesce(sum(a.erased), 0) INTO archived, erased_of
    FROM archives a WHERE a.source = partition AND a.kind = 'events' AND a.removed_at IS NULL;
    IF archived <> present THEN
        RAISE EXCEPTION '% has % events, of which % are archived', partition, present, archived
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF NOT pg_try_advisory_xact_lock(hashtextextended(current_schema() || '.mounted', 0)) THEN
        RAISE EXCEPTION '% is being read by who verifies, or begins far back', partition USING ERRCODE = 'lock_not_available';
    END IF;

    PERFORM set_config('lock_timeout', lock_timeout_ms::text, true);
    FOR try IN 1 .. tries LOOP
        BEGIN
            EXECUTE 'LOCK TABLE ONLY events IN ACCESS EXCLUSIVE MODE';
            EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', partition);
            is_locked := true;
            EXIT;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            IF try < tries THEN
                PERFORM pg_sleep(least(0.05 * try, 1.0) * (0.5 + random()));
            END IF;
        END;
    END LOOP;
    IF NOT is_locked THEN
        RAISE EXCEPTION '% is in use', partition USING ERRCODE = 'lock_not_available';
    END IF;

    IF EXISTS (SELECT FROM event_inbox i WHERE i.event_id >= first_id AND i.event_id < next_id)
        OR EXISTS (SELECT FROM event_positions p
                   WHERE p.position > head AND p.event_id >= first_id AND p.event_id < next_id) THEN
        RAISE EXCEPTION '% was recorded into meanwhile', partition USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    SELECT count(*) INTO erased_in FROM erased_payloads x
    WHERE x.event_id >= first_id AND x.event_id < next_id
      AND EXISTS (SELECT FROM events e WHERE e.event_id = x.event_id);
    IF erased_in <> erased_of THEN
        RAISE EXCEPTION 'payloads of % were erased meanwhile', partition
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;

    EXECUTE format('ALTER TABLE events DETACH PARTITION %I', partition);
    EXECUTE format('DROP TABLE %I', partition);
    PERFORM set_config('workledger.way_out', 'remove', true);
    UPDATE archives SET removed_at = clock_timestamp()
    WHERE source = partition AND kind = 'events' AND removed_at IS NULL;
    PERFORM set_config('workledger.way_out', '', true);
    RETURN present;
END $$;

-- They run with their owner's rights, so that a role of one's own can be granted just these; see 0004.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'ensure_event_partition(timestamptz)', 'mark_removed(text)',
        'drop_archived_partition(text, integer, integer)']
    LOOP
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = %I, pg_temp', name, current_schema());
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', name);
    END LOOP;
    EXECUTE format('ALTER FUNCTION archived_span(text) SET search_path = %I, pg_temp', current_schema());
END $$;
