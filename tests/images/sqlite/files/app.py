"""POST adds its body, a number, as a row, and answers 201 once that is on the disk. GET answers with all, one a line."""
import sqlite3
from contextlib import closing


def app(environ, start_response):
    # Without transactions of Python's own: each statement is one.
    with closing(sqlite3.connect("/data/kept.db", timeout=30, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("CREATE TABLE IF NOT EXISTS kept (n INTEGER)")
        if environ["REQUEST_METHOD"] == "POST":
            number = int(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            db.execute("INSERT INTO kept VALUES (?)", (number,))
            status, body = "201 Created", b""
        else:
            rows = db.execute("SELECT n FROM kept").fetchall()
            status, body = "200 OK", "".join(f"{row[0]}\n" for row in rows).encode()
    start_response(status, [("Content-Length", str(len(body)))])
    return [body]
