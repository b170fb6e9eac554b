"""Functions of Trino that DuckDB lacks, or has with another meaning."""

from sqlglot import exp

from errors import QueryError

# What can be said as an expression of what DuckDB has.
MACROS = {
    "array_except(a, b)": "list_distinct(list_filter(a, lambda one: NOT list_contains(b, one)))",
    "array_intersect(a, b)": "list_distinct(list_intersect(a, b))",
    "array_position(a, x)": "coalesce(list_position(a, x), 0)",
    "array_remove(a, x)": "list_filter(a, lambda one: one <> x)",
    "array_union(a, b)": "list_distinct(list_concat(a, b))",
    "arrays_overlap(a, b)": "list_has_any(a, b)",
    "at_timezone(ts, zone)": "timezone(zone, ts)",
    "bitwise_and(a, b)": "a & b",
    "bitwise_left_shift(a, n)": "a << n",
    "bitwise_not(a)": "~a",
    "bitwise_or(a, b)": "a | b",
    "bitwise_right_shift(a, n)": "a >> n",
    "bitwise_xor(a, b)": "xor(a, b)",
    "codepoint(x)": "ascii(x)",
    "day_of_month(x)": "day(x)",
    "day_of_year(x)": "dayofyear(x)",
    "dow(x)": "isodow(x)",
    "doy(x)": "dayofyear(x)",
    "e()": "exp(1)",
    "from_iso8601_date(x)": "CAST(x AS DATE)",
    "hamming_distance(a, b)": "hamming(a, b)",
    "infinity()": "CAST('Infinity' AS DOUBLE)",
    "is_finite(x)": "isfinite(x)",
    "is_infinite(x)": "isinf(x)",
    "is_nan(x)": "isnan(x)",
    "json_size(j, p)": "CASE json_type(j, p) WHEN 'ARRAY' THEN json_array_length(j, p) WHEN 'OBJECT' THEN len(json_keys(j, p)) ELSE 0 END",
    "map_agg(k, v)": "map_from_entries(list({'k': k, 'v': v}))",
    "nan()": "CAST('NaN' AS DOUBLE)",
    "normalize(x)": "nfc_normalize(x)",
    "regexp_count(x, p)": "len(regexp_extract_all(x, p))",
    "to_milliseconds(i)": "CAST(epoch(i) * 1000 AS BIGINT)",
    "url_extract_host(url)": "nullif(regexp_extract(url, '^[a-zA-Z][a-zA-Z0-9+.-]*://(?:[^/?#@]*@)?([^/?#:]*)', 1), '')",
    "url_extract_path(url)": "regexp_extract(url, '^[a-zA-Z][a-zA-Z0-9+.-]*://[^/?#]*([^?#]*)', 1)",
    "url_extract_protocol(url)": "nullif(regexp_extract(url, '^([a-zA-Z][a-zA-Z0-9+.-]*)://', 1), '')",
    "url_extract_query(url)": "nullif(regexp_extract(url, '[?]([^#]*)', 1), '')",
    "with_timezone(ts, zone)": "timezone(zone, ts)",
    "yow(x)": "isoyear(x)",
    "year_of_week(x)": "isoyear(x)",
}

# Names that DuckDB gives to something else, or whose arguments mean something else there.
REFUSED = {
    "json_exists": "take json_extract with IS NOT NULL",
    "json_query": "take json_extract",
    "json_value": "take json_extract_scalar",
    "json_table": "take json_extract and UNNEST",
    "current_setting": "a query reads tables alone",
    "getenv": "a query reads tables alone",
    "getvariable": "a query reads tables alone",
    "nextval": "a query reads tables alone",
}

# Patterns of Joda, as format_datetime has them, in the words of strftime; longer ones first.
JODA = [
    ("yyyy", "%Y"), ("YYYY", "%Y"), ("yy", "%y"), ("MMMM", "%B"), ("MMM", "%b"), ("MM", "%m"), ("dd", "%d"), ("HH", "%H"), ("hh", "%I"),
    ("mm", "%M"), ("ss", "%S"), ("SSS", "%g"), ("EEEE", "%A"), ("EEE", "%a"), ("a", "%p"), ("ZZ", "%z"), ("Z", "%z"), ("DDD", "%j"),
]


ARRAYS = (exp.DataType.Type.ARRAY, exp.DataType.Type.LIST)


def define(connection, dialect):
    """Makes the functions known to the engine."""
    if dialect != "athena":
        return
    for head, body in MACROS.items():
        connection.execute(f"CREATE MACRO {head} AS {body}")


def refuse_unknown(statement):
    """Refuses what would run and mean something else."""
    for node in statement.find_all(exp.Func):
        name = (node.name if isinstance(node, exp.Anonymous) else node.sql_name()).lower()
        if name in REFUSED:
            raise QueryError("FUNCTION_NOT_FOUND", f"Function '{name}' is not done here: {REFUSED[name]}")


def call(name, *arguments):
    return exp.Anonymous(this=name, expressions=[one.copy() for one in arguments])


def to_duckdb(node):
    """One expression of Trino whose translation would mean something else."""
    if isinstance(node, exp.DateDiff):
        # Trino counts whole units, DuckDB's date_diff the borders between them.
        unit = exp.Literal.string(str(node.args.get("unit") or "day").lower().strip("'"))
        return call("DATE_SUB", unit, node.expression, node.this)
    if isinstance(node, exp.Reduce) and node.args.get("finish") is not None:
        return reduced(node)
    if isinstance(node, exp.ParseDatetime):
        return call("STRPTIME", node.this, joda(node.args.get("format")))
    if isinstance(node, exp.Format):
        return exp.Anonymous(this="PRINTF", expressions=[node.this.copy(), *(one.copy() for one in node.expressions)])
    if isinstance(node, exp.Anonymous):
        name, given = node.name.lower(), node.expressions
        if name == "format_datetime" and len(given) == 2:
            return call("STRFTIME", given[0], joda(given[1]))
        if name in ("any_match", "all_match", "none_match") and len(given) == 2:
            matching = exp.Anonymous(this="LEN", expressions=[call("LIST_FILTER", given[0], given[1])])
            if name == "any_match":
                return exp.Paren(this=exp.GT(this=matching, expression=exp.Literal.number(0)))
            wanted = exp.Literal.number(0) if name == "none_match" else call("LEN", given[0])
            return exp.Paren(this=exp.EQ(this=matching, expression=wanted))
    return node


def reduced(node):
    """reduce() with its last function, which DuckDB's has not."""
    finish = node.args["finish"]
    node.set("finish", None)
    parameters = finish.expressions if isinstance(finish, exp.Lambda) else []
    if len(parameters) == 1 and finish.this.sql() == parameters[0].sql():
        return node
    whole = exp.Transform(this=exp.Array(expressions=[node.copy()]), expression=finish.copy())
    return call("LIST_EXTRACT", whole, exp.Literal.number(1))


def joda(pattern):
    """A pattern of Joda as one of strftime."""
    if not isinstance(pattern, exp.Literal) or not pattern.is_string:
        raise QueryError("NOT_SUPPORTED", "The pattern of format_datetime and parse_datetime must be a literal here")
    rest, written = pattern.name, ""
    while rest:
        if rest[0] == "'":
            end = rest.find("'", 1)
            if end < 0:
                raise QueryError("INVALID_FUNCTION_ARGUMENT", f"The pattern {pattern.name!r} has a quote without an end")
            written += (rest[1:end] or "'").replace("%", "%%")
            rest = rest[end + 1 :]
            continue
        word = rest[: len(rest) - len(rest.lstrip(rest[0]))]
        known = dict(JODA).get(word)
        if known is None and word[0].isalpha():
            raise QueryError("NOT_SUPPORTED", f"{word!r} in the pattern {pattern.name!r} is not done here")
        written += known or word.replace("%", "%%")
        rest = rest[len(word) :]
    return exp.Literal.string(written)


def of_types(node):
    """What depends on the type of an argument."""
    if isinstance(node, exp.ArraySize) and node.this.type is not None and node.this.type.this == exp.DataType.Type.MAP:
        return call("CARDINALITY", node.this)
    if isinstance(node, exp.Unnest):
        return unnested(node)
    return node


def unnested(node):
    """UNNEST of several arrays, of a map, or of rows: DuckDB's takes one array and gives one column."""
    alias = node.args.get("alias")
    names = alias.columns if alias is not None else []
    if node.args.get("offset") or not names:
        return node
    values = []
    for one in node.expressions:
        kind = one.type.this if one.type is not None else None
        element = one.type.expressions[0] if kind in ARRAYS and one.type.expressions else None
        if kind == exp.DataType.Type.MAP:
            values += [call("UNNEST", call("MAP_KEYS", one)), call("UNNEST", call("MAP_VALUES", one))]
        elif isinstance(element, exp.DataType) and element.this == exp.DataType.Type.STRUCT and len(names) > 1:
            members = [exp.Literal.string(member.name) for member in element.expressions]
            values += [call("STRUCT_EXTRACT", call("UNNEST", one), member) for member in members]
        else:
            values.append(call("UNNEST", one))
    if len(values) < 2 or len(values) != len(names):
        return node
    chosen = [exp.alias_(value, name.name, quoted=True) for value, name in zip(values, names)]
    return exp.Lateral(this=exp.Subquery(this=exp.select(*chosen)), alias=exp.TableAlias(this=alias.this.copy()))
