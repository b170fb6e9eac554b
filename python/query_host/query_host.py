"""Runs one query over the tables that the sandbox is shown, and leaves its result as files.

It is started with the folder that has `request.json`; it writes the files of the result below `output`, and last of all
`outcome.json`. What is wrong with the query stands there; whatever else fails is a traceback and an exit code.
"""

import json
import os
import sys
import time

import duckdb

import description
import functions
import results
import tables
import translate
from errors import QueryError

# What the interpreter itself and the libraries take of the memory that the query has.
OWN_BYTES = 160 << 20


def main(folder):
    with open(os.path.join(folder, "request.json"), encoding="utf-8") as file:
        request = json.load(file)
    began = time.monotonic()
    try:
        outcome = look(request, folder) if "describe" in request else run(request, folder)
        outcome["seconds"] = round(time.monotonic() - began, 3)
    except QueryError as error:
        outcome = {"error": error.document()}
        where = f"line {error.line}:{error.column}: " if error.line else ""
        print(f"query: {error.code}: {where}{error.message}", flush=True)
    partial = os.path.join(folder, "outcome.partial")
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(outcome, file)
    os.rename(partial, os.path.join(folder, "outcome.json"))
    return 1 if "error" in outcome else 0


def look(request, folder):
    """What the files say of themselves that a table is to be made of."""
    connection = connect(request, folder)
    try:
        lock(connection, folder)
        return {"description": description.describe(connection, request["describe"], tables.TABLES)}
    except duckdb.Error as error:
        raise QueryError("HIVE_BAD_DATA", str(error).strip().splitlines()[0]) from error


def run(request, folder):
    query, dialect = request["query"], request["dialect"]
    known = {(one["database"].lower(), one["name"].lower()): one for one in request["tables"]}
    translation = translate.translate(query, dialect, request.get("database"), known)
    connection = connect(request, folder)
    try:
        for table in translation.tables.values():
            tables.create(connection, table)
        names = ", ".join(".".join(key) for key in sorted(translation.tables)) or "none"
        print(f"query: reading the tables {names}", flush=True)
        functions.define(connection, dialect)
        lock(connection, folder)
        output = os.path.join(folder, "output")
        rows, columns = results.write(
            connection, translation.sql, translation.unnamed, request["output"], output, int(request.get("parts") or 1)
        )
    except duckdb.Error as error:
        raise translate.of_engine(error, query, dialect) from error
    files = tables.files_of(output)
    written = sum(os.path.getsize(path) for path in files)
    print(f"query: {rows} rows in {len(files)} files, {written} bytes", flush=True)
    return {"rows": rows, "columns": columns, "files": [os.path.basename(path) for path in files], "bytes": written}


def connect(request, folder):
    memory = max(int(request["memory_bytes"]) - OWN_BYTES, 64 << 20)
    settings = {
        "threads": max(1, int(request["threads"])),
        "memory_limit": f"{memory}B",
        "temp_directory": os.path.join(folder, "scratch"),
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "preserve_insertion_order": True,
    }
    connection = duckdb.connect(":memory:", config=settings)
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def lock(connection, folder):
    """From here on the engine opens nothing but the files of the tables, the result, and its own scratch space."""
    places = [tables.TABLES, os.path.join(folder, "output"), os.path.join(folder, "scratch")]
    listed = ", ".join(tables.literal(place + "/") for place in places)
    connection.execute(f"SET allowed_directories = [{listed}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
