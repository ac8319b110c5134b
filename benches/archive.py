"""DuckDB on the questions of `benches archive`: on the archive's own files, on a table of its own, and on zstd JSON.

archive.py JOB, where JOB is the file that the program wrote. Prints JSON: question -> what was read -> times.
"""

import json
import os
import pathlib
import sys
import time

try:
    import duckdb
except ImportError:
    sys.exit("no duckdb for this Python: pip install duckdb")

TABLES = ["events", "mail_items"]


def drop(files):
    """Takes files out of the page cache."""
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def timed(connect, text, rounds, files):
    drop(files)
    started = time.perf_counter()
    connection = connect()
    # Into a table in memory: rows as Python objects would be another measurement.
    into = "CREATE OR REPLACE TEMP TABLE answer AS " + text
    connection.execute(into)
    cold = time.perf_counter() - started
    warm = cold
    for _ in range(rounds):
        started = time.perf_counter()
        connection.execute(into)
        warm = min(warm, time.perf_counter() - started)
    rows = connection.execute("SELECT count(*) FROM answer").fetchone()[0]
    return connection, {"rows": rows, "cold_ms": cold * 1e3, "warm_ms": warm * 1e3}


def listed(files):
    return ", ".join("'" + file.replace("'", "''") + "'" for file in files)


def on_parquet(job):
    def connect():
        connection = duckdb.connect()
        connection.execute("SET TimeZone = 'UTC'; SET threads TO 2")
        for table in TABLES:
            source = f"read_parquet([{listed(job['files'][table])}], hive_partitioning = true)"
            connection.execute(f"CREATE VIEW {table} AS SELECT * FROM {source}")
        return connection

    return connect


def files_read(connection, text):
    plan = connection.execute("EXPLAIN ANALYZE " + text).fetchall()[0][1]
    counts = [int(line.split("Total Files Read:")[1].split()[0]) for line in plan.splitlines() if "Total Files Read:" in line]
    return f"{sum(counts)} files" if counts else None


def main():
    job = json.load(open(sys.argv[1]))
    rounds = job["rounds"]
    parquet = [file for table in TABLES for file in job["files"][table]]
    database = pathlib.Path(job["folder"]) / "duckdb.database"
    database.unlink(missing_ok=True)
    with on_parquet(job)() as connection:
        connection.execute(f"ATTACH '{database}' AS own")
        for table in TABLES:
            connection.execute(f"CREATE TABLE own.{table} AS SELECT * FROM {table}")
        connection.execute("DETACH own")

    def own():
        connection = duckdb.connect(str(database), read_only=True)
        connection.execute("SET TimeZone = 'UTC'; SET threads TO 2")
        return connection

    def on_json():
        connection = duckdb.connect()
        connection.execute("SET threads TO 2")
        source = f"read_csv('{job['json']}', columns = {{'json': 'VARCHAR'}}, delim = chr(7), quote = '', escape = '', header = false)"
        connection.execute(f"CREATE VIEW records AS SELECT * FROM {source}")
        return connection

    told = {}
    for question in job["questions"]:
        connection, answer = timed(on_parquet(job), question["parquet"], rounds, parquet)
        answer["touched"] = files_read(connection, question["parquet"])
        told[question["name"]] = {"parquet": answer}
        connection, told[question["name"]]["table"] = timed(own, question["parquet"], rounds, [database])
        connection.close()
        if question["json"]:
            # All of it is read each time: once is enough.
            told[question["name"]]["json"] = timed(on_json, question["json"], 0, [job["json"]])[1]
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
