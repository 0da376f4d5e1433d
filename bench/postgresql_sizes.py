"""Bytes that a record takes in PostgreSQL, with its part of the index, in a real server of its own."""

import asyncio
import sys
from pathlib import Path

import figures
import psycopg
from figures import Count, Results

from fastgrey.shared.engine import Write
from fastgrey.shared.postgresql import Postgresql

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from shared import postgres_server  # noqa: E402

SECTIONS = ("postgresql sizes",)
RECORDS = {"smoke": 1000, "quick": 100_000, "full": 1_000_000}


def sizes(results: Results, records: int, url: str, schema: str) -> None:
    """Measure so many of what is known and of what strangers leave."""
    with psycopg.connect(url, autocommit=True) as connection:
        partition = connection.execute(f"SELECT name FROM {schema}.partitions() ORDER BY ends DESC LIMIT 1").fetchone()
        assert partition is not None
        for kind, table, letter in (("known", "known", "63"), ("strangers", partition[0], "77")):
            connection.execute(f"TRUNCATE {schema}.{table}")
            connection.execute(
                f"INSERT INTO {schema}.{table} SELECT 1764000000, "
                + ("now()" if kind == "known" else f"to_timestamp((SELECT max(starts) FROM {schema}.partitions()))")
                + f", decode('{letter}' || md5(i::text), 'hex') FROM generate_series(1, {records}) i")
            heap, index = connection.execute(  # type: ignore[misc]
                f"SELECT pg_table_size('{schema}.{table}'), pg_indexes_size('{schema}.{table}')").fetchone()
            results.add(Count("postgresql sizes", f"bytes a record of {kind}",
                              {"table": round(heap / records, 1), "index": round(index / records, 1)}))


async def made(url: str) -> str:
    """The schema, with a partition for strangers: one came."""
    engine = Postgresql(url, timeout=60)
    try:
        await engine.open()
        await engine.swap([("waiting", bytes(16))], [Write(0, 0, 1, 172860)])
    finally:
        await engine.close()
    return engine.schema


def main() -> None:
    """Measure."""
    arguments = figures.parser(__doc__).parse_args()
    results = Results(arguments, SECTIONS)
    if results.wants(*SECTIONS):
        with postgres_server.server() as server:
            sizes(results, RECORDS[arguments.profile], server.url, asyncio.run(made(server.url)))
    results.write()


if __name__ == "__main__":
    main()
