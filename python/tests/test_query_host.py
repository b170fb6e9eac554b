"""The host of queries: what it makes of queries, tables and results. Needs DuckDB and sqlglot."""

import gzip
import json
import os
import sys
import tempfile
import unittest

try:
    import duckdb
    import sqlglot  # noqa: F401
except ImportError:
    duckdb = None

HOST = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "query_host")

if duckdb is not None:
    sys.path.insert(0, HOST)
    import description
    import functions
    import results
    import tables
    import translate
    from errors import QueryError


def columns(**types):
    return [{"name": name, "type": kind} for name, kind in types.items()]


TABLE = {
    "database": "db",
    "name": "t",
    "columns": columns(a="INTEGER", b="INTEGER", ts="TIMESTAMP", arr="INTEGER[]", c="VARCHAR", m="MAP(VARCHAR, INTEGER)"),
    "partition_keys": [],
}
ROW = "7 AS a, 2 AS b, TIMESTAMP '2024-01-15 10:11:12' AS ts, [1, 2, 3] AS arr, 'x,y' AS c, MAP {'k': 1} AS m"


@unittest.skipIf(duckdb is None, "DuckDB and sqlglot are not installed")
class Queries(unittest.TestCase):
    def value(self, expression, dialect="athena"):
        connection = duckdb.connect(config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})
        connection.execute("SET TimeZone = 'UTC'")
        functions.define(connection, dialect)
        connection.execute(f"CREATE SCHEMA db; CREATE TABLE db.t AS SELECT {ROW}")
        query = f"SELECT {expression} AS r FROM t"
        translation = translate.translate(query, dialect, "db", {("db", "t"): TABLE})
        return connection.execute(f"SELECT CAST(r AS VARCHAR) FROM ({translation.sql})").fetchall()[0][0]

    def problem(self, query, dialect="athena"):
        with self.assertRaises(QueryError) as raised:
            translate.translate(query, dialect, "db", {("db", "t"): TABLE})
        return raised.exception

    def test_functions_of_trino(self):
        for expression, expected in {
            "a / b": "3",
            "a / 2.0": "3.5",
            "date_trunc('month', ts)": "2024-01-01 00:00:00",
            "from_iso8601_timestamp('2024-01-15T10:11:12Z')": "2024-01-15 10:11:12+00",
            "approx_distinct(a)": "1",
            "element_at(arr, 1)": "1",
            "element_at(arr, 9)": None,
            "element_at(m, 'z')": None,
            "date_diff('month', ts, timestamp '2024-02-14 00:00:00')": "0",
            "date_add('day', 1, ts)": "2024-01-16 10:11:12",
            "date_parse('2024-01-02', '%Y-%m-%d')": "2024-01-02 00:00:00",
            "format_datetime(ts, 'yyyy-MM-dd''T''HH')": "2024-01-15T10",
            "parse_datetime('2024-01', 'yyyy-MM')": "2024-01-01 00:00:00",
            "reduce(arr, 0, (s, x) -> s + x, s -> s * 10)": "60",
            "any_match(arr, x -> x > 2)": "true",
            "none_match(arr, x -> x > 2)": "false",
            "cardinality(m)": "1",
            "cardinality(arr)": "3",
            "format('%d', a)": "7",
            "json_extract_scalar('{\"a\": [5]}', '$.a[0]')": "5",
            "regexp_extract(c, '(x),(y)', 2)": "y",
            "try(cast(c as integer))": None,
            "array_join(transform(arr, x -> x + 1), '-')": "2-3-4",
            "to_hex(md5(to_utf8('a')))": "0CC175B9C0F1B6A831C399E269772661",
            "url_extract_host('https://u@example.com:1/p?q')": "example.com",
        }.items():
            with self.subTest(expression):
                self.assertEqual(self.value(expression), expected)

    def test_unnest_of_several_arrays_maps_and_rows(self):
        connection = duckdb.connect()
        connection.execute(f"CREATE SCHEMA db; CREATE TABLE db.t AS SELECT {ROW}")
        for source, expected in (
            ("UNNEST(arr, ARRAY[9]) AS u(x, y)", [(1, 9), (2, None), (3, None)]),
            ("UNNEST(m) AS u(x, y)", [("k", 1)]),
            ("UNNEST(ARRAY[CAST(ROW(1, 2) AS ROW(p INTEGER, q INTEGER))]) AS u(x, y)", [(1, 2)]),
        ):
            query = f"SELECT x, y FROM t CROSS JOIN {source} ORDER BY x"
            sql = translate.translate(query, "athena", "db", {("db", "t"): TABLE}).sql
            self.assertEqual(connection.execute(sql).fetchall(), expected)

    def test_words_of_redshift(self):
        self.assertEqual(self.value("NVL(c, 'z')", "redshift"), "x,y")
        self.assertEqual(self.value("DATEDIFF(month, ts, '2024-02-14'::timestamp)", "redshift"), "1")
        for name in ("db.public.t", "public.t", "db.t", "t"):
            translation = translate.translate(f"SELECT TOP 1 COUNT(*) FROM {name}", "redshift", "db", {("db", "t"): TABLE})
            self.assertEqual(list(translation.tables), [("db", "t")])
            self.assertEqual(list(translation.unnamed.values()), ["count"])

    def test_a_query_reads_tables_alone(self):
        for query in (
            "SELECT * FROM read_csv('/etc/passwd')",
            "SELECT * FROM t, read_text('/etc/passwd')",
            "SELECT * FROM '/etc/passwd'",
            'SELECT * FROM "/etc/passwd"',
            "SELECT * FROM glob('/*')",
            "SELECT * FROM (SELECT * FROM query('select 1'))",
            "SELECT getenv('HOME') FROM t",
            "SELECT current_setting('threads')",
            "SELECT * FROM information_schema.tables",
            "SELECT * FROM other.main.t",
            "COPY t TO '/tmp/x'",
            "ATTACH '/tmp/x'",
            "INSTALL httpfs",
            "PRAGMA database_list",
            "SET threads = 1",
            "CREATE TABLE x AS SELECT 1",
            "INSERT INTO t SELECT 1",
            "DROP TABLE t",
            "SELECT 1; SELECT 2",
            "",
        ):
            with self.subTest(query):
                self.problem(query)

    def test_a_locked_engine_opens_no_other_file(self):
        import query_host

        with tempfile.TemporaryDirectory() as folder:
            os.mkdir(os.path.join(folder, "output"))
            connection = query_host.connect({"memory_bytes": 1 << 30, "threads": 1}, folder)
            query_host.lock(connection, folder)
            for statement in (
                "SELECT * FROM read_csv('/etc/passwd')",
                "SELECT * FROM read_text('/etc/hostname')",
                "COPY (SELECT 1) TO '/tmp/modelyard-never.csv'",
                "ATTACH '/tmp/modelyard-never.db'",
                "INSTALL httpfs",
                "LOAD httpfs",
                "SET enable_external_access = true",
            ):
                with self.subTest(statement), self.assertRaises(duckdb.Error):
                    connection.execute(statement)
            connection.execute(f"COPY (SELECT 1) TO '{folder}/output/x.csv'")

    def test_problems_have_their_place(self):
        problem = self.problem("SELECT a\nFROM db.nope")
        self.assertEqual((problem.code, problem.line, problem.column), ("TABLE_NOT_FOUND", 2, 6))
        query = "SELECT a,\n  nope FROM t"
        connection = duckdb.connect()
        connection.execute(f"CREATE SCHEMA db; CREATE TABLE db.t AS SELECT {ROW}")
        translation = translate.translate(query, "athena", "db", {("db", "t"): TABLE})
        with self.assertRaises(duckdb.Error) as raised:
            connection.execute(translation.sql)
        problem = translate.of_engine(raised.exception, query, "athena")
        self.assertEqual((problem.code, problem.line, problem.column), ("COLUMN_NOT_FOUND", 2, 3))
        refused = dict(TABLE, refusal="its SerDe is odd")
        with self.assertRaises(QueryError) as raised:
            translate.translate("SELECT a FROM t", "athena", "db", {("db", "t"): refused})
        self.assertIn("its SerDe is odd", raised.exception.message)


@unittest.skipIf(duckdb is None, "DuckDB and sqlglot are not installed")
class Files(unittest.TestCase):
    def rows(self, files, **table):
        with tempfile.TemporaryDirectory() as root:
            for name, content in files.items():
                path = os.path.join(root, "0", name)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as file:
                    file.write(content)
            connection = duckdb.connect()
            table = {"database": "db", "name": "t", "folder": "0", "partition_keys": [], **table}
            tables.create(connection, table, root)
            return connection.execute("SELECT * FROM db.t ORDER BY 1").fetchall()

    def test_delimited_text(self):
        lazy = {"kind": "csv", "delimiter": "|", "quote": None, "escape": None, "null": "\\N", "skip_lines": 1}
        found = self.rows(
            {"a.csv": b"h1|h2|h3\n1|x y|2.5\n2||\n3|\\N|1|more\n4\n"},
            columns=columns(a="INTEGER", b="VARCHAR", c="DOUBLE"), format=lazy,
        )
        self.assertEqual(found, [(1, "x y", 2.5), (2, "", None), (3, None, 1.0), (4, None, None)])

    def test_quoted_text_with_either_escape(self):
        quoted = {"kind": "csv", "delimiter": ",", "quote": '"', "escape": "\\", "null": None, "skip_lines": 0, "numeric_times": True}
        for text in (b'1,"a ""q"", b",1700000000000\n2,"two\nlines",\n', b'1,"a \\"q\\", b",1700000000000\n2,"two\nlines",\n'):
            found = self.rows({"a.csv": text}, columns=columns(a="INTEGER", b="VARCHAR", c="TIMESTAMP"), format=quoted)
            self.assertEqual([row[1] for row in found], ['a "q", b', "two\nlines"])
            self.assertEqual((found[0][2].year, found[1][2]), (2023, None))

    def test_partitions_become_columns(self):
        quoted = {"kind": "csv", "delimiter": ",", "quote": '"', "escape": "\\", "null": None, "skip_lines": 0}
        found = self.rows(
            {"d=2024-01-01/s=a%2Fb/x.csv": b"1\n", "d=2024-01-02/s=c/y.csv.gz": gzip.compress(b"2\n")},
            columns=columns(a="INTEGER"), partition_keys=columns(d="DATE", s="VARCHAR"), format=quoted,
        )
        self.assertEqual([(str(row[1]), row[2]) for row in found], [("2024-01-01", "a/b"), ("2024-01-02", "c")])

    def test_json_whatever_the_capitals(self):
        text = b'{"UserId": 1, "tags": ["a"], "n": {"x": 1, "y": "q"}, "@at": "2024-01-01"}\n{"userid": 2, "n": null}\n'
        found = self.rows(
            {"a.json": text},
            columns=columns(userid="BIGINT", tags="VARCHAR[]", n='STRUCT("x" INTEGER, "y" VARCHAR)', at="DATE"),
            format={"kind": "json", "ignore_malformed": False, "mapping": {"at": "@at"}},
        )
        self.assertEqual(found[0][:3], (1, ["a"], {"x": 1, "y": "q"}))
        self.assertEqual((str(found[0][3]), found[1]), ("2024-01-01", (2, None, None, None)))

    def test_files_describe_themselves(self):
        connection = duckdb.connect()
        for kind, files, expected in (
            ("csv", {"a.csv": b"Id;at;name\n1;2024-01-01;x\n2;2024-01-02;y\n"}, [("id", "bigint"), ("at", "date"), ("name", "string")]),
            (
                "json",
                {"a.json": b'{"N": 1.5, "tags": ["a"], "o": {"p": 1, "q q": "x"}}\n'},
                [("n", "double"), ("tags", "array<string>"), ("o", "struct<p:bigint,q q:string>")],
            ),
        ):
            with tempfile.TemporaryDirectory() as root:
                for name, content in files.items():
                    with open(os.path.join(root, name), "wb") as file:
                        file.write(content)
                found = description.describe(connection, kind, root)
            self.assertEqual([(one["Name"], one["Type"]) for one in found["columns"]], expected)
            if kind == "csv":
                self.assertEqual((found["delimiter"], found["skip_lines"]), (";", 1))
        self.assertEqual(description.catalogue_type("MAP(VARCHAR, DECIMAL(10,2)[])"), "map<string,array<decimal(10,2)>>")
        self.assertEqual(description.catalogue_type("STRUCT(a INTEGER, b MAP(VARCHAR, BIGINT))"), "struct<a:int,b:map<string,bigint>>")

    def test_results_of_every_form(self):
        connection = duckdb.connect()
        sql = "SELECT 1 AS a, 'x' AS __unnamed_1, CAST(3 AS HUGEINT) AS h"
        with tempfile.TemporaryDirectory() as folder:
            for form, compression, ending in (
                ("PARQUET", "ZSTD", ".parquet"), ("JSON", "GZIP", ".json.gz"), ("TEXTFILE", None, ".txt"),
                ("CSV", "BZIP2", ".csv.bz2"), ("CSV", "ZSTD", ".csv.zst"),
            ):
                into = os.path.join(folder, form + str(compression))
                output = {"format": form, "compression": compression}
                rows, found = results.write(connection, sql, {"__unnamed_1": None}, output, into, 1)
                self.assertEqual((rows, os.listdir(into)), (1, ["part-00000" + ending]))
                self.assertEqual([one["name"] for one in found], ["a", "_col1", "h"])
                self.assertEqual(found[2]["type"], "BIGINT")
            with gzip.open(os.path.join(folder, "JSONGZIP", "part-00000.json.gz")) as file:
                self.assertEqual(json.load(file), {"a": 1, "_col1": "x", "h": 3})
            with open(os.path.join(folder, "TEXTFILENone", "part-00000.txt")) as file:
                self.assertEqual(file.read(), "1\x01x\x013\n")
            results.write(connection, "SELECT * FROM range(5) AS r(n)", {}, {"format": "CSV"}, os.path.join(folder, "three"), 3)
            self.assertEqual(len(os.listdir(os.path.join(folder, "three"))), 3)
            for odd in ("SELECT 1 AS a, 2 AS A", "SELECT INTERVAL 1 DAY AS i", "SELECT [1] AS l"):
                with self.assertRaises(QueryError):
                    results.write(connection, odd, {}, {"format": "CSV"}, os.path.join(folder, "odd"), 1)


if __name__ == "__main__":
    unittest.main()
