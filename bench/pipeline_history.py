"""Lists, searches and descriptions of pipeline executions when the store holds 10,000 of them."""

import json
import random
import time
from datetime import timedelta

from harness import load, options, queries, recording, report
from harness.modelyard import Modelyard, wait

PIPELINES = 5
EXECUTIONS = 10_000
CONNECTIONS = 16
QUERIES = 200
LIMIT_MS = 20
MARK = "9999999"
FIRST = 1_000_000
# One in so many fails.
FAILING = 100


def definition():
    """Five steps that need no job, the last of which fails where a parameter says so."""
    equals = lambda left, right: {"Type": "Equals", "LeftValue": left, "RightValue": right}
    mode = {"Get": "Parameters.Mode"}
    steps = []
    for index in range(4):
        step = {"Name": f"Check{index}", "Type": "Condition", "Arguments": {"Conditions": [equals(mode, "none")], "IfSteps": [], "ElseSteps": []}}
        if index:
            step["DependsOn"] = [f"Check{index - 1}"]
        steps.append(step)
    fail = {"Name": "Fail", "Type": "Fail", "Arguments": {"ErrorMessage": "as asked"}}
    last = {"Conditions": [equals(mode, "fail")], "IfSteps": [fail], "ElseSteps": []}
    steps.append({"Name": "Last", "Type": "Condition", "Arguments": last, "DependsOn": ["Check3"]})
    parameters = [{"Name": "Mode", "Type": "String", "DefaultValue": "pass"}, {"Name": "Rate", "Type": "Float", "DefaultValue": 0.1}]
    return json.dumps({"Version": "2020-12-01", "Metadata": {}, "Parameters": parameters, "Steps": steps})


def fill(server, folder):
    """Runs the executions through the API; executions per second, from the first request to the last end."""
    sagemaker = server.client("sagemaker")
    began = time.perf_counter()
    for number in range(PIPELINES):
        name = f"history-{number}"
        sagemaker.create_pipeline(
            PipelineName=name, RoleArn=server.role, PipelineDefinition=definition(), ClientRequestToken=name.ljust(32, "x")
        )
        for mode in ("pass", "fail"):
            started = recording.capture(
                sagemaker,
                "start_pipeline_execution",
                PipelineName=name,
                PipelineExecutionDisplayName=f"night-{MARK}",
                PipelineParameters=[{"Name": "Mode", "Value": mode}],
                ClientRequestToken=f"{name}-{mode}-{MARK}".ljust(32, "x"),
            )
            of_pipeline = range(number, EXECUTIONS, PIPELINES)
            chosen = [index for index in of_pipeline if (index // PIPELINES % FAILING == 0) == (mode == "fail")]
            changes = [(MARK, str(FIRST + index)) for index in chosen]
            written = recording.write_many(folder / "starts", started, "sagemaker", server.connection, changes)
            load.replay(server.address, written, CONNECTIONS, 600, once=True)
    going = {"Resource": "PipelineExecution", "MaxResults": 1}
    going["SearchExpression"] = {"Filters": [{"Name": "PipelineExecutionStatus", "Operator": "Equals", "Value": "Executing"}]}
    wait("all executions have ended", lambda: not sagemaker.search(**going)["Results"], seconds=600, pause_seconds=0.5)
    return EXECUTIONS / (time.perf_counter() - began)


def asked(sagemaker, chosen):
    """The queries, as (name, operation, requests)."""
    of = lambda: f"history-{chosen.randrange(PIPELINES)}"
    pages = sagemaker.get_paginator("list_pipeline_executions").paginate(PipelineName="history-0", PaginationConfig={"PageSize": 100})
    whole = [page for page in pages]
    summaries = [one for page in whole for one in page["PipelineExecutionSummaries"]]
    if len(summaries) != EXECUTIONS // PIPELINES:
        raise SystemExit(f"{EXECUTIONS // PIPELINES} executions were started, and {len(summaries)} are listed")
    tokens = [page["NextToken"] for page in whole[:-1]]
    arns = [one["PipelineExecutionArn"] for one in summaries]
    middle = summaries[len(summaries) // 2]["StartTime"]
    pick = lambda make: [make() for _ in range(QUERIES)]

    def search(name, operator, value, **more):
        def one():
            filters = [{"Name": name, "Operator": operator, "Value": value()}]
            return {"Resource": "PipelineExecution", "SearchExpression": {"Filters": filters}, **more}

        return pick(one)

    pipeline = sagemaker.describe_pipeline(PipelineName="history-0")["PipelineArn"]
    arn = lambda: chosen.choice(arns)
    night = lambda: f"night-{FIRST + chosen.randrange(EXECUTIONS)}"
    later = lambda: (middle + timedelta(milliseconds=chosen.randrange(1000))).isoformat()
    listing, searching = "list_pipeline_executions", "search"
    return [
        ("ListPipelineExecutions, the newest 100", listing, pick(lambda: {"PipelineName": of(), "MaxResults": 100})),
        (
            "ListPipelineExecutions, created after, oldest first",
            listing,
            pick(lambda: {"PipelineName": of(), "CreatedAfter": middle, "SortOrder": "Ascending", "MaxResults": 100}),
        ),
        (
            "ListPipelineExecutions, some later page",
            listing,
            pick(lambda: {"PipelineName": "history-0", "MaxResults": 100, "NextToken": chosen.choice(tokens)}),
        ),
        ("DescribePipelineExecution", "describe_pipeline_execution", pick(lambda: {"PipelineExecutionArn": arn()})),
        ("ListPipelineExecutionSteps", "list_pipeline_execution_steps", pick(lambda: {"PipelineExecutionArn": arn()})),
        ("Search, the newest 100", searching, pick(lambda: {"Resource": "PipelineExecution"})),
        ("Search, by status, 100 of 10,000", searching, search("PipelineExecutionStatus", "Equals", lambda: "Failed")),
        ("Search, by ARN", searching, search("PipelineExecutionArn", "Equals", arn)),
        ("Search, by the pipeline, 10 rows", searching, search("PipelineArn", "Equals", lambda: pipeline, MaxResults=10)),
        ("Search, by display name", searching, search("PipelineExecutionDisplayName", "Equals", night)),
        ("Search, started before, 10 rows", searching, search("CreationTime", "LessThan", later, MaxResults=10)),
    ]


def main():
    run = options.parse(__doc__)
    report.heading("History of pipelines")
    with Modelyard(run.modelyard, run.folder) as server, load.Bare(run.folder, "{}") as bare:
        rate = fill(server, run.folder)
        sagemaker = server.client("sagemaker")
        results = queries.measure(server, run.folder, sagemaker, asked(sagemaker, random.Random(1)))
        limit = load.replay(bare.address, run.folder / "queries", 1, 2)
    queries.show(f"of {EXECUTIONS} executions", results, limit, LIMIT_MS)
    print(f"executions of five steps without jobs, durable: {rate:.0f}/s")


if __name__ == "__main__":
    main()
