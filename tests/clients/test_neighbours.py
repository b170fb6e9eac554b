"""Queues, functions, event rules and schedules, as the real SDKs use them."""

import base64
import io
import json
import math
import time
import zipfile

import boto3
import pytest

from conftest import poll

ROLE = "arn:aws:iam::123456789012:role/ModelyardExecutionRole"

HANDLER = """
import json
import logging
import os
import time

logging.getLogger().setLevel(logging.INFO)
CALLS = 0


def handler(event, context):
    global CALLS
    CALLS += 1
    print("called with", json.dumps(event, sort_keys=True))
    logging.getLogger().info("number %d", CALLS)
    what = event.get("what")
    if what == "fail":
        raise ValueError("no good: %s" % event["why"])
    if what == "exit":
        os._exit(3)
    if what == "sleep":
        time.sleep(60)
    if what == "grow":
        blocks = []
        for _ in range(100000):
            blocks.append(bytearray(1 << 20))
    if what == "odd":
        return {1, 2}
    if what == "escape":
        return [os.path.exists(path) for path in event["paths"]]
    left = context.get_remaining_time_in_millis()
    return {"calls": CALLS, "name": context.function_name, "arn": context.invoked_function_arn, "colour": os.environ.get("COLOUR"),
            "request": context.aws_request_id, "left": 0 < left <= 5000}
"""


def zipped(source, name="app.py"):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(name, source)
    return data.getvalue()


def made(server, name, source=HANDLER, **settings):
    functions = server.client("lambda")
    settings = {"Timeout": 5, "MemorySize": 256, **settings}
    functions.create_function(FunctionName=name, Runtime="python3.11", Handler="app.handler", Role=ROLE,
                              Code={"ZipFile": zipped(source)}, **settings)
    return functions


def invoked(functions, name, event, **more):
    answer = functions.invoke(FunctionName=name, Payload=json.dumps(event), **more)
    return answer, json.loads(answer["Payload"].read())


def test_queue_survives_a_kill_and_its_digests_are_checked(own_server):
    queues = own_server.client("sqs")
    url = queues.create_queue(QueueName="durable")["QueueUrl"]
    sent = queues.send_message(QueueUrl=url, MessageBody="kept", MessageAttributes={
        "kind": {"DataType": "String", "StringValue": "note"}})
    own_server.kill()
    own_server.start()
    queues = own_server.client("sqs")
    message, = queues.receive_message(QueueUrl=url, WaitTimeSeconds=5, MessageAttributeNames=["All"])["Messages"]
    assert (message["Body"], message["MessageId"]) == ("kept", sent["MessageId"])
    assert message["MD5OfMessageAttributes"] == sent["MD5OfMessageAttributes"]
    queues.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    with pytest.raises(queues.exceptions.QueueDoesNotExist) as missing:
        queues.get_queue_url(QueueName="none")
    assert missing.value.response["Error"]["Code"] == "AWS.SimpleQueueService.NonExistentQueue"


def test_function_runs_warm_and_tells_of_its_errors(server):
    functions = made(server, "warm", Environment={"Variables": {"COLOUR": "green"}}, Tags={"team": "a"})
    functions.get_waiter("function_active_v2").wait(FunctionName="warm")
    answer, first = invoked(functions, "warm", {"x": 1}, LogType="Tail")
    assert first["calls"] == 1 and first["name"] == "warm" and first["colour"] == "green" and first["left"], first
    assert first["request"] == answer["ResponseMetadata"]["RequestId"] and answer["ExecutedVersion"] == "$LATEST"
    tail = base64.b64decode(answer["LogResult"]).decode()
    assert 'called with {"x": 1}' in tail and "[INFO]" in tail and "REPORT RequestId" in tail, tail
    assert invoked(functions, "warm", {})[1]["calls"] == 2, "the same process"

    answer, error = invoked(functions, "warm", {"what": "fail", "why": "testing"})
    assert answer["FunctionError"] == "Unhandled"
    assert (error["errorType"], error["errorMessage"]) == ("ValueError", "no good: testing")
    assert error["stackTrace"][-1].startswith('  File "/var/task/app.py", line'), error
    assert invoked(functions, "warm", {"what": "odd"})[1]["errorType"] == "Runtime.MarshalError"
    answer, error = invoked(functions, "warm", {"what": "exit"})
    assert error["errorType"] == "Runtime.ExitError" and "exit status 3" in error["errorMessage"], error
    seen = invoked(functions, "warm", {"what": "escape", "paths": ["/var/task/app.py", str(server.data_dir / "modelyard.db")]})[1]
    assert seen == [True, False], "the package is there, the server's files are not"
    assert invoked(functions, "warm", {})[1]["calls"] == 2, "after the end of a process there is another one"

    logs = server.client("logs")
    said = {"logGroupName": "/aws/lambda/warm", "filterPattern": "testing"}
    poll(lambda: logs.filter_log_events(**said)["events"], "what it writes is in its log group")


def test_function_is_limited_in_time_and_memory(server):
    functions = made(server, "limited", Timeout=1)
    answer, error = invoked(functions, "limited", {"what": "sleep"})
    assert error["errorType"] == "Sandbox.Timedout" and "timed out after 1.00 seconds" in error["errorMessage"], error
    functions.update_function_configuration(FunctionName="limited", Timeout=30, MemorySize=128)
    answer, error = invoked(functions, "limited", {"what": "grow"})
    assert answer["FunctionError"] == "Unhandled"
    assert error["errorType"] in ("Runtime.OutOfMemory", "MemoryError"), error


def test_function_is_changed_and_deleted(server):
    functions = made(server, "changing")
    assert invoked(functions, "changing", {})[1]["calls"] == 1
    before = functions.get_function_configuration(FunctionName="changing")
    after = functions.update_function_code(FunctionName="changing",
                                           ZipFile=zipped("def handler(event, context):\n    return 'new'\n"))
    assert after["CodeSha256"] != before["CodeSha256"] and after["RevisionId"] != before["RevisionId"]
    assert invoked(functions, "changing", {})[1] == "new"
    with pytest.raises(functions.exceptions.PreconditionFailedException):
        functions.update_function_configuration(FunctionName="changing", Timeout=9, RevisionId=before["RevisionId"])
    functions.update_function_configuration(FunctionName="changing", Handler="app.nothing")
    answer, error = invoked(functions, "changing", {})
    assert error["errorType"] == "Runtime.HandlerNotFound", error
    assert functions.invoke(FunctionName="changing", InvocationType="DryRun")["StatusCode"] == 204
    names = [one["FunctionName"] for one in functions.list_functions()["Functions"]]
    assert "changing" in names
    arn = before["FunctionArn"]
    functions.tag_resource(Resource=arn, Tags={"a": "b"})
    assert functions.list_tags(Resource=arn)["Tags"] == {"a": "b"}
    functions.untag_resource(Resource=arn, TagKeys=["a"])
    functions.add_permission(FunctionName="changing", StatementId="s", Action="lambda:InvokeFunction",
                             Principal="events.amazonaws.com", SourceArn="arn:aws:events:us-east-1:123456789012:rule/r")
    assert json.loads(functions.get_policy(FunctionName="changing")["Policy"])["Statement"][0]["Sid"] == "s"
    functions.remove_permission(FunctionName="changing", StatementId="s")
    functions.delete_function(FunctionName=arn)
    with pytest.raises(functions.exceptions.ResourceNotFoundException):
        functions.get_function(FunctionName="changing")


def test_function_refuses_by_name_what_is_not_done(server):
    functions = server.client("lambda")
    common = {"FunctionName": "refused", "Role": ROLE, "Handler": "app.handler", "Code": {"ZipFile": zipped(HANDLER)}}
    for more, word in [({"Runtime": "nodejs20.x"}, "nodejs20.x"),
                       ({"Runtime": "python3.11", "Layers": ["arn:aws:lambda:us-east-1:123456789012:layer:l:1"]}, "Layers"),
                       ({"Runtime": "python3.11", "Code": {"ZipFile": b"no zip"}}, "unzip"),
                       ({"Runtime": "python3.11", "Code": {"ZipFile": zipped("x", "../x.py")}}, "'..'"),
                       ({"Runtime": "python3.11", "Environment": {"Variables": {"AWS_REGION": "x"}}}, "reserved")]:
        with pytest.raises(functions.exceptions.InvalidParameterValueException, match=word):
            functions.create_function(**{**common, **more})
    functions = made(server, "with-role")
    nobody = ROLE.rsplit("/", 1)[0] + "/Nobody"
    for call in (
        lambda: functions.create_function(**{**common, "Runtime": "python3.11", "Role": nobody}),
        lambda: functions.update_function_configuration(FunctionName="with-role", Role=nobody),
    ):
        with pytest.raises(functions.exceptions.InvalidParameterValueException, match="cannot be assumed by Lambda"):
            call()


def test_function_is_called_later(server):
    functions = made(server, "later")
    answer = functions.invoke(FunctionName="later", InvocationType="Event", Payload=b'{"x": "later on"}')
    assert answer["StatusCode"] == 202
    logs, events = server.client("logs"), []
    deadline = time.monotonic() + 60
    while not events and time.monotonic() < deadline:
        try:
            events = logs.filter_log_events(logGroupName="/aws/lambda/later", filterPattern='"later on"')["events"]
        except logs.exceptions.ResourceNotFoundException:
            pass
        time.sleep(0.1)
    assert events


def test_lambda_helper_of_the_sdk_makes_changes_and_invokes(server, tmp_path, monkeypatch):
    sagemaker = pytest.importorskip("sagemaker")
    helper = pytest.importorskip("sagemaker.lambda_helper")
    script = tmp_path / "step.py"
    script.write_text("def lambda_handler(event, context):\n    return {'statusCode': 200, 'body': 'one'}\n")
    connection = server.connection
    boto = boto3.Session(aws_access_key_id=connection["access_key_id"], region_name="us-east-1",
                         aws_secret_access_key=connection["secret_access_key"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", connection["endpoint"])
    session = sagemaker.Session(boto_session=boto)

    def step():
        return helper.Lambda(function_name="sdk-step", execution_role_arn=ROLE, script=str(script),
                             handler="step.lambda_handler", session=session, timeout=20, memory_size=256)

    created = step().upsert()
    assert created["FunctionArn"].endswith(":function:sdk-step")
    assert json.loads(step().invoke()["Payload"].read())["body"] == "one"
    script.write_text("def lambda_handler(event, context):\n    return {'statusCode': 200, 'body': 'two'}\n")
    step().upsert()
    assert json.loads(step().invoke()["Payload"].read())["body"] == "two"
    step().delete()


def soon(seconds):
    # What is past by the time of the request never comes.
    return time.strftime("at(%Y-%m-%dT%H:%M:%S)", time.gmtime(math.ceil(time.time()) + seconds))


def test_a_schedule_that_a_kill_interrupts_fires_once(own_server):
    queues, scheduler = own_server.client("sqs"), own_server.client("scheduler")
    url = queues.create_queue(QueueName="ticks")["QueueUrl"]
    target = {"Arn": "arn:aws:sqs:us-east-1:123456789012:ticks", "RoleArn": ROLE, "Input": "<aws.scheduler.execution-id>"}
    scheduler.create_schedule(Name="one", ScheduleExpression=soon(1), FlexibleTimeWindow={"Mode": "OFF"}, Target=target)
    own_server.kill()
    time.sleep(1.2)
    own_server.start()
    queues = own_server.client("sqs")
    messages = queues.receive_message(QueueUrl=url, WaitTimeSeconds=20, MaxNumberOfMessages=10)["Messages"]
    assert len(messages) == 1
    own_server.kill()
    own_server.start()
    counts = own_server.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert (counts["ApproximateNumberOfMessages"], counts["ApproximateNumberOfMessagesNotVisible"]) == ("0", "1")


def test_schedules_and_their_groups_are_managed(server):
    scheduler = server.client("scheduler")
    server.client("sqs").create_queue(QueueName="scheduled")
    target = {"Arn": "arn:aws:sqs:us-east-1:123456789012:scheduled", "RoleArn": ROLE,
              "RetryPolicy": {"MaximumRetryAttempts": 2, "MaximumEventAgeInSeconds": 60}}
    group = scheduler.create_schedule_group(Name="nights", Tags=[{"Key": "a", "Value": "b"}])["ScheduleGroupArn"]
    scheduler.tag_resource(ResourceArn=group, Tags=[{"Key": "c", "Value": "d"}])
    scheduler.untag_resource(ResourceArn=group, TagKeys=["a"])
    assert scheduler.list_tags_for_resource(ResourceArn=group)["Tags"] == [{"Key": "c", "Value": "d"}]
    assert scheduler.get_schedule_group(Name="nights")["State"] == "ACTIVE"
    assert {"default", "nights"} <= {one["Name"] for one in scheduler.list_schedule_groups()["ScheduleGroups"]}
    arn = scheduler.create_schedule(
        Name="nightly", GroupName="nights", ScheduleExpression="cron(30 2 * * ? *)", ScheduleExpressionTimezone="Europe/Berlin",
        FlexibleTimeWindow={"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 15}, Target=target)["ScheduleArn"]
    assert arn.endswith(":schedule/nights/nightly")
    shown = scheduler.get_schedule(Name="nightly", GroupName="nights")
    assert (shown["State"], shown["ScheduleExpressionTimezone"], shown["Target"]) == ("ENABLED", "Europe/Berlin", target)
    scheduler.update_schedule(Name="nightly", GroupName="nights", ScheduleExpression="rate(1 day)", State="DISABLED",
                              FlexibleTimeWindow={"Mode": "OFF"}, Target=target)
    listed, = scheduler.list_schedules(GroupName="nights")["Schedules"]
    assert (listed["Name"], listed["State"]) == ("nightly", "DISABLED")
    scheduler.delete_schedule(Name="nightly", GroupName="nights")
    with pytest.raises(scheduler.exceptions.ResourceNotFoundException):
        scheduler.get_schedule(Name="nightly", GroupName="nights")
    scheduler.delete_schedule_group(Name="nights")


def test_an_event_invokes_a_function(server):
    functions = made(server, "of-event")
    events, logs = server.client("events"), server.client("logs")
    events.put_rule(Name="to-function", EventPattern=json.dumps({"source": ["tests"]}))
    arn = functions.get_function(FunctionName="of-event")["Configuration"]["FunctionArn"]
    events.put_targets(Rule="to-function", Targets=[{"Id": "f", "Arn": arn, "InputPath": "$.detail"}])
    put = events.put_events(Entries=[{"Source": "tests", "DetailType": "t", "Detail": json.dumps({"x": "out of an event"})}])
    assert put["FailedEntryCount"] == 0
    found, deadline = [], time.monotonic() + 60
    while not found and time.monotonic() < deadline:
        try:
            found = logs.filter_log_events(logGroupName="/aws/lambda/of-event", filterPattern='"out of an event"')["events"]
        except logs.exceptions.ResourceNotFoundException:
            pass
        time.sleep(0.1)
    assert found
