"""Tables of the catalogue as views of DuckDB over the files that the sandbox is shown."""

import gzip
import json as json_text
import os

from errors import QueryError

TABLES = "/run/tables"
# What each kind of file may be compressed with, as the end of its name says.
UNREADABLE = (".bz2", ".lzo", ".lz4", ".snappy", ".deflate", ".zip", ".xz", ".z", ".br")
TEXT_TYPES = ("VARCHAR",)


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def literal(text):
    return "'" + text.replace("'", "''") + "'"


def files_of(folder):
    """All files below the folder of a table, in a fixed order."""
    found = []
    for directory, folders, names in os.walk(folder):
        folders.sort()
        found.extend(os.path.join(directory, name) for name in sorted(names))
    return found


def create(connection, table, root=TABLES):
    """Makes the view of one table."""
    schema, name = quoted(table["database"]), quoted(table["name"])
    connection.execute("CREATE SCHEMA IF NOT EXISTS " + schema)
    files = files_of(os.path.join(root, table["folder"]))
    kind = table["format"]["kind"]
    if kind in ("csv", "json"):
        for path in files:
            if path.lower().endswith(UNREADABLE):
                raise QueryError("NOT_SUPPORTED", f"Table {table['database']}.{table['name']}: the file {os.path.basename(path)!r} is compressed in a way that is not read here; gzip and zstd are")
    if not files:
        columns = [f"CAST(NULL AS {one['type']}) AS {quoted(one['name'])}" for one in table["columns"] + table["partition_keys"]]
        source = "SELECT " + ", ".join(columns) + " WHERE FALSE"
    else:
        source = READERS[kind](connection, table, files)
    connection.execute(f"CREATE VIEW {schema}.{name} AS {source}")


def file_list(files):
    return "[" + ", ".join(literal(path) for path in files) + "]"


def partitions(table):
    """Arguments of a reader with which the folders of partitions become columns of text."""
    keys = table["partition_keys"]
    if not keys:
        return ", hive_partitioning = false"
    types = ", ".join(f"{literal(key['name'])}: VARCHAR" for key in keys)
    return f", hive_partitioning = true, hive_types_autocast = false, hive_types = {{{types}}}"


def partition_columns(table):
    return [f"CAST({quoted(key['name'])} AS {key['type']}) AS {quoted(key['name'])}" for key in table["partition_keys"]]


def selected(columns, reader, table):
    return "SELECT " + ", ".join(columns + partition_columns(table)) + " FROM " + reader


def csv(_connection, table, files):
    settings = table["format"]
    escape, quote = settings.get("escape") or "", settings.get("quote") or ""
    if quote and escape != quote and not is_escaped(files, (escape + quote).encode()):
        # Quotes within values are doubled, which is read whatever else is said.
        escape = quote
    names = ", ".join(f"{literal(one['name'])}: 'VARCHAR'" for one in table["columns"])
    arguments = [
        f"columns = {{{names}}}",
        "header = false",
        "auto_detect = false",
        f"delim = {literal(settings['delimiter'])}",
        f"quote = {literal(quote)}",
        f"escape = {literal(escape)}",
        f"skip = {int(settings.get('skip_lines') or 0)}",
        "null_padding = true",
        "strict_mode = false",
        # A quoted value may hold line breaks, which the parallel reader refuses.
        f"parallel = {'false' if settings.get('quote') else 'true'}",
        "max_line_size = 33554432",
        # Text columns keep what is empty; what stands for NULL is said below.
        "nullstr = " + literal(settings.get("null") if settings.get("null") is not None else "\\N"),
    ]
    if quote:
        arguments.append("force_not_null = [" + ", ".join(literal(one["name"]) for one in table["columns"]) + "]")
    reader = f"read_csv({file_list(files)}, {', '.join(arguments)}{partitions(table)})"
    columns = [csv_column(one, settings) for one in table["columns"]]
    return selected(columns, reader, table)


def is_escaped(files, mark):
    """Whether any of the files has these bytes."""
    if len(mark) < 2:
        return False
    for path in files:
        opened = gzip.open(path, "rb") if path.lower().endswith(".gz") else open(path, "rb")
        if path.lower().endswith(".zst"):
            # Not looked into: the escape of the table's definition counts.
            return True
        with opened as file:
            last = b""
            while block := file.read(1 << 20):
                if mark in last + block:
                    return True
                last = block[-(len(mark) - 1) :]
    return False


def csv_column(column, settings):
    name, kind = quoted(column["name"]), column["type"]
    if kind in TEXT_TYPES:
        return name
    text = f"NULLIF(trim({name}), '')"
    if settings.get("numeric_times") and kind == "TIMESTAMP":
        value = f"CASE WHEN regexp_full_match({text}, '-?[0-9]+') THEN make_timestamp_ms(CAST({text} AS BIGINT)) ELSE CAST({text} AS TIMESTAMP) END"
    elif settings.get("numeric_times") and kind == "DATE":
        value = f"CASE WHEN regexp_full_match({text}, '-?[0-9]+') THEN DATE '1970-01-01' + CAST({text} AS INTEGER) ELSE CAST({text} AS DATE) END"
    elif kind == "BLOB":
        value = f"encode({name})"
    else:
        value = f"CAST({text} AS {kind})"
    return f"{value} AS {name}"


def json(connection, table, files):
    mapping = {one.lower(): other for one, other in (table["format"].get("mapping") or {}).items()}
    ignores = "true" if table["format"].get("ignore_malformed") else "false"
    listed = file_list(files)
    keys = connection.execute(
        f"SELECT DISTINCT unnest(json_keys(json)) FROM read_ndjson_objects({listed}, ignore_errors = {ignores}, hive_partitioning = false)"
    ).fetchall()
    spellings = {}
    for (key,) in keys:
        spellings.setdefault(key.lower(), []).append(key)
    wanted, columns = {}, []
    for column in table["columns"]:
        name = mapping.get(column["name"], column["name"])
        found = spellings.get(name.lower(), []) or [name]
        for one in found:
            wanted[one] = column["type"]
        values = [quoted(f"k{list(wanted).index(one)}") for one in found]
        value = values[0] if len(values) == 1 else "COALESCE(" + ", ".join(values) + ")"
        columns.append(f"{value} AS {quoted(column['name'])}")
    # Keys that differ in capitals alone cannot be columns side by side: each is taken out of its object.
    members = []
    for index, (key, kind) in enumerate(wanted.items()):
        path = "$." + quoted(key)
        if kind == "VARCHAR":
            members.append(f"json_extract_string(json, {literal(path)}) AS k{index}")
        else:
            structure = f"from_json(json_extract(json, {literal(path)}), {literal(structure_of(kind))})" if nested(kind) else None
            members.append((structure or f"CAST(json_extract_string(json, {literal(path)}) AS {kind})") + f" AS k{index}")
    keep = "".join(f", {quoted(key['name'])}" for key in table["partition_keys"])
    reader = f"(SELECT {', '.join(members)}{keep} FROM read_ndjson_objects({listed}, ignore_errors = {ignores}{partitions(table)}))"
    return selected(columns, reader, table)


def nested(kind):
    return kind.endswith("]") or kind.startswith(("STRUCT(", "MAP("))


def structure_of(kind):
    """A type of DuckDB as the structure that from_json takes."""
    def of(one):
        if one.endswith("[]"):
            return [of(one[:-2])]
        if one.startswith("STRUCT("):
            return {name: of(rest) for name, rest in members_of(one[7:-1])}
        return one

    return json_text.dumps(of(kind))


def members_of(text):
    """Name and type of each member of a STRUCT, as the server writes them: a quoted name, a space, the type."""
    parts, depth, start, inside = [], 0, 0, False
    for index, character in enumerate(text):
        if character == '"':
            inside = not inside
        elif not inside and character in "(<":
            depth += 1
        elif not inside and character in ")>":
            depth -= 1
        elif not inside and character == "," and depth == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    parts.append(text[start:].strip())
    for part in parts:
        end = part.index('"', 1)
        yield part[1:end], part[end + 1 :].strip()


def parquet(connection, table, files):
    listed = file_list(files)
    present = {}
    described = connection.execute(f"DESCRIBE SELECT * FROM read_parquet({listed}, union_by_name = true, hive_partitioning = false)").fetchall()
    for row in described:
        present.setdefault(row[0].lower(), row[0])
    columns = []
    for column in table["columns"]:
        found = present.get(column["name"].lower())
        value = "NULL" if found is None else quoted(found)
        columns.append(f"CAST({value} AS {column['type']}) AS {quoted(column['name'])}")
    reader = f"read_parquet({listed}, union_by_name = true{partitions(table)})"
    return selected(columns, reader, table)


READERS = {"csv": csv, "json": json, "parquet": parquet}

__all__ = ["create", "quoted", "literal", "files_of"]
