"""What files say of themselves: their columns, in the types of the catalogue."""

import re

from errors import QueryError
from tables import file_list, files_of, literal, members_of

PLAIN = {
    "BOOLEAN": "boolean", "TINYINT": "tinyint", "SMALLINT": "smallint", "INTEGER": "int", "BIGINT": "bigint", "UTINYINT": "smallint",
    "USMALLINT": "int", "UINTEGER": "bigint", "UBIGINT": "decimal(20,0)", "HUGEINT": "decimal(38,0)", "UHUGEINT": "decimal(38,0)",
    "FLOAT": "float", "DOUBLE": "double", "DATE": "date", "BLOB": "binary",
}


def catalogue_type(kind):
    """A type of the engine in the words of the catalogue; what has none is text."""
    kind = kind.strip()
    if kind.endswith("]"):
        return f"array<{catalogue_type(kind[: kind.rindex('[')])}>"
    if kind.startswith("STRUCT("):
        members = [f"{name.lower()}:{catalogue_type(rest)}" for name, rest in members_of(quoted_members(kind[7:-1]))]
        return f"struct<{','.join(members)}>"
    if kind.startswith("MAP("):
        # One type, a comma, another: as the members of a STRUCT without their names.
        key, value = (rest for _, rest in members_of(named(kind[4:-1])))
        return f"map<{catalogue_type(key)},{catalogue_type(value)}>"
    if kind.startswith("DECIMAL("):
        return kind.lower().replace(" ", "")
    if kind.startswith("TIMESTAMP"):
        return "timestamp"
    return PLAIN.get(kind, "string")


def parts(text):
    found, depth, start, inside = [], 0, 0, False
    for index, character in enumerate(text):
        if character == '"':
            inside = not inside
        elif not inside and character in "([":
            depth += 1
        elif not inside and character in ")]":
            depth -= 1
        elif not inside and character == "," and depth == 0:
            found.append(text[start:index].strip())
            start = index + 1
    return [*found, text[start:].strip()]


def quoted_members(text):
    """The members of a STRUCT with all of their names in quotes."""
    each = (one if one.startswith('"') else re.sub(r"^(\S+)", r'"\1"', one) for one in parts(text))
    return ", ".join(each)


def named(text):
    return ", ".join(f'"x" {one}' for one in parts(text))


def describe(connection, kind, root):
    """Columns of the files below a folder; of delimited text also how it is written."""
    files = files_of(root)
    if not files:
        raise QueryError("NO_FILES", "There are no files to look at")
    found = {}
    if kind == "csv":
        sniffed = connection.execute(
            f"SELECT Delimiter, Quote, Escape, SkipRows, HasHeader, Columns FROM sniff_csv({literal(files[0])})"
        ).fetchone()
        delimiter, quote, escape, skipped, header, listed = sniffed
        columns = [(one["name"], one["type"]) for one in listed]
        found = {"delimiter": delimiter, "skip_lines": int(skipped) + int(bool(header))}
    else:
        reader = "read_parquet({}, union_by_name = true, hive_partitioning = false)"
        if kind == "json":
            reader = "read_json_auto({}, format = 'newline_delimited', union_by_name = true, hive_partitioning = false)"
        described = connection.execute("DESCRIBE SELECT * FROM " + reader.format(file_list(files))).fetchall()
        columns = [(row[0], row[1]) for row in described]
    found["columns"] = [{"Name": name.lower(), "Type": catalogue_type(kind)} for name, kind in columns]
    return found
