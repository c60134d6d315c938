-- Promise: the project's owner, writer and reader exist, own or may use exactly what they should, however often this
-- runs; new partitions and tables follow by default privileges.
-- Safe under concurrency: one transaction, under a lock of its own.
SET LOCAL client_min_messages = warning;

SELECT pg_advisory_xact_lock(hashtextextended('workledger.roles', 0));

DO $$
DECLARE
    project text := current_schema();
    owner   text := current_schema() || '_owner';
    writer  text := current_schema() || '_writer';
    reader  text := current_schema() || '_reader';
    name    text;
    object  record;
BEGIN
    FOREACH name IN ARRAY ARRAY[owner, writer, reader] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', name);
        END IF;
    END LOOP;
    -- Who gives things away must be a member of who gets them; a superuser is one of everything.
    IF NOT pg_has_role(current_user, owner, 'MEMBER') THEN
        EXECUTE format('GRANT %I TO CURRENT_USER', owner);
    END IF;

    EXECUTE format('ALTER SCHEMA %I OWNER TO %I', project, owner);
    EXECUTE format('REVOKE ALL ON SCHEMA %I FROM PUBLIC', project);
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I, %I', project, writer, reader);
    EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA %I FROM PUBLIC, %I, %I', project, writer, reader);

    -- State rows may be changed; what is used up or counted again may be removed as well. What is append-only, and
    -- large values, which are named by what they hold, may only be added. Erasing is the owner's.
    FOR object IN
        SELECT c.oid::regclass AS id, c.relname, c.relkind,
               c.relname IN ('events', 'payloads') OR EXISTS (
                   SELECT FROM pg_trigger t
                   WHERE t.tgrelid = c.oid AND t.tgname = 'append_only_rows') AS is_only_added_to
        FROM pg_class c
        WHERE c.relnamespace = project::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
    LOOP
        EXECUTE format('ALTER %s %s OWNER TO %I',
                       CASE object.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END,
                       object.id, owner);
        EXECUTE format('GRANT SELECT ON %s TO %I, %I', object.id, writer, reader);
        CONTINUE WHEN object.relkind IN ('v', 'm') OR object.relname IN ('migrations', 'erased_payloads')
            OR object.relname LIKE 'archive%'
            OR EXISTS (SELECT FROM pg_inherits WHERE inhrelid = object.id);
        EXECUTE format('GRANT INSERT ON %s TO %I', object.id, writer);
        CONTINUE WHEN object.is_only_added_to;
        EXECUTE format('GRANT UPDATE ON %s TO %I', object.id, writer);
        CONTINUE WHEN object.relname <> 'event_inbox' AND object.relname NOT LIKE 'metric\_%';
        EXECUTE format('GRANT DELETE ON %s TO %I', object.id, writer);
    END LOOP;

    FOR object IN SELECT p.oid::regprocedure AS id FROM pg_proc p WHERE p.pronamespace = project::regnamespace LOOP
        EXECUTE format('ALTER ROUTINE %s OWNER TO %I', object.id, owner);
    END LOOP;
    EXECUTE format('GRANT EXECUTE ON FUNCTION ensure_event_partition(timestamptz) TO %I', writer);

    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I GRANT SELECT ON TABLES TO %I, %I',
                   owner, project, writer, reader);
END $$;
