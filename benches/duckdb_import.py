"""DuckDB on the same file: read_json to Parquet, the nearest thing to an import that it has.

It parses, infers a schema and writes columns. It does not judge, remove duplicates, keep the raw bytes or survive a crash.
"""

import os
import resource
import sys
import tempfile
import time

try:
    import duckdb
except ImportError:
    sys.exit("skipped: python3 has no duckdb (pip install duckdb)")

file, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3
for round in range(1, rounds + 1):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out.parquet")
        connection = duckdb.connect()
        connection.execute("SET threads TO 2")
        started = time.time()
        connection.execute(
            f"COPY (SELECT * FROM read_json('{file}', format='newline_delimited', maximum_object_size=33554432))"
            f" TO '{out}' (FORMAT parquet, COMPRESSION zstd)"
        )
        seconds = time.time() - started
        rows = connection.execute(f"SELECT count(*) FROM '{out}'").fetchone()[0]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        size = os.path.getsize(out) >> 20
        print(f"duckdb {duckdb.__version__} round {round}: {rows} records in {seconds:.1f} s = {rows / seconds:.0f} records/s, peak {peak} MiB, {size} MiB")
