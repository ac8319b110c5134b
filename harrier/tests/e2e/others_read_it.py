"""Answers queries over an archive without harrier: others_read_it.py ENGINE ARCHIVE QUERIES.

ENGINE duckdb reads the Parquet files themselves; which of them are in a table is read from the Delta log by hand.
ENGINE deltalake lets the Delta library say what is in a table, pandas takes the rows of that, and polars reads the same
files as duckdb; DuckDB asks what they have read. Prints a JSON list of lists of rows.
"""

import json
import pathlib
import sys

import duckdb

TABLES = ["events", "findings", "evidence"]


def live_files(table: pathlib.Path) -> list[str]:
    """The newest checkpoint, and the commits since: those before it may be gone."""
    log = table / "_delta_log"
    files, begins = set(), -1
    if (log / "_last_checkpoint").exists():
        begins = json.loads((log / "_last_checkpoint").read_text())["version"]
        rows = duckdb.sql(f"SELECT add.path FROM '{log}/{begins:020}.checkpoint.parquet' WHERE add IS NOT NULL")
        files = {path for (path,) in rows.fetchall()}
    for commit in sorted(commit for commit in log.glob("*.json") if int(commit.stem) > begins):
        for line in commit.read_text().splitlines():
            action = json.loads(line)
            if "add" in action:
                files.add(action["add"]["path"])
            if "remove" in action:
                files.discard(action["remove"]["path"])
    return [str(table / file) for file in sorted(files)]


def main() -> None:
    engine, archive, queries = sys.argv[1], pathlib.Path(sys.argv[2]), json.load(open(sys.argv[3]))
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    for name in TABLES:
        if not (archive / name).exists():
            continue
        if engine == "deltalake":
            from deltalake import DeltaTable

            connection.register(name, DeltaTable(str(archive / name)).to_pyarrow_dataset())
        elif engine == "pandas":
            from deltalake import DeltaTable

            connection.register(name, DeltaTable(str(archive / name)).to_pandas())
        elif engine == "polars":
            import polars

            connection.register(name, polars.read_parquet(live_files(archive / name), hive_partitioning=True).to_arrow())
        else:
            files = live_files(archive / name)
            # Written out, because a view takes no parameters.
            listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
            connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet([{listed}], hive_partitioning = true)")
    answers = []
    for query in queries:
        result = connection.execute(query)
        columns = [column[0] for column in result.description]
        rows = [[int(value) if not isinstance(value, (str, type(None))) else value for value in row] for row in result.fetchall()]
        answers.append([dict(zip(columns, row)) for row in rows])
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
