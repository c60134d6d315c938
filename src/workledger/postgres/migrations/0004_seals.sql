-- The seals: what makes the log provable to somebody who trusts nobody.
--
-- A tour. A sealer takes a range of positions, makes a Merkle root over the digests of its events, and writes it to
-- `seals` together with the hash of the seal before, so that the seals are a chain. The seals are themselves the
-- leaves of a Merkle tree (`tree_root` and its `peaks`), whose root is what a key signs: a checkpoint. `leaves` are
-- the digests of the events, so that an alteration can be located and an inclusion proved without reading the rest.
-- `seal_keys` lists the public keys, each endorsed by the one it replaced. The formats are in workledger.log.digests
-- and workledger.log.seal.
--
-- Seals, keys and positions are append-only as events are, with two ways out: functions that run with the rights of
-- the owner and do nothing else. One forgets the positions of events that were archived, the other erases payloads.
-- An event's digest commits to its payload through a salt; when a payload is erased, the commitment stays in
-- `erased_payloads`, so that the seal still holds and nobody can guess what was there.

-- Names the log for ever, in whatever database or schema it is restored.
ALTER TABLE log_head ADD COLUMN log_id uuid NOT NULL DEFAULT gen_random_uuid();

CREATE TABLE seal_keys (
    key_id      text PRIMARY KEY CHECK (key_id ~ '^[0-9a-f]{8}$'),
    name        text NOT NULL CHECK (name !~ '[[:space:]+]' AND length(name) BETWEEN 1 AND 255),
    public_key  bytea NOT NULL CHECK (octet_length(public_key) = 32),
    endorsed_by text REFERENCES seal_keys (key_id),
    endorsement bytea CHECK (octet_length(endorsement) = 64),
    created_at  timestamptz NOT NULL DEFAULT now(),
    CHECK ((endorsed_by IS NULL) = (endorsement IS NULL))
);

CREATE TABLE seals (
    number         bigint PRIMARY KEY CHECK (number >= 1),
    origin         text NOT NULL,
    first_position bigint NOT NULL UNIQUE CHECK (first_position >= 1),
    last_position  bigint NOT NULL UNIQUE,
    root           bytea NOT NULL CHECK (octet_length(root) = 32),
    previous       bytea NOT NULL CHECK (octet_length(previous) = 32),
    sealed_at      timestamptz NOT NULL,
    hash           bytea NOT NULL CHECK (octet_length(hash) = 32),
    tree_root      bytea NOT NULL CHECK (octet_length(tree_root) = 32),
    peaks          bytea NOT NULL CHECK (octet_length(peaks) % 32 = 0),
    key_id         text REFERENCES seal_keys (key_id),
    signature      bytea CHECK (octet_length(signature) = 64),
    leaves         bytea NOT NULL,
    CHECK (last_position >= first_position),
    CHECK (octet_length(leaves) = 32 * (last_position - first_position + 1)),
    CHECK ((key_id IS NULL) = (signature IS NULL))
);
-- Digests do not compress, and are read in parts.
ALTER TABLE seals ALTER COLUMN leaves SET STORAGE EXTERNAL;

CREATE TABLE erased_payloads (
    event_id   uuid PRIMARY KEY,
    commitment bytea NOT NULL CHECK (octet_length(commitment) = 32),
    erased_by  uuid NOT NULL,
    erased_at  timestamptz NOT NULL DEFAULT now()
);

-- A way out is open while the function that opens it runs, and only to who owns the tables: nobody else has the
-- right to update or delete in the first place.
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
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation',
              HINT = 'Record a correcting event instead; `workledger archive` and `workledger erase` are the ways out.';
END $$;

SELECT guard_event_table(name::regclass)
FROM unnest('{event_positions,seals,seal_keys,erased_payloads}'::text[]) AS name;

-- Puts replacements in the place of payloads and forgets their salts. What the seals commit to is kept, so that
-- they hold; what was there cannot be guessed. `by_event` is the event that records the erasure. Returns how many
-- payloads were erased for the first time.
CREATE FUNCTION erase_event_payloads(ids uuid[], replacements jsonb[], by_event uuid) RETURNS bigint
    LANGUAGE plpgsql AS $$
DECLARE
    erased bigint;
BEGIN
    INSERT INTO erased_payloads (event_id, commitment, erased_by)
    SELECT e.event_id, sha256(uuid_send(e.salt) || convert_to(coalesce(e.payload::text, ''), 'UTF8')), by_event
    FROM events e WHERE e.event_id = ANY (ids)
    ON CONFLICT (event_id) DO NOTHING;
    GET DIAGNOSTICS erased = ROW_COUNT;
    PERFORM set_config('workledger.way_out', 'erase', true);
    UPDATE events e SET payload = r.replacement, salt = '00000000-0000-0000-0000-000000000000'
    FROM unnest(ids, replacements) AS r (event_id, replacement)
    WHERE e.event_id = r.event_id;
    PERFORM set_config('workledger.way_out', '', true);
    RETURN erased;
END $$;

-- Forgets the positions of events that are no longer in the database, because they were archived and their
-- partition was dropped. The positions of events that are there stay. Returns how many were forgotten.
CREATE FUNCTION forget_positions(first_position bigint, last_position bigint) RETURNS bigint
    LANGUAGE plpgsql AS $$
DECLARE
    forgotten bigint;
BEGIN
    PERFORM set_config('workledger.way_out', 'forget', true);
    DELETE FROM event_positions p
    WHERE p.position BETWEEN first_position AND last_position
      AND NOT EXISTS (SELECT FROM events e WHERE e.event_id = p.event_id);
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    PERFORM set_config('workledger.way_out', '', true);
    RETURN forgotten;
END $$;

-- A role that may only insert can still have a partition made. A function that runs with its owner's rights finds
-- its tables where they are, and not where its caller's search_path leads.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'ensure_event_partition(timestamptz)', 'erase_event_payloads(uuid[], jsonb[], uuid)',
        'forget_positions(bigint, bigint)']
    LOOP
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = %I, pg_temp', name, current_schema());
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', name);
    END LOOP;
END $$;
