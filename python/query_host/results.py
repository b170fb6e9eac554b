"""The result of a query as files."""

import bz2
import os
import shutil

from errors import QueryError
from tables import quoted, literal

# What DuckDB calls a compression, by format.
CODECS = {
    "PARQUET": {None: "snappy", "NONE": "uncompressed", "SNAPPY": "snappy", "GZIP": "gzip", "ZSTD": "zstd"},
    "JSON": {None: "none", "NONE": "none", "GZIP": "gzip"},
    "TEXTFILE": {None: "none", "NONE": "none", "GZIP": "gzip"},
    "CSV": {None: "none", "NONE": "none", "GZIP": "gzip", "ZSTD": "zstd", "BZIP2": "none"},
}
ENDINGS = {"PARQUET": ".parquet", "JSON": ".json", "TEXTFILE": ".txt", "CSV": ".csv"}
COMPRESSED_ENDINGS = {"GZIP": ".gz", "ZSTD": ".zst", "BZIP2": ".bz2"}

def columns(connection, sql, unnamed):
    """Name and type of each column of the result, and the expression that makes it what a table can hold."""
    described = connection.execute("DESCRIBE " + sql).fetchall()
    found, names = [], set()
    for position, row in enumerate(described):
        engine_name, kind = row[0], row[1]
        name = engine_name.lower()
        if engine_name in unnamed:
            name = unnamed[engine_name] or f"_col{position}"
        if name in names:
            raise QueryError("DUPLICATE_COLUMN_NAME", f"Column name '{name}' is given more than once: use AS")
        names.add(name)
        value = f"c{position}"
        kept = {"HUGEINT": "BIGINT", "UHUGEINT": "BIGINT", "UBIGINT": "BIGINT", "UUID": "VARCHAR", "TIME": "VARCHAR", "JSON": "VARCHAR"}
        if kind in kept:
            value, kind = f"CAST({value} AS {kept[kind]})", kept[kind]
        elif kind == "TIMESTAMP WITH TIME ZONE":
            value, kind = f"CAST({value} AT TIME ZONE 'UTC' AS TIMESTAMP)", "TIMESTAMP"
        elif kind == '"NULL"' or kind == "NULL":
            value, kind = f"CAST({value} AS VARCHAR)", "VARCHAR"
        elif kind == "INTERVAL":
            raise QueryError("NOT_SUPPORTED", f"Column '{name}' is an INTERVAL, which a data set cannot hold: cast it")
        found.append((name, kind, value))
    return found


def text_column(name, kind, value):
    """A column of delimited text."""
    if kind.endswith("]") or kind.startswith(("STRUCT(", "MAP(")):
        raise QueryError("NOT_SUPPORTED", f"Column '{name}' is {kind.split('(')[0]}, which delimited text cannot hold: take PARQUET or JSON, or cast it")
    if kind == "BLOB":
        return f"base64({value})"
    return value


def write(connection, sql, unnamed, output, folder, parts):
    """Writes the result of a query; answers its rows, and its columns."""
    form, compression = output["format"], output.get("compression")
    found = columns(connection, sql, unnamed)
    shown = []
    for name, kind, value in found:
        if form in ("TEXTFILE", "CSV"):
            value = text_column(name, kind, value)
        shown.append(f"{value} AS {quoted(name)}")
    given = ", ".join(f"c{position}" for position in range(len(found)))
    chosen = f"SELECT {', '.join(shown)} FROM ({sql}) AS result({given})"
    os.makedirs(folder, exist_ok=True)
    if parts <= 1:
        rows = copy(connection, chosen, form, compression, os.path.join(folder, "part-00000"))
    else:
        # A host of several gets its part by objects: there is at least one for each.
        connection.execute("CREATE TEMPORARY TABLE result_rows AS " + chosen)
        rows = 0
        for part in range(parts):
            own = f"SELECT * FROM result_rows WHERE rowid % {parts} = {part}"
            rows += copy(connection, own, form, compression, os.path.join(folder, f"part-{part:05}"))
    return rows, [{"name": name, "type": kind} for name, kind, _ in found]


def copy(connection, sql, form, compression, path):
    """Writes one file."""
    ending = ENDINGS[form]
    codec = CODECS[form][compression]
    if form == "PARQUET":
        options = f"FORMAT parquet, COMPRESSION {codec}"
    elif form == "JSON":
        options = f"FORMAT json, COMPRESSION {codec}"
    elif form == "TEXTFILE":
        options = f"FORMAT csv, HEADER false, DELIMITER '\x01', QUOTE '', ESCAPE '', NULLSTR '\\N', COMPRESSION {codec}"
    else:
        options = f"FORMAT csv, HEADER false, DELIMITER ',', QUOTE '\"', NULLSTR '', COMPRESSION {codec}"
    target = path + ending + (COMPRESSED_ENDINGS.get(compression, "") if form != "PARQUET" and codec != "none" else "")
    written = connection.execute(f"COPY ({sql}) TO {literal(target)} ({options})").fetchone()
    if compression == "BZIP2":
        with open(target, "rb") as plain, bz2.open(target + ".bz2", "wb") as packed:
            shutil.copyfileobj(plain, packed, 1 << 20)
        os.remove(target)
    return int(written[0])
