"""Asks the archive through its door for PostgreSQL clients: door.py, with the connection in PG* of the environment.

Each question is asked as text and in binary. Prints the answers as one JSON object; ends with an error if what must be
refused is not.
"""

import datetime
import json
import sys
import threading

import psycopg

UTC = datetime.timezone.utc


def refused(connection: psycopg.Connection, query: str, code: str) -> None:
    try:
        connection.execute(query)
    except psycopg.Error as error:
        assert error.sqlstate == code, (query, error.sqlstate, str(error))
        connection.rollback()
        return
    raise AssertionError(f"not refused: {query}")


def typed(connection: psycopg.Connection, binary: bool) -> None:
    """What goes in as a parameter comes out as it was."""
    given = (7, 2**40, "x'; DROP TABLE events; --", None, True, 2.5, datetime.date(2026, 1, 2))
    query = "SELECT " + ", ".join(["%s"] * len(given))
    assert connection.execute(query, given, binary=binary).fetchone() == given
    moment = datetime.datetime(2026, 11, 22, 10, 0, 0, 120000, tzinfo=UTC)
    row = connection.execute("SELECT %s::timestamptz, %s, %s::text[]", (moment, b"\x00\xff", ["a", 'b "c"', None, ""]), binary=binary)
    assert row.fetchone() == (moment, b"\x00\xff", ["a", 'b "c"', None, ""])
    row = connection.execute("SELECT count(*) FROM events WHERE operation = ANY(%s)", (["none", "such"],), binary=binary)
    assert row.fetchone() == (0,) and row.description[0].name == "count"
    moments = "SELECT count(*) FROM events WHERE event_time >= %s AND event_time < %s AND day >= %s"
    none = connection.execute(moments, (moment.replace(year=2001), moment.replace(year=2002), given[6]), binary=binary)
    assert none.fetchone() == (0,)


def shown(value: object) -> object:
    return value.isoformat() if isinstance(value, (datetime.date, datetime.datetime)) else value


def main() -> None:
    connection = psycopg.connect("")
    answers = {}
    for binary in (False, True):
        typed(connection, binary)
        # More than five times, so that it is prepared under a name.
        for _ in range(8):
            cursor = connection.execute(
                "SELECT id, user_id, event_time, day, is_throttled, item_count, internet_message_ids, raw FROM events"
                " WHERE tenant = %s ORDER BY id",
                ("contoso",),
                binary=binary,
            )
        answers["binary" if binary else "text"] = [[shown(value) for value in row] for row in cursor.fetchall()]
        assert [column.type_code for column in cursor.description] == [25, 25, 1184, 1082, 16, 20, 1009, 25]
    connection.commit()
    refused(connection, "INSERT INTO events SELECT * FROM events", "25006")
    refused(connection, "COPY events TO STDOUT", "25006")
    refused(connection, "SELECT * FROM nothing", "42P01")
    refused(connection, "SELECT nothing FROM events", "42703")
    refused(connection, "SELEC 1", "0A000")
    refused(connection, "SELECT 1 +", "42601")
    refused(connection, "SET work_mem = 1", "42704")
    endless = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b"
    connection.execute("SET statement_timeout = 200")
    refused(connection, endless, "57014")
    connection.execute("SET statement_timeout = 0")
    connection.commit()
    # A request that comes before the question is for none.
    is_over = threading.Event()

    def cancel() -> None:
        while not is_over.wait(0.1):
            connection.cancel_safe(timeout=10)

    cancelling = threading.Thread(target=cancel)
    cancelling.start()
    refused(connection, endless, "57014")
    is_over.set()
    cancelling.join()
    with connection.pipeline():
        one, two = connection.execute("SELECT 1"), connection.execute("SELECT 2")
    assert (one.fetchone(), two.fetchone()) == ((1,), (2,))
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
