"""What the PostgreSQL engine makes in a database: a schema with tables of records and functions that write them.

Run as a program it prints the statements for psql, for a database where the server may not make tables itself:

    python3 -m fastgrey.shared.postgresql_schema [SCHEMA [ROLE]] | psql DATABASE
"""

import sys

from fastgrey.errors import EngineError

from .engine import NAMESPACE

# Of tables and functions together: what has another one is refused.
VERSION = 1

# The first statement keeps machines that start at the same moment from making the same table twice.
TEMPLATE = r"""
SELECT pg_advisory_xact_lock(hashtextextended('fastgrey.schema', 0));

DO $$
BEGIN
    -- IF NOT EXISTS asks for the right to make schemas even where there is one.
    IF to_regnamespace('{schema}') IS NULL THEN
        CREATE SCHEMA {schema};
    END IF;
END $$;

CREATE TABLE IF NOT EXISTS {schema}.state (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version int NOT NULL,
    secret bytea,
    -- Page of known from which the next sweep goes on.
    swept bigint NOT NULL DEFAULT 0,
    -- The longest that a stranger was to be kept which found no partition, in seconds.
    reach bigint NOT NULL DEFAULT 0
);

-- No index on expires: a record that is seen again then stays in its page, and no index is touched (HOT).
CREATE TABLE IF NOT EXISTS {schema}.known (
    record bigint NOT NULL,
    expires timestamptz NOT NULL,
    key bytea PRIMARY KEY
) WITH (fillfactor = 90);

CREATE TABLE IF NOT EXISTS {schema}.strangers (
    record bigint NOT NULL,
    expires timestamptz NOT NULL,
    key bytea NOT NULL
) PARTITION BY RANGE (expires);

CREATE OR REPLACE FUNCTION {schema}.partitions(OUT name text, OUT starts bigint, OUT ends bigint) RETURNS SETOF record
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.relname, split_part(c.relname, '_', 2)::bigint, split_part(c.relname, '_', 3)::bigint
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = '{schema}.strangers'::regclass AND c.relname ~ '^strangers_[0-9]+_[0-9]+$'
$$;

-- How long a partition is: a power of two of days, half of what it is needed for at most, a day at least.
CREATE OR REPLACE FUNCTION {schema}.partition_span(keep bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT 86400 * (1::bigint << greatest(floor(log(2, greatest(keep / 172800, 1)))::int, 0))
$$;

-- Let there be a partition for what expires in keep seconds. ahead: nothing does yet.
CREATE OR REPLACE FUNCTION {schema}.make_partition(keep bigint, ahead boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    moment bigint := floor(extract(epoch FROM now()))::bigint + keep;
    span bigint := {schema}.partition_span(keep);
    starting bigint := moment - moment % span;
    ending bigint := starting + span;
    made text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('fastgrey.{schema}', 0));
    -- A record from a clock that is years ahead shall not become the measure.
    UPDATE {schema}.state SET reach = keep WHERE NOT ahead AND keep > reach AND keep < 86400 * 800;
    IF EXISTS (SELECT FROM {schema}.partitions() p WHERE p.starts <= moment AND moment < p.ends) THEN
        RETURN;
    END IF;
    -- Where retry_window was changed, partitions of another length are beside it.
    SELECT greatest(starting, max(p.ends) FILTER (WHERE p.ends <= moment)),
           least(ending, min(p.starts) FILTER (WHERE p.starts > moment))
        INTO starting, ending FROM {schema}.partitions() p;
    made := format('strangers_%s_%s', starting, ending);
    -- Attaching lets statements on the other partitions go on, CREATE ... PARTITION OF would not.
    EXECUTE format('CREATE TABLE {schema}.%I (LIKE {schema}.strangers, PRIMARY KEY (key))', made);
    EXECUTE format('ALTER TABLE {schema}.strangers ATTACH PARTITION {schema}.%I FOR VALUES FROM (%L) TO (%L)',
                   made, to_timestamp(starting), to_timestamp(ending));
END $$;

-- The partitions of today and tomorrow, and those that strangers of now and of the next span go into.
CREATE OR REPLACE FUNCTION {schema}.make_ahead() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    longest bigint := (SELECT reach FROM {schema}.state);
BEGIN
    PERFORM {schema}.make_partition(keep, true)
        FROM unnest(ARRAY[0, 86400, longest, longest + {schema}.partition_span(longest)]) AS keep;
END $$;

-- Drop partitions that are of no use by this clock and by the server's own. How many.
CREATE OR REPLACE FUNCTION {schema}.drop_expired(clock bigint) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone text;
    dropped int := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('fastgrey.{schema}', 0)) THEN
        RETURN 0;
    END IF;
    -- Whoever comes after a DROP that waits has to wait as well: rather try again a few minutes later.
    PERFORM set_config('lock_timeout', '100ms', true);
    FOR gone IN SELECT p.name FROM {schema}.partitions() p
                WHERE p.ends <= least(clock, extract(epoch FROM now())) ORDER BY p.ends LOOP
        BEGIN
            EXECUTE format('DROP TABLE {schema}.%I', gone);
            dropped := dropped + 1;
        EXCEPTION WHEN lock_not_available THEN
            RETURN dropped;
        END;
    END LOOP;
    RETURN dropped;
END $$;

-- Remove what expired, by this clock and by the server's own, from so many pages of known. Whether there are more.
CREATE OR REPLACE FUNCTION {schema}.sweep(clock bigint, pages bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    first bigint;
    last bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('fastgrey.sweep.{schema}', 0)) THEN
        RETURN false;
    END IF;
    SELECT swept INTO first FROM {schema}.state;
    last := first + pages;
    DELETE FROM {schema}.known
        WHERE ctid >= format('(%s,0)', first)::tid AND ctid < format('(%s,0)', last)::tid
          AND expires <= least(to_timestamp(clock), now());
    IF last * current_setting('block_size')::bigint >= pg_relation_size('{schema}.known') THEN
        last := 0;
    END IF;
    UPDATE {schema}.state SET swept = last;
    RETURN last > 0;
END $$;

CREATE OR REPLACE FUNCTION {schema}.agree(own bytea) RETURNS bytea
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE {schema}.state SET secret = own WHERE secret IS NULL;
    RETURN (SELECT secret FROM {schema}.state);
END $$;

-- Several swaps, each all or nothing: row i belongs to the swap number swaps[i]. Gives the numbers of those that did
-- not happen, because a record of theirs is another one than it was; NULL where all happened.
--
-- locks: of all keys, in ascending order. Whoever writes a key holds its lock, so that what is compared stands until it
-- is written, and a key that is not there yet is inserted once: no index can see to that across partitions. Each
-- statement sees what was committed when it begins (read committed), the lock taken by then.
CREATE OR REPLACE FUNCTION {schema}.swap(locks bigint[], keys bytea[], stranger boolean[], olds bigint[], news bigint[],
                                        keeps bigint[], swaps int[]) RETURNS int[]
LANGUAGE plpgsql AS $$
DECLARE
    stale int[];
BEGIN
    PERFORM pg_advisory_xact_lock(l) FROM unnest(locks) AS l;
    SELECT array_agg(DISTINCT w.swap) INTO stale
        FROM unnest(keys, stranger, olds, swaps) AS w(key, stranger, old, swap)
        LEFT JOIN LATERAL (
            SELECT k.record FROM {schema}.known k WHERE NOT w.stranger AND k.key = w.key
            UNION ALL
            SELECT s.record FROM {schema}.strangers s WHERE w.stranger AND s.key = w.key
        ) r ON true
        WHERE coalesce(r.record, 0) <> w.old;
    IF false = ANY (stranger) THEN
        INSERT INTO {schema}.known AS k (key, record, expires)
            SELECT w.key, w.new, now() + make_interval(secs => w.keep)
            FROM unnest(keys, stranger, news, keeps, swaps) AS w(key, stranger, new, keep, swap)
            WHERE NOT w.stranger AND (w.swap = ANY (stale)) IS NOT TRUE
            ON CONFLICT (key) DO UPDATE SET record = excluded.record, expires = excluded.expires;
    END IF;
    IF true = ANY (stranger) AND 0 <> ANY (olds) THEN
        UPDATE {schema}.strangers s SET record = w.new, expires = now() + make_interval(secs => w.keep)
            FROM unnest(keys, stranger, olds, news, keeps, swaps) AS w(key, stranger, old, new, keep, swap)
            WHERE s.key = w.key AND w.stranger AND w.old <> 0 AND (w.swap = ANY (stale)) IS NOT TRUE;
    END IF;
    IF true = ANY (stranger) AND 0 = ANY (olds) THEN
        INSERT INTO {schema}.strangers (key, record, expires)
            SELECT w.key, w.new, now() + make_interval(secs => w.keep)
            FROM unnest(keys, stranger, olds, news, keeps, swaps) AS w(key, stranger, old, new, keep, swap)
            WHERE w.stranger AND w.old = 0 AND (w.swap = ANY (stale)) IS NOT TRUE;
    END IF;
    RETURN stale;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {schema} FROM PUBLIC;
INSERT INTO {schema}.state (version) VALUES ({version}) ON CONFLICT DO NOTHING;
"""

# All that the server needs where another role owns the tables.
GRANTS = """
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT SELECT ON {schema}.state TO {role};
GRANT SELECT, INSERT, UPDATE ON {schema}.known, {schema}.strangers TO {role};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO {role};
"""


def checked(name: str) -> str:
    """The name of a schema or role as it may stand in a statement. EngineError."""
    if not NAMESPACE.fullmatch(name):
        raise EngineError(f"{name!r}: cannot be a name in PostgreSQL here; use a-z, 0-9 and _, 40 of them at most, "
                          "not beginning with a digit")
    return name


def statements(schema: str) -> str:
    """What makes the schema, or adds what is missing. To be run in one transaction."""
    return TEMPLATE.replace("{schema}", checked(schema)).replace("{version}", str(VERSION))


def grants(schema: str, role: str) -> str:
    """What lets a role that owns nothing of it work."""
    return GRANTS.replace("{schema}", checked(schema)).replace("{role}", checked(role))


def main(arguments: list[str]) -> None:
    """Print the statements for this schema, and the rights of this role."""
    schema = arguments[0] if arguments else "fastgrey"
    print(f"BEGIN;{statements(schema)}", end="")
    if len(arguments) > 1:
        print(grants(schema, arguments[1]), end="")
    print("COMMIT;")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except EngineError as error:
        sys.exit(f"fastgrey: {error}")
