"""Tables of the Glue catalogue, and processing jobs whose inputs are results of queries over them."""

import gzip
import io
import json
import subprocess
import textwrap
import uuid

import boto3
import pytest
from botocore.exceptions import ClientError

from conftest import BASE_IMAGE, BINARY, ROOT, poll
from test_processing import Processing

DATABASE = "tables_shop"
CSV = "org.apache.hadoop.hive.serde2.OpenCSVSerde"
JSON = "org.openx.data.jsonserde.JsonSerDe"
PARQUET = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"
COPY_ALL = """
    import pathlib, shutil
    for path in sorted(pathlib.Path("/opt/ml/processing/rows").rglob("*")):
        if path.is_file():
            shutil.copy(path, "/opt/ml/processing/out/" + path.name)
"""


def columns(**types):
    return [{"Name": name, "Type": kind} for name, kind in types.items()]


def table(name, location, library, keys=(), serde=None, parameters=None, /, **types):
    return {
        "Name": name,
        "TableType": "EXTERNAL_TABLE",
        "Parameters": parameters or {},
        "PartitionKeys": list(keys),
        "StorageDescriptor": {
            "Location": location,
            "Columns": columns(**types),
            "SerdeInfo": {"SerializationLibrary": library, "Parameters": serde or {}},
        },
    }


class Shop:
    """A small catalogue and the jobs that read it."""

    def __init__(self, server, bucket, role):
        self.jobs = Processing(server, bucket, role)
        self.glue, self.s3, self.bucket, self.role = server.client("glue"), self.jobs.s3, bucket, role

    def put(self, key, body):
        self.s3.put_object(Bucket=self.bucket, Key=f"tables/{key}", Body=body)

    def start(self, name, query, form="JSON", count=1, seconds=300, database=DATABASE, script=COPY_ALL, **more):
        athena = {
            "Catalog": "AwsDataCatalog",
            "Database": database,
            "QueryString": query,
            "OutputS3Uri": f"s3://{self.bucket}/tables-results/{name}",
            "OutputFormat": form,
            **more.pop("athena", {}),
        }
        definition = {"LocalPath": "/opt/ml/processing/rows", "AthenaDatasetDefinition": athena, **more}
        rows = {"InputName": "rows", "DatasetDefinition": definition}
        output = self.jobs.output("out", f"s3://{self.bucket}/tables-out/{name}/")
        self.jobs.start(name, script, inputs=[rows], outputs=[output], count=count, seconds=seconds)

    def run(self, name, query, **more):
        self.start(name, query, **more)
        return self.jobs.wait(name)

    def rows(self, name, query, **more):
        job = self.run(name, query, **more)
        assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
        lines = []
        for key in self.jobs.keys(f"tables-out/{name}/"):
            lines += self.jobs.get(f"tables-out/{name}/{key}").decode().splitlines()
        return [json.loads(line) for line in lines]

    def reason(self, name, query, **more):
        job = self.run(name, query, **more)
        assert job["ProcessingJobStatus"] == "Failed", job
        return job["FailureReason"]


@pytest.fixture(scope="module")
def shop(server, bucket, role):
    shop = Shop(server, bucket, role)
    shop.glue.create_database(DatabaseInput={"Name": DATABASE})
    shop.put("orders/day=2024-01-31/a.csv", 'id,customer,amount,at\n1,7,"1,5",2024-01-31T10:00:00Z\n2,8,2,2024-01-31T11:00:00Z\n')
    shop.put("orders/day=2024-02-01/b.csv.gz", gzip.compress(b'id,customer,amount,at\n3,7,4,2024-02-01T00:00:00Z\n'))
    shop.put("orders/_SUCCESS", b"x")
    location = f"s3://{shop.bucket}/tables"
    shop.glue.create_table(
        DatabaseName=DATABASE,
        TableInput=table(
            "orders", f"{location}/orders/", CSV, columns(day="date"), {"separatorChar": ",", "quoteChar": '"'},
            {"skip.header.line.count": "1"}, id="int", customer="int", amount="string", at="string",
        ),
    )
    shop.put("customers/c.json", b'{"Id": 7, "name": "Ann", "tags": ["a", "b"]}\n{"id": 8, "name": "Bob", "tags": null}\n')
    shop.glue.create_table(
        DatabaseName=DATABASE,
        TableInput=table("customers", f"{location}/customers", JSON, id="int", name="string", tags="array<string>"),
    )
    # A Parquet table, written by a query of the engine's own.
    job = shop.run("tables-parquet", "SELECT id, customer * 10 AS score FROM orders", form="PARQUET")
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    shop.glue.create_table(
        DatabaseName=DATABASE,
        TableInput=table("scores", f"s3://{shop.bucket}/tables-out/tables-parquet/", PARQUET, id="bigint", score="int"),
    )
    return shop


def test_a_query_joins_tables_of_all_kinds(shop):
    query = """
        SELECT o.day, c.name, element_at(c.tags, 1) AS tag, date_trunc('month', from_iso8601_timestamp(o.at)) AS month,
               s.score, o.id / 2 AS half, o.amount
        FROM orders o JOIN customers c ON c.id = o.customer JOIN AwsDataCatalog.tables_shop.scores s ON s.id = o.id
        ORDER BY o.id
    """
    rows = shop.rows("tables-join", query)
    assert [row["half"] for row in rows] == [0, 1, 1], "integers are divided as integers"
    assert rows[0] == {
        "day": "2024-01-31", "name": "Ann", "tag": "a", "month": "2024-01-01 00:00:00", "score": 70, "half": 0, "amount": "1,5",
    }
    assert rows[1]["name"] == "Bob" and rows[1].get("tag") is None
    counted = shop.rows("tables-count", "SELECT count(*), approx_distinct(customer) AS d FROM orders WHERE day = DATE '2024-01-31'")
    assert counted == [{"_col0": 2, "d": 2}]
    lines = shop.jobs.lines("tables-join")
    assert any("stands for Athena" in line for line in lines) and any("3 rows in 1 files" in line for line in lines), lines
    configured = shop.jobs.describe("tables-join")["ProcessingInputs"][1]["DatasetDefinition"]
    assert configured["AthenaDatasetDefinition"]["Database"] == DATABASE


def test_registered_partitions_and_hosts_share_a_result(shop):
    glue = shop.glue
    shop.put("moved/x/1.csv", "5,five\n")
    shop.put("moved/y/1.csv", "6,six\n")
    moved = table(
        "moved", f"s3://{shop.bucket}/tables/moved/", CSV, columns(part="string"), id="int", word="string"
    )
    glue.create_table(DatabaseName=DATABASE, TableInput=moved)
    def partition(folder):
        storage = {**moved["StorageDescriptor"], "Location": f"s3://{shop.bucket}/tables/moved/{folder}"}
        return {"Values": [f"p/{folder}"], "StorageDescriptor": storage}

    glue.create_partition(DatabaseName=DATABASE, TableName="moved", PartitionInput=partition("x"))
    answer = glue.batch_create_partition(
        DatabaseName=DATABASE, TableName="moved", PartitionInputList=[partition("x"), partition("y")]
    )
    assert [one["ErrorDetail"]["ErrorCode"] for one in answer["Errors"]] == ["AlreadyExistsException"]
    listed = glue.get_partitions(DatabaseName=DATABASE, TableName="moved", Expression="part = 'p/y'")["Partitions"]
    assert [one["Values"] for one in listed] == [["p/y"]]
    script = """
        import json, pathlib
        host = json.loads(pathlib.Path("/opt/ml/config/resourceconfig.json").read_text())["current_host"]
        text = "".join(path.read_text() for path in pathlib.Path("/opt/ml/processing/rows").rglob("*.json"))
        pathlib.Path("/opt/ml/processing/out", host).write_text(text)
    """
    rows = shop.rows(
        "tables-shared", "SELECT id, part FROM moved", count=2, script=script, DataDistributionType="ShardedByS3Key"
    )
    assert sorted((row["id"], row["part"]) for row in rows) == [(5, "p/x"), (6, "p/y")]
    assert shop.jobs.keys("tables-out/tables-shared/") == ["algo-1", "algo-2"]


def test_what_is_wrong_with_a_query_is_said_with_its_place(shop):
    reason = shop.reason("tables-wrong-column", "SELECT id,\n  nope\nFROM orders")
    assert reason == (
        "ClientError: the query of the input \"rows\" failed: COLUMN_NOT_FOUND: line 2:3: Column 'nope' cannot be resolved."
    )
    reason = shop.reason("tables-wrong-syntax", "SELEC id FROM orders")
    assert "SYNTAX_ERROR: line 1:" in reason, reason
    reason = shop.reason("tables-wrong-table", "SELECT * FROM nothere")
    assert "TABLE_NOT_FOUND: line 1:15: Table 'awsdatacatalog.tables_shop.nothere' does not exist" in reason
    reason = shop.reason("tables-wrong-database", "SELECT 1", database="tables_nothere")
    assert "SCHEMA_NOT_FOUND" in reason and "tables_nothere" in reason


@pytest.mark.parametrize(
    "name, query, said",
    [
        ("read", "SELECT * FROM read_csv('/etc/passwd')", "READ_CSV is not registered"),
        ("text", "SELECT * FROM orders, read_text('/run/query/request.json')", "READ_TEXT is not registered"),
        ("file", "SELECT * FROM '/etc/passwd'", "TABLE_NOT_FOUND"),
        ("copy", "COPY orders TO '/run/query/x'", "COPY is not done"),
        ("attach", "ATTACH '/tmp/x.db' AS x", "SYNTAX_ERROR"),
        ("install", "INSTALL httpfs", "INSTALL is not done"),
        ("two", "SELECT 1; SELECT 2", "Only one SQL statement"),
    ],
)
def test_a_query_reads_tables_alone(shop, name, query, said):
    assert said in shop.reason(f"tables-refused-{name}", query)


def test_a_table_of_another_account_is_not_there(server, shop):
    made = json.loads(server.command("accounts", "add", "222233334444", "--name", "tables", "--output", "json"))
    key, secret = made["AccessKeyId"], made["SecretAccessKey"]
    theirs = server.client("glue", key, secret)
    with pytest.raises(theirs.exceptions.EntityNotFoundException):
        theirs.get_table(DatabaseName=DATABASE, Name="orders")
    theirs.create_database(DatabaseInput={"Name": "tables_theirs"})
    theirs.create_table(
        DatabaseName="tables_theirs",
        TableInput=table("stolen", f"s3://{shop.bucket}/tables/customers/", JSON, id="int"),
    )
    reason = shop.reason("tables-theirs", "SELECT * FROM tables_theirs.stolen")
    assert "TABLE_NOT_FOUND" in reason, reason
    databases = {one["Name"] for one in shop.glue.get_databases()["DatabaseList"]}
    assert DATABASE in databases and "tables_theirs" not in databases


def test_the_catalogue_answers_in_the_codes_of_glue(shop):
    glue = shop.glue
    with pytest.raises(glue.exceptions.AlreadyExistsException):
        glue.create_database(DatabaseInput={"Name": DATABASE.upper()})
    with pytest.raises(glue.exceptions.EntityNotFoundException):
        glue.create_table(DatabaseName="tables_none", TableInput={"Name": "t"})
    with pytest.raises(glue.exceptions.InvalidInputException, match="Location"):
        glue.create_table(DatabaseName=DATABASE, TableInput=table("odd", "file:///etc", CSV, a="int"))
    assert glue.get_table(DatabaseName=DATABASE, Name="Orders")["Table"]["PartitionKeys"] == columns(day="date")
    names = [one["Name"] for one in glue.get_tables(DatabaseName=DATABASE, Expression="cust.*")["TableList"]]
    assert names == ["customers"]
    for name in ("tables_short",):
        glue.create_database(DatabaseInput={"Name": name})
        glue.create_table(DatabaseName=name, TableInput=table("t", "s3://b/p/", CSV, a="int"))
        glue.delete_database(Name=name)
        with pytest.raises(glue.exceptions.EntityNotFoundException):
            glue.get_table(DatabaseName=name, Name="t")


def test_a_table_that_cannot_be_read_is_named_by_the_query(shop):
    shop.glue.create_table(
        DatabaseName=DATABASE,
        TableInput=table("orc", f"s3://{shop.bucket}/tables/orders/", "org.apache.hadoop.hive.ql.io.orc.OrcSerde", a="int"),
    )
    reason = shop.reason("tables-orc", "SELECT * FROM orc")
    assert "Table tables_shop.orc" in reason and "OrcSerde is not read here" in reason, reason


@pytest.mark.parametrize(
    "change, named",
    [
        ({"Catalog": "other"}, "Catalog"),
        ({"WorkGroup": "mine"}, "WorkGroup"),
        ({"OutputFormat": "ORC"}, "OutputFormat: ORC"),
        ({"OutputCompression": "ZLIB"}, "OutputCompression: ZLIB"),
        ({"OutputS3Uri": "https://x/y"}, "OutputS3Uri: '?\"?https://x/y"),
    ],
)
def test_what_is_not_done_is_refused_by_name(shop, change, named):
    with pytest.raises(ClientError, match=named):
        shop.start("tables-refused", "SELECT 1", athena=change)


def test_the_sdk_defines_data_sets(server, shop):
    sagemaker = pytest.importorskip("sagemaker")
    inputs = pytest.importorskip("sagemaker.dataset_definition.inputs")
    from sagemaker.processing import ProcessingInput, ProcessingOutput, Processor

    session = sagemaker.Session(
        boto_session=boto3.Session(
            aws_access_key_id=server.connection["access_key_id"],
            aws_secret_access_key=server.connection["secret_access_key"],
            region_name="us-east-1",
        ),
        sagemaker_client=shop.jobs.sagemaker,
        default_bucket=shop.bucket,
    )
    script = shop.jobs.put("tables/code/copy.py", textwrap.dedent(COPY_ALL).encode())
    processor = Processor(
        shop.role, BASE_IMAGE, 1, "ml.t3.medium", entrypoint=["python3", "/opt/ml/processing/input/code/copy.py"],
        sagemaker_session=session,
    )
    redshift = inputs.RedshiftDatasetDefinition(
        cluster_id="my-cluster", database=DATABASE, db_user="reader", query_string="SELECT TOP 1 id, NVL(name, 'x') AS name FROM customers ORDER BY id",
        cluster_role_arn=shop.role, output_s3_uri=f"s3://{shop.bucket}/tables-results/sdk", output_format="CSV", output_compression="GZIP",
    )
    definition = inputs.DatasetDefinition(
        local_path="/opt/ml/processing/rows", data_distribution_type="FullyReplicated", input_mode="File",
        redshift_dataset_definition=redshift,
    )
    name = f"tables-sdk-{uuid.uuid4().hex[:6]}"
    processor.run(
        inputs=[
            ProcessingInput(source=script, destination="/opt/ml/processing/input/code", input_name="code"),
            ProcessingInput(input_name="rows", app_managed=False, dataset_definition=definition),
        ],
        outputs=[ProcessingOutput(source="/opt/ml/processing/out", destination=f"s3://{shop.bucket}/tables-out/{name}", output_name="out")],
        job_name=name, wait=False, logs=False,
    )
    job = shop.jobs.wait(name)
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    assert gzip.decompress(shop.jobs.get(f"tables-out/{name}/part-00000.csv.gz")) == b"7,Ann\n"
    assert any("Redshift cluster my-cluster" in line for line in shop.jobs.lines(name))


def test_a_long_query_ends_with_its_time_or_a_stop(server, shop):
    shop.put("numbers/n.json", "\n".join('{"n": %d}' % number for number in range(3000)))
    shop.glue.create_table(
        DatabaseName=DATABASE, TableInput=table("numbers", f"s3://{shop.bucket}/tables/numbers/", JSON, n="int")
    )
    endless = "SELECT sum(sqrt(a.n * b.n + c.n)) AS s FROM numbers a, numbers b, numbers c WHERE sin(a.n + b.n * c.n) > 2"
    shop.start("tables-stopped", endless)
    poll(lambda: [line for line in shop.jobs.lines("tables-stopped") if "reading the tables" in line], "the query runs")
    shop.jobs.sagemaker.stop_processing_job(ProcessingJobName="tables-stopped")
    assert shop.jobs.wait("tables-stopped")["ProcessingJobStatus"] == "Stopped"
    job = shop.run("tables-late", endless, seconds=3)
    assert job["ProcessingJobStatus"] == "Stopped", job
    assert not shop.jobs.keys("tables-results/tables-late/")
    left = lambda: [path for name in ("jobs", "workloads") for path in (server.data_dir / name).glob("job-query-*")]
    poll(lambda: not left(), "nothing is left of queries")


def test_the_command_adds_a_table_for_files(server, shop):
    shop.put("visits/year=2023/a.csv", "at;page;count\n2023-05-01;home;3\n")
    shop.put("visits/year=2024/b.csv", "at;page;count\n2024-05-01;about;5\n")
    said = server.command("tables", "add", "tables_added.visits", f"s3://{shop.bucket}/tables/visits")
    assert "count" in said and "bigint" in said and "partition key" in said, said
    query = "SELECT page, count, year FROM visits WHERE at >= DATE '2024-01-01'"
    assert shop.rows("tables-added", query, database="tables_added") == [{"page": "about", "count": 5, "year": 2024}]
    listed = server.command("tables")
    assert "tables_added.visits" in listed and "OpenCSVSerde" in listed, listed
    refused = subprocess.run(
        [BINARY, "tables", "add", "a.b", f"s3://{shop.bucket}/tables/nothing/", "--data-dir", server.data_dir], capture_output=True, text=True
    )
    assert refused.returncode == 1 and "there are no files below" in refused.stderr, refused.stderr


def test_the_host_of_queries_holds_its_own_tests(server, shop):
    """Its unit tests need the packages of the engine's environment, which the server has built by now."""
    found = [path for path in (server.data_dir / "environments").glob("*/bin/python") if list(path.parents[1].glob("lib*/*/site-packages/duckdb"))]
    done = subprocess.run(
        [found[0], "-m", "unittest", "discover", "-s", "python", "-t", "python", "-p", "test_query_host.py"],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )
    assert done.returncode == 0 and "skipped" not in done.stderr, done.stderr


def test_a_query_outlives_a_killed_server(own_server):
    server = own_server
    s3 = server.client("s3")
    s3.create_bucket(Bucket="tables-killed")
    role = server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    shop = Shop(server, "tables-killed", role)
    shop.glue.create_database(DatabaseInput={"Name": DATABASE})
    shop.put("numbers/n.json", "\n".join('{"n": %d}' % number for number in range(500)))
    shop.glue.create_table(
        DatabaseName=DATABASE, TableInput=table("numbers", "s3://tables-killed/tables/numbers/", JSON, n="int")
    )
    slow = "SELECT count(*) AS c FROM numbers a, numbers b, numbers c WHERE sin(a.n + b.n * c.n) > 2"
    shop.start("tables-killed", slow)
    poll(lambda: [line for line in shop.jobs.lines("tables-killed") if "reading the tables" in line], "the query runs")
    server.kill()
    server.start()
    shop = Shop(server, "tables-killed", role)
    job = shop.jobs.wait("tables-killed")
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    begun = [line for line in shop.jobs.lines("tables-killed") if "reading the tables" in line]
    assert len(begun) == 1, "it was taken up, not run again"
    assert len(shop.jobs.keys("tables-results/tables-killed/")) == 1
