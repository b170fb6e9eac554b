"""From a query in the words of Athena or Redshift to one statement of DuckDB that reads the tables of the catalogue alone."""

import re

import sqlglot
from sqlglot import exp
from sqlglot.errors import ErrorLevel, ParseError, SqlglotError, TokenError, UnsupportedError
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.scope import traverse_scope

import functions
from errors import QueryError

CATALOGUE = "awsdatacatalog"
# The schema that every database of Redshift has.
PUBLIC = "public"
DIALECTS = {"athena": "athena", "redshift": "redshift"}


class Translation:
    """One statement, the tables that it reads, and the names of its columns where the query gives none."""

    def __init__(self, sql, tables, unnamed):
        self.sql = sql
        self.tables = tables
        self.unnamed = unnamed


def translate(query, dialect, database, tables):
    """Reads the query; `tables` are those of the catalogue by (database, name), each with columns and perhaps a refusal."""
    statement = parse(query, DIALECTS[dialect])
    used = resolve(statement, dialect, database, tables)
    unnamed = name_columns(statement, dialect)
    if dialect == "athena":
        functions.refuse_unknown(statement)
        statement = statement.transform(functions.to_duckdb)
    statement = with_types(statement, used).transform(functions.of_types)
    try:
        sql = statement.sql("duckdb", unsupported_level=ErrorLevel.RAISE)
    except UnsupportedError as error:
        raise QueryError("NOT_SUPPORTED", f"The local engine cannot do this yet: {error}") from error
    return Translation(sql, used, unnamed)


def parse(query, dialect):
    """The one statement of a text."""
    try:
        statements = [one for one in sqlglot.parse(query, dialect=dialect) if one is not None]
    except ParseError as error:
        first = (error.errors or [{}])[0]
        found = first.get("highlight")
        text = first.get("description") or str(error)
        text = text.rstrip(". ") + (f" at {found!r}" if found else "")
        raise QueryError("SYNTAX_ERROR", text, first.get("line"), first.get("col")) from error
    except TokenError as error:
        raise QueryError("SYNTAX_ERROR", str(error).splitlines()[0]) from error
    except SqlglotError as error:
        raise QueryError("SYNTAX_ERROR", str(error)) from error
    if len(statements) != 1:
        raise QueryError("SYNTAX_ERROR", f"Only one SQL statement is allowed; this text has {len(statements)}.")
    statement = statements[0]
    if not isinstance(statement, exp.Query):
        word = query.split(None, 1)[0].upper() if query.split() else "nothing"
        raise QueryError("NOT_SUPPORTED", f"A data set is the result of SELECT; {word} is not done here.", 1, 1)
    forbidden = statement.find(exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Create, exp.Drop, exp.Command, exp.Into)
    if forbidden is not None:
        raise QueryError("NOT_SUPPORTED", f"{forbidden.key.upper()} within a query is not done here.", *place(forbidden))
    return statement


def place(node):
    """Line and column of a node, as far as the parser noted them."""
    found = []
    for one in node.walk():
        meta = one.meta
        if meta.get("line") is not None and meta.get("col") is not None:
            # The parser notes the end of a word.
            quotes = 2 if one.args.get("quoted") else 0
            name = one.name if isinstance(one, exp.Identifier) else ""
            found.append((meta["line"], max(1, meta["col"] - max(len(name), 1) + 1 - quotes)))
    if found:
        return min(found)
    return None, None


def resolve(statement, dialect, database, tables):
    """Finds what each FROM names; everything but tables of the catalogue is refused."""
    used = {}
    named = set()
    for scope in traverse_scope(statement):
        for source in scope.sources.values():
            if isinstance(source, exp.Table):
                named.add(id(source))
    for table in list(statement.find_all(exp.Table)):
        if not isinstance(table.this, exp.Identifier):
            what = table.this.sql("duckdb").split("(", 1)[0] if table.this is not None else "this"
            raise QueryError("FUNCTION_NOT_FOUND", f"Table function {what} is not registered: a query reads tables alone", *place(table))
        if id(table) not in named:
            if is_common_table(table):
                continue
        owner = owner_of(table, dialect, database)
        name = table.name.lower()
        if dialect == "athena" and table.catalog and table.catalog.lower() != CATALOGUE:
            raise QueryError("CATALOG_NOT_FOUND", f"Catalog '{table.catalog}' not found: there is only AwsDataCatalog", *place(table))
        if not owner:
            raise QueryError("MISSING_SCHEMA_NAME", f"Table {name!r} needs a database: give Database", *place(table))
        found = tables.get((owner, name))
        if found is None:
            text = f"Table '{CATALOGUE}.{owner}.{name}' does not exist"
            raise QueryError("TABLE_NOT_FOUND", text, *place(table))
        if found.get("refusal"):
            raise QueryError("NOT_SUPPORTED", f"Table {owner}.{name}: {found['refusal']}", *place(table))
        used[(owner, name)] = found
        alias = table.alias or table.name
        table.set("this", exp.to_identifier(name, quoted=True))
        table.set("db", exp.to_identifier(owner, quoted=True))
        table.set("catalog", None)
        if not table.args.get("alias"):
            table.set("alias", exp.TableAlias(this=exp.to_identifier(alias)))
    for column in statement.find_all(exp.Column):
        # With tables under aliases of their own, longer names say no more than the last part.
        if column.args.get("db") is not None:
            column.set("catalog", None)
            column.set("db", None)
    return used


def owner_of(table, dialect, database):
    """The database of a table: of Redshift's names it is the first of three parts, and schemas are those of the catalogue."""
    if dialect == "redshift" and table.catalog:
        return table.catalog.lower()
    if dialect == "redshift" and table.db.lower() == PUBLIC:
        return (database or "").lower()
    return (table.db or database or "").lower()


def is_common_table(table):
    """Whether a name is one that WITH gives."""
    if table.args.get("db") is not None:
        return False
    node = table.parent
    while node is not None:
        with_ = node.args.get("with_") or node.args.get("with")
        if with_ is not None and any(one.alias.lower() == table.name.lower() for one in with_.expressions):
            return True
        node = node.parent
    return False


def name_columns(statement, dialect):
    """Gives columns without a name one that is known again, with what the service calls them; Athena by their position."""
    unnamed = {}
    select = statement
    while not isinstance(select, exp.Select):
        select = select.this if isinstance(select, (exp.SetOperation, exp.Subquery)) else None
        if select is None:
            return unnamed
    for index, one in enumerate(list(select.expressions)):
        if not isinstance(one, (exp.Alias, exp.Column, exp.Dot, exp.Identifier, exp.Star)):
            name = f"__unnamed_{index}"
            one.replace(exp.alias_(one.copy(), name, quoted=True))
            unnamed[name] = None if dialect == "athena" else redshift_name(one)
    return unnamed


def redshift_name(column):
    while isinstance(column, (exp.Cast, exp.Paren, exp.Window)):
        column = column.this
    if isinstance(column, (exp.Column, exp.Anonymous)):
        return column.name.lower()
    return column.sql_name().lower() if isinstance(column, exp.Func) else "?column?"


def with_types(statement, used):
    """Gives operators the types of the tables' columns: a division of integers is one. What cannot be told is left to the engine."""
    schema = {}
    for (owner, name), table in used.items():
        columns = {column["name"]: column["type"] for column in table["columns"] + table["partition_keys"]}
        schema.setdefault(owner, {})[name] = columns
    try:
        qualified = qualify(
            statement.copy(), schema=schema, dialect="duckdb", validate_qualify_columns=False, quote_identifiers=False,
            identify=False,
        )
        return annotate_types(qualified, schema=schema, dialect="duckdb")
    except (SqlglotError, KeyError, ValueError):
        return statement


def of_engine(error, query, dialect):
    """An error of the engine, with the place of the name that it is about in the text of the user."""
    text = str(error)
    head, _, rest = text.partition(":")
    sentence = (rest or head).strip().split("\n\nLINE", 1)[0].split("\nLINE", 1)[0].strip()
    sentence = sentence.replace("\n", " ")
    codes = [
        (r'Referenced column "([^"]+)" not found', "COLUMN_NOT_FOUND"),
        (r'Column "([^"]+)" referenced that exists in the SELECT', "COLUMN_NOT_FOUND"),
        (r'column named "([^"]+)"', "COLUMN_NOT_FOUND"),
        (r'Referenced table "([^"]+)" not found', "TABLE_NOT_FOUND"),
        (r"Function with name (\w+) does not exist", "FUNCTION_NOT_FOUND"),
        (r'Column "([^"]+)" must appear in the GROUP BY', "EXPRESSION_NOT_AGGREGATE"),
        (r'column "([^"]+)" must appear in the GROUP BY', "EXPRESSION_NOT_AGGREGATE"),
        (r"[Pp]ermission", "PERMISSION_DENIED"),
        (r"[Cc]annot be invoked|No function matches", "FUNCTION_NOT_FOUND"),
        (r"could not be converted|Could not convert|[Cc]onversion", "INVALID_CAST_ARGUMENT"),
        (r"CSV Error|[Mm]alformed|Invalid Input Error.*(CSV|JSON|Parquet)", "HIVE_BAD_DATA"),
        (r"[Oo]ut of [Mm]emory", "EXCEEDED_LOCAL_MEMORY_LIMIT"),
    ]
    for pattern, code in codes:
        found = re.search(pattern, text)
        if found:
            name = found.group(1) if found.groups() else None
            if code == "COLUMN_NOT_FOUND":
                sentence = f"Column '{name}' cannot be resolved"
            return QueryError(code, sentence, *find(query, dialect, name))
    word = "SYNTAX_ERROR" if "Parser" in head or "Binder" in head else "GENERIC_USER_ERROR"
    return QueryError(word, sentence)


def find(query, dialect, name):
    """Where a name stands first in the query."""
    if not name:
        return None, None
    try:
        tokens = sqlglot.tokenize(query, dialect=DIALECTS[dialect])
    except SqlglotError:
        return None, None
    for token in tokens:
        if token.text.lower() == name.lower():
            # The parser notes the end of a token.
            quotes = token.end - token.start + 1 - len(token.text)
            return token.line, max(1, token.col - len(token.text) - quotes + 1)
    return None, None
