"""CloudWatch Logs with the real client: what the SDKs' polling loops need, and what users do with it."""

import time
import uuid

import pytest
from botocore.exceptions import ClientError


@pytest.fixture
def logs(boto):
    return boto("logs")


@pytest.fixture
def group(logs):
    name = f"/tests/{uuid.uuid4()}"
    logs.create_log_group(logGroupName=name)
    yield name
    try:
        logs.delete_log_group(logGroupName=name)
    except logs.exceptions.ResourceNotFoundException:
        pass


def now_ms():
    return int(time.time() * 1000)


def put(logs, group, stream, *messages, at=None):
    at = at or now_ms()
    events = [{"timestamp": at + number, "message": message} for number, message in enumerate(messages)]
    return logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)


def messages(answer):
    return [event["message"] for event in answer["events"]]


def test_missing_groups_and_streams_have_the_code_that_the_sdk_tolerates(logs, group):
    missing = f"{group}/none"
    for call, arguments in [
        (logs.describe_log_streams, {"logGroupName": missing}),
        (logs.get_log_events, {"logGroupName": missing, "logStreamName": "s"}),
        (logs.get_log_events, {"logGroupName": group, "logStreamName": "s"}),
        (logs.filter_log_events, {"logGroupName": missing, "logStreamNamePrefix": "AllTraffic/"}),
        (logs.delete_log_stream, {"logGroupName": group, "logStreamName": "s"}),
    ]:
        with pytest.raises(logs.exceptions.ResourceNotFoundException):
            call(**arguments)
    with pytest.raises(logs.exceptions.ResourceAlreadyExistsException, match="already exists"):
        logs.create_log_group(logGroupName=group)


def test_the_polling_loop_of_the_sdk_sees_every_event_once_and_ends(logs, group):
    """As `sagemaker.session` follows a job: streams by prefix, then each stream from its last token on until a page is empty."""
    for host in (1, 2):
        logs.create_log_stream(logGroupName=group, logStreamName=f"job/algo-{host}-1700000000")
    streams = logs.describe_log_streams(
        logGroupName=group, logStreamNamePrefix="job/", orderBy="LogStreamName", limit=2
    )["logStreams"]
    names = [stream["logStreamName"] for stream in streams]
    assert names == ["job/algo-1-1700000000", "job/algo-2-1700000000"]
    seen, tokens = {name: [] for name in names}, {}
    for round in range(3):
        for name in names:
            put(logs, group, name, *[f"{name} {round} {number}" for number in range(5)])
        for name in names:
            while True:
                token = {"nextToken": tokens[name]} if name in tokens else {}
                page = logs.get_log_events(
                    logGroupName=group, logStreamName=name, startTime=1, startFromHead=True, limit=4, **token
                )
                if not page["events"]:
                    assert page["nextForwardToken"] == tokens[name]
                    break
                seen[name] += messages(page)
                tokens[name] = page["nextForwardToken"]
    for name in names:
        assert seen[name] == [f"{name} {round} {number}" for round in range(3) for number in range(5)]


def test_texts_survive_and_times_are_kept(logs, group):
    logs.create_log_stream(logGroupName=group, logStreamName="s")
    texts = ["two\nlines\r\n", "back\\slash \\n", "é 🦀", " spaces ", "\x1b[31mred\x1b[0m"]
    at = now_ms() - 60_000
    put(logs, group, "s", *texts, at=at)
    page = logs.get_log_events(logGroupName=group, logStreamName="s", startFromHead=True)
    assert messages(page) == texts
    assert [event["timestamp"] for event in page["events"]] == [at + number for number in range(len(texts))]
    assert all(event["ingestionTime"] > at + 50_000 for event in page["events"])
    page = logs.get_log_events(logGroupName=group, logStreamName="s", startTime=at + 1, endTime=at + 3)
    assert messages(page) == texts[1:3]
    stream = logs.describe_log_streams(logGroupName=group)["logStreams"][0]
    assert stream["firstEventTimestamp"] == at
    assert stream["lastEventTimestamp"] == at + len(texts) - 1
    assert stream["arn"].endswith(f":log-group:{group}:log-stream:s")


def test_reading_backwards_pages_to_the_start(logs, group):
    logs.create_log_stream(logGroupName=group, logStreamName="s")
    put(logs, group, "s", *"abcdefg")
    pages, token = [], {}
    while True:
        page = logs.get_log_events(logGroupName=group, logStreamName="s", limit=3, **token)
        if not page["events"]:
            assert page["nextBackwardToken"] == token["nextToken"]
            break
        pages.append("".join(messages(page)))
        token = {"nextToken": page["nextBackwardToken"]}
    assert pages == ["efg", "bcd", "a"]


def test_late_events_are_found_by_their_time(logs, group):
    logs.create_log_stream(logGroupName=group, logStreamName="s")
    now = now_ms()
    put(logs, group, "s", *["new"] * 100, at=now - 1_000)
    put(logs, group, "s", "late", at=now - 3_600_000)
    put(logs, group, "s", *["newer"] * 100, at=now - 500)
    page = logs.get_log_events(
        logGroupName=group, logStreamName="s", startFromHead=True, startTime=now - 3_600_000, endTime=now - 3_000_000
    )
    assert messages(page) == ["late"]


def test_batches_are_checked_as_the_service_does(logs, group):
    logs.create_log_stream(logGroupName=group, logStreamName="s")
    now, day = now_ms(), 24 * 3_600_000
    events = [{"timestamp": at, "message": "x"} for at in (now - 20 * day, now, now + day)]
    answer = logs.put_log_events(logGroupName=group, logStreamName="s", logEvents=events)
    assert answer["rejectedLogEventsInfo"] == {"tooOldLogEventEndIndex": 1, "tooNewLogEventStartIndex": 2}
    assert answer["nextSequenceToken"]
    for bad, words in [
        ([{"timestamp": now, "message": "x"}, {"timestamp": now - 1, "message": "y"}], "chronological"),
        ([{"timestamp": now - 2 * day, "message": "x"}, {"timestamp": now, "message": "y"}], "24 hours"),
        ([{"timestamp": now, "message": "x" * 200_000}] * 6, "too large"),
    ]:
        with pytest.raises(logs.exceptions.InvalidParameterException, match=words):
            logs.put_log_events(logGroupName=group, logStreamName="s", logEvents=bad)
    put(logs, group, "s", "any sequence token will do")
    logs.put_log_events(
        logGroupName=group, logStreamName="s", logEvents=[{"timestamp": now, "message": "z"}], sequenceToken="123"
    )


def test_filters_merge_streams_and_page(logs, group):
    at = now_ms()
    for stream in ("AllTraffic/1", "AllTraffic/2", "other"):
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
        put(logs, group, stream, *[f"{stream} request {number}" for number in range(10)], '{"status": 503}', at=at)
    paginator = logs.get_paginator("filter_log_events")
    pages = paginator.paginate(
        logGroupName=group, logStreamNamePrefix="AllTraffic/", startTime=at, PaginationConfig={"PageSize": 7}
    )
    found = [event for page in pages for event in page["events"]]
    assert [(event["timestamp"] - at, event["logStreamName"]) for event in found] == [
        (number, f"AllTraffic/{stream}") for number in range(11) for stream in (1, 2)
    ]
    assert len({event["eventId"] for event in found}) == 22

    def search(pattern, **arguments):
        return messages(logs.filter_log_events(logGroupName=group, filterPattern=pattern, **arguments))

    assert search('"request 3" -other') == ["AllTraffic/1 request 3", "AllTraffic/2 request 3"]
    assert search("?nothing ?other", logStreamNames=["other"], limit=2) == ["other request 0", "other request 1"]
    assert search("%request [78]%", logStreamNames=["other"]) == ["other request 7", "other request 8"]
    assert len(search("{ $.status >= 500 }")) == 3
    with pytest.raises(ClientError, match="Invalid filter pattern"):
        search('"open')


def test_groups_are_listed_by_prefix_pattern_and_arn(logs, group):
    names = [f"{group}/{name}" for name in "abc"]
    for name in names:
        logs.create_log_group(logGroupName=name)
    pages = logs.get_paginator("describe_log_groups").paginate(
        logGroupNamePrefix=f"{group}/", PaginationConfig={"PageSize": 2}
    )
    found = [one for page in pages for one in page["logGroups"]]
    assert [one["logGroupName"] for one in found] == names
    assert found[0]["arn"] == found[0]["logGroupArn"] + ":*"
    logs.create_log_stream(logGroupName=names[0], logStreamName="s")
    put(logs, names[0], "s", "by ARN")
    page = logs.get_log_events(logGroupIdentifier=found[0]["logGroupArn"], logStreamName="s")
    assert messages(page) == ["by ARN"]
    assert logs.describe_log_groups(logGroupIdentifiers=[names[0]])["logGroups"][0]["storedBytes"] > 0
    for name in names:
        logs.delete_log_group(logGroupName=name)
    assert logs.describe_log_groups(logGroupNamePattern=f"{group}/")["logGroups"] == []


def test_streams_are_listed_by_their_last_event(logs, group):
    now = now_ms()
    for stream, at in [("a", now - 3_000), ("b", now - 1_000), ("c", now - 2_000)]:
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
        put(logs, group, stream, "x", at=at)
    pages = logs.get_paginator("describe_log_streams").paginate(
        logGroupName=group, orderBy="LastEventTime", descending=True, PaginationConfig={"PageSize": 2}
    )
    assert [stream["logStreamName"] for page in pages for stream in page["logStreams"]] == ["b", "c", "a"]
    logs.delete_log_stream(logGroupName=group, logStreamName="b")
    left = logs.describe_log_streams(logGroupName=group, descending=True)["logStreams"]
    assert [stream["logStreamName"] for stream in left] == ["c", "a"]


@pytest.mark.parametrize("stream", ["../../../escape", "a/../b", "%2e%2e", ".", "[$LATEST]é", "n" * 512, "spa ce\\"])
def test_odd_names_are_just_names(logs, group, stream):
    logs.create_log_stream(logGroupName=group, logStreamName=stream)
    put(logs, group, stream, stream)
    assert messages(logs.get_log_events(logGroupName=group, logStreamName=stream)) == [stream]
    assert [one["logStreamName"] for one in logs.describe_log_streams(logGroupName=group)["logStreams"]] == [stream]
