"""Sessions of stateful models: opened and closed by the model, kept at one worker, refused when nobody has them."""

import json
import uuid

import pytest

# Counts the requests of each session in the memory of its worker.
COUNTING = """
import json, os, uuid
SESSIONS = {}
SESSION, OPENED, CLOSED = (f"X-Amzn-SageMaker-{name}" for name in ("Session-Id", "New-Session-Id", "Closed-Session-Id"))

def model_fn(model_dir): return None

def transform_fn(model, body, content_type, accept, context):
    order = json.loads(body)
    session = context.get_request_header(0, SESSION)
    if session == "NEW_SESSION":
        session = uuid.uuid4().hex
        SESSIONS[session] = 0
        context.set_response_header(0, OPENED, f"{session}; Expires={order['expires']}")
    if session is not None:
        SESSIONS[session] += 1
    if order.get("close"):
        del SESSIONS[session]
        context.set_response_header(0, CLOSED, session)
        return json.dumps({"closed": True}), "application/json"
    return json.dumps({"count": SESSIONS.get(session), "pid": os.getpid()}), "application/json"
"""

LATER = "2100-01-01T00:00:00Z"


@pytest.fixture
def stateful(endpoints):
    name = f"sessions-{uuid.uuid4().hex[:8]}"
    endpoints.model(name, COUNTING, Environment={"SAGEMAKER_MODEL_SERVER_WORKERS": "3"})
    endpoints.config(name, **{name: 1.0})
    endpoints.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    assert endpoints.wait(name)["EndpointStatus"] == "InService"

    def ask(session=None, expires=LATER, **order):
        options = {"SessionId": session} if session else {}
        return endpoints.invoke(name, json.dumps({"expires": expires, **order}), **options)

    ask.refusal = endpoints.runtime.exceptions.ClientError
    ask.stream = lambda session: endpoints.runtime.invoke_endpoint_with_response_stream(
        EndpointName=name, Body=json.dumps({"expires": LATER}), ContentType="application/json", SessionId=session
    )
    yield ask
    endpoints.delete(name)


def test_a_session_is_kept_at_one_worker_until_it_is_closed(stateful):
    opened = stateful("NEW_SESSION")
    session, _, expires = opened["NewSessionId"].partition("; Expires=")
    assert expires == LATER
    first = json.load(opened["Body"])
    assert first["count"] == 1
    other = stateful("NEW_SESSION")["NewSessionId"].split(";")[0]
    for count in range(2, 12):
        answer = json.load(stateful(session)["Body"])
        assert answer == {"count": count, "pid": first["pid"]}
        assert json.load(stateful(other)["Body"])["count"] == count
        assert json.load(stateful()["Body"])["count"] is None
    [part] = [event["PayloadPart"]["Bytes"] for event in stateful.stream(session)["Body"]]
    assert json.loads(part)["count"] == 12
    assert stateful(session, close=True)["ClosedSessionId"] == session
    for gone in (session, "never-opened"):
        with pytest.raises(stateful.refusal, match=f"Session {gone} was not found") as caught:
            stateful(gone)
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
        assert caught.value.response["Error"]["Code"] == "ValidationError"
    assert json.load(stateful(other)["Body"])["count"] == 12


def test_a_session_that_has_expired_is_refused(stateful):
    session = stateful("NEW_SESSION", expires="2001-01-01T00:00:00Z")["NewSessionId"].split(";")[0]
    with pytest.raises(stateful.refusal, match="has expired"):
        stateful(session)


def test_a_new_session_that_nobody_could_use_is_the_models_error(stateful):
    with pytest.raises(stateful.refusal, match="not of the form") as caught:
        stateful("NEW_SESSION", expires="tomorrow")
    assert caught.value.response["Error"]["Code"] == "ModelError"
