"""CloudWatch alarms with the real clients: high-resolution metrics, composite alarms, functions as actions, a restart, the tools."""

import json
import uuid

import pytest

from conftest import poll
from test_commands import aws
from test_neighbours import made


@pytest.fixture
def name():
    return f"alarm-{uuid.uuid4().hex[:12]}"


def put(cloudwatch, name, value):
    cloudwatch.put_metric_data(
        Namespace="Alarms", MetricData=[{"MetricName": name, "Value": value, "StorageResolution": 1}]
    )


def over(name, **more):
    """An alarm of a second's resolution over the metric of its own name."""
    return {
        "AlarmName": name,
        "Namespace": "Alarms",
        "MetricName": name,
        "Statistic": "Maximum",
        "Period": 1,
        "EvaluationPeriods": 1,
        "Threshold": 5,
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "ignore",
        **more,
    }


def described(cloudwatch, name):
    answer = cloudwatch.describe_alarms(AlarmNames=[name], AlarmTypes=["MetricAlarm", "CompositeAlarm"])
    return (answer["MetricAlarms"] + answer["CompositeAlarms"])[0]


def becomes(cloudwatch, name, state):
    poll(lambda: described(cloudwatch, name)["StateValue"] == state, f"{name} is {state}", seconds=30)
    return described(cloudwatch, name)


def test_an_alarm_turns_and_turns_back_within_seconds(boto, server, name):
    cloudwatch = boto("cloudwatch")
    cloudwatch.put_metric_alarm(**over(name, Tags=[{"Key": "team", "Value": "a"}]))
    cloudwatch.put_composite_alarm(AlarmName=f"{name}-top", AlarmRule=f'ALARM("{name}") OR FALSE')
    becomes(cloudwatch, f"{name}-top", "OK")
    put(cloudwatch, name, 9)
    alarm = becomes(cloudwatch, name, "ALARM")
    assert "[9.0 (" in alarm["StateReason"]
    top = becomes(cloudwatch, f"{name}-top", "ALARM")
    assert f"{alarm['AlarmArn']} transitioned to ALARM at" in top["StateReason"]
    put(cloudwatch, name, 1)
    becomes(cloudwatch, name, "OK")
    becomes(cloudwatch, f"{name}-top", "OK")
    items = cloudwatch.describe_alarm_history(AlarmName=name, HistoryItemType="StateUpdate", ScanBy="TimestampAscending")
    summaries = [item["HistorySummary"] for item in items["AlarmHistoryItems"]]
    assert summaries == ["Alarm updated from INSUFFICIENT_DATA to ALARM", "Alarm updated from ALARM to OK"]
    tags = cloudwatch.list_tags_for_resource(ResourceARN=alarm["AlarmArn"])["Tags"]
    assert tags == [{"Key": "team", "Value": "a"}]
    assert cloudwatch.describe_alarms_for_metric(Namespace="Alarms", MetricName=name)["MetricAlarms"][0]["AlarmName"] == name
    with pytest.raises(cloudwatch.exceptions.ClientError, match="composite alarm"):
        cloudwatch.delete_alarms(AlarmNames=[name])
    # The tools see the same.
    shown = json.loads(aws(server, "cloudwatch", "describe-alarms", "--alarm-names", name, "--output", "json"))
    assert shown["MetricAlarms"][0]["StateValue"] == "OK"
    listed = server.command("alarms")
    assert any(line.startswith(f"{name} ") and " OK " in line for line in listed.splitlines())
    assert "Alarm updated from ALARM to OK" in server.command("alarms", "history", name)
    assert f"{name}  ALARM  Threshold Crossed" in server.command("events")
    cloudwatch.delete_alarms(AlarmNames=[name, f"{name}-top"])
    assert cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"] == []


def test_rules_see_alarms(boto, server, name):
    cloudwatch, events, sqs = boto("cloudwatch"), boto("events"), boto("sqs")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = {"source": ["aws.cloudwatch"], "detail": {"alarmName": [name], "state": {"value": ["ALARM"]}}}
    events.put_rule(Name=name, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=name, Targets=[{"Id": "q", "Arn": arn}])
    cloudwatch.put_metric_alarm(**over(name))
    put(cloudwatch, name, 9)
    becomes(cloudwatch, name, "ALARM")
    received = poll(lambda: sqs.receive_message(QueueUrl=url, WaitTimeSeconds=2).get("Messages"), "the event comes", seconds=30)
    event = json.loads(received[0]["Body"])
    assert event["detail-type"] == "CloudWatch Alarm State Change"
    assert json.loads(event["detail"]["state"]["reasonData"])["recentDatapoints"] == [9.0]
    events.remove_targets(Rule=name, Ids=["q"])
    events.delete_rule(Name=name)
    sqs.delete_queue(QueueUrl=url)
    cloudwatch.delete_alarms(AlarmNames=[name])


def test_alarms_outlive_a_kill(own_server, name):
    cloudwatch = own_server.client("cloudwatch")
    cloudwatch.put_metric_alarm(**over(name))
    cloudwatch.put_composite_alarm(AlarmName=f"{name}-top", AlarmRule=f"ALARM({name})")
    put(cloudwatch, name, 9)
    becomes(cloudwatch, f"{name}-top", "ALARM")
    before = described(cloudwatch, name)
    own_server.kill()
    own_server.start()
    cloudwatch = own_server.client("cloudwatch")
    assert described(cloudwatch, name) == before

    def is_ok():
        # A second whose only sample came while the server was busy with its start may have been judged already.
        put(cloudwatch, name, 1)
        return described(cloudwatch, name)["StateValue"] == "OK"

    poll(is_ok, f"{name} is OK", seconds=30)
    becomes(cloudwatch, f"{name}-top", "OK")
    summaries = [item["HistorySummary"] for item in cloudwatch.describe_alarm_history(AlarmName=name)["AlarmHistoryItems"]]
    assert summaries[0] == "Alarm updated from ALARM to OK"
    cloudwatch.delete_alarms(AlarmNames=[name, f"{name}-top"])


def test_a_function_is_an_action(boto, server, name):
    cloudwatch, logs = boto("cloudwatch"), boto("logs")
    functions = made(server, name, "import json\ndef handler(event, context):\n    print(json.dumps(event))\n")
    arn = functions.get_function(FunctionName=name)["Configuration"]["FunctionArn"]
    cloudwatch.put_metric_alarm(**over(name, AlarmActions=[arn], AlarmDescription="a page"))
    cloudwatch.disable_alarm_actions(AlarmNames=[name])
    cloudwatch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="not told")
    cloudwatch.set_alarm_state(AlarmName=name, StateValue="OK", StateReason="calm")
    cloudwatch.enable_alarm_actions(AlarmNames=[name])
    cloudwatch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="told")

    def printed():
        try:
            events = logs.filter_log_events(logGroupName=f"/aws/lambda/{name}", filterPattern='"aws.cloudwatch"')["events"]
        except logs.exceptions.ResourceNotFoundException:
            return []
        return [json.loads(event["message"]) for event in events]

    (event,) = poll(printed, "the function is invoked", seconds=60)
    assert (event["source"], event["alarmData"]["alarmName"]) == ("aws.cloudwatch", name)
    assert event["alarmData"]["state"]["reason"] == "told"
    assert event["alarmData"]["previousState"]["value"] == "OK"
    assert event["alarmData"]["configuration"]["description"] == "a page"
    actions = cloudwatch.describe_alarm_history(AlarmName=name, HistoryItemType="Action")["AlarmHistoryItems"]
    assert [item["HistorySummary"] for item in actions] == [f"Successfully executed action {arn}"]
    cloudwatch.delete_alarms(AlarmNames=[name])
    functions.delete_function(FunctionName=name)


def test_a_topic_is_an_action(boto, name):
    cloudwatch, sns, sqs = boto("cloudwatch"), boto("sns"), boto("sqs")
    topic = sns.create_topic(Name=name)["TopicArn"]
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    queue = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)
    cloudwatch.put_metric_alarm(**over(name, AlarmActions=[topic], AlarmDescription="too much"))
    put(cloudwatch, name, 7)
    (message,) = poll(lambda: sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1).get("Messages"), "the topic is told", 60)
    notice = json.loads(message["Body"])
    assert notice["Subject"] == f'ALARM: "{name}" in us-east-1'
    told = json.loads(notice["Message"])
    assert (told["AlarmName"], told["AlarmDescription"], told["NewStateValue"]) == (name, "too much", "ALARM")
    assert told["Trigger"]["MetricName"] == name and told["AlarmActions"] == [topic]
