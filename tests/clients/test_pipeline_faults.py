"""Random pipelines under a server that is killed again and again: each step ends as a slow interpreter says, with each effect once.

A longer run: `pytest tests/clients/test_pipeline_faults.py --pipeline-kills 500`; `--seed` repeats one that failed.
"""

import json
import random
import threading

import boto3
import botocore.exceptions
import pytest
from botocore.config import Config

from conftest import poll, stop_all
from faults import NOT_ANSWERED, FaultyServer
from pipeline_worlds import ALWAYS, FUNCTION, MOST_RUNS, Step, World
from test_pipelines import ENDED, function_archive

# Executions that go on side by side.
WORLDS_AT_ONCE = 3


class Place:
    """What the pipelines need, and clients whose calls outlive the server."""

    def __init__(self, server):
        self.server, self.bucket = server, "worlds"
        self.local = threading.local()
        account = server.connection["account"]
        self.role = f"arn:aws:iam::{account}:role/ModelyardExecutionRole"
        self.no_package = f"arn:aws:sagemaker:us-east-1:{account}:model-package/nobody/1"
        self.call("s3", "create_bucket", Bucket=self.bucket)
        self.call("s3", "put_object", Bucket=self.bucket, Key="model.tar.gz", Body=b"weights")
        self.queue = self.call("sqs", "create_queue", QueueName="questions")["QueueUrl"]
        code = {"ZipFile": function_archive(FUNCTION)}
        made = self.call(
            "lambda", "create_function", FunctionName="f", Runtime="python3.11", Role=self.role, Handler="index.handler", Code=code, Timeout=120
        )
        self.function = made["FunctionArn"]

    def call(self, service, operation, **input):
        """Calls until there is an answer."""
        clients = self.local.__dict__.setdefault("clients", {})
        pause = threading.Event()
        for _ in range(600):
            try:
                client = clients.get(service) or clients.setdefault(service, self.server.client(service))
                return getattr(client, operation)(**input)
            except NOT_ANSWERED:
                pause.wait(0.1)
        pytest.fail(f"{operation} was not answered within a minute")

    def urls(self, world, step):
        """For each run that a step may have, where it is put and where it is read."""
        connection = self.server.connection
        s3 = boto3.client(
            "s3",
            endpoint_url=self.server.endpoint,
            region_name="us-east-1",
            aws_access_key_id=connection["access_key_id"],
            aws_secret_access_key=connection["secret_access_key"],
            config=Config(signature_version="s3v4"),
        )
        keys = [f"runs/{world.name}/{step.name}/{number}" for number in range(MOST_RUNS)]
        sign = lambda operation, key: s3.generate_presigned_url(operation, {"Bucket": self.bucket, "Key": key}, ExpiresIn=36000)
        return [(sign("put_object", key), sign("get_object", key)) for key in keys]

    def code(self, world, step):
        key = f"code/{world.name}/{step.name}.py"
        self.call("s3", "put_object", Bucket=self.bucket, Key=key, Body=world.job_code(step, self.urls(world, step)).encode())
        return f"s3://{self.bucket}/{key}"

    def runs(self, world, step):
        listed = self.call("s3", "list_objects_v2", Bucket=self.bucket, Prefix=f"runs/{world.name}/{step.name}/")
        return listed.get("KeyCount", 0)


class Answers(threading.Thread):
    """Answers Callback steps as their worlds say."""

    def __init__(self, place):
        super().__init__(daemon=True)
        self.place, self.worlds, self.done = place, {}, threading.Event()
        # Tokens that were asked with, by execution and step.
        self.tokens = {}
        self.problem = None

    def run(self):
        try:
            while not self.done.is_set():
                self.round()
        except Exception as error:
            self.problem = error

    def round(self):
        place = self.place
        answer = place.call("sqs", "receive_message", QueueUrl=place.queue, WaitTimeSeconds=1, MaxNumberOfMessages=10)
        for message in answer.get("Messages", []):
            asked = json.loads(message["Body"])
            arn, name, token = (asked[member] for member in ("pipelineExecutionArn", "stepName", "token"))
            if asked["status"] == "Executing":
                # Its execution may have been started without an answer.
                world = poll(lambda: self.worlds.get(arn.split("/")[1]), "the world is known")
                step = world.step(name)
                expected = step.reads.value if step.reads else 0
                assert asked["arguments"] == {"read": expected}, f"{arn} {name}: {asked}"
                self.tokens.setdefault((arn, name), set()).add(token)
                self.answer(step, token)
            try:
                place.call("sqs", "delete_message", QueueUrl=place.queue, ReceiptHandle=message["ReceiptHandle"])
            except botocore.exceptions.ClientError:
                # An earlier try, whose answer was lost, deleted it.
                pass

    def answer(self, step, token):
        try:
            if step.fails:
                self.place.call("sagemaker", "send_pipeline_execution_step_failure", CallbackToken=token, FailureReason=f"{step.name} says no")
            else:
                told = [{"Name": "n", "Value": str(step.value)}]
                self.place.call("sagemaker", "send_pipeline_execution_step_success", CallbackToken=token, OutputParameters=told)
        except botocore.exceptions.ClientError as error:
            # The execution was stopped, or the message came twice.
            assert "has ended" in str(error), error


class Play:
    """One world in one place: started, perhaps stopped, retried, run again; and compared."""

    def __init__(self, place, answers, world, chance):
        self.place, self.answers, self.world, self.chance = place, answers, world, chance
        # What there is of each step so far, of all executions; and which steps ended well in one.
        self.counted, self.reusable, self.arns = {}, set(), []
        answers.worlds[world.name] = world
        definition = json.dumps(world.definition(place))
        self.call("create_pipeline", PipelineName=world.name, RoleArn=place.role, PipelineDefinition=definition, ClientRequestToken=self.token())

    def call(self, operation, **input):
        return self.place.call("sagemaker", operation, **input)

    def token(self):
        return f"{self.chance.getrandbits(128):032x}"

    def start(self):
        most = self.world.most_parallel
        more = {"ParallelismConfiguration": {"MaxParallelExecutionSteps": most}} if most else {}
        started = self.call("start_pipeline_execution", PipelineName=self.world.name, ClientRequestToken=self.token(), **more)
        self.arns.append(started["PipelineExecutionArn"])
        return self.arns[-1]

    def wait(self, arn):
        def ended():
            execution = self.call("describe_pipeline_execution", PipelineExecutionArn=arn)
            return execution if execution["PipelineExecutionStatus"] in ENDED else None

        return poll(ended, f"{arn} ends", 300)

    def play(self):
        arn = self.start()
        if self.world.stops:
            self.stop(arn)
        else:
            said, is_sure = self.compare(arn, {})
            if is_sure and any(status == "Failed" for status, _ in said.values()):
                self.call("retry_pipeline_execution", PipelineExecutionArn=arn, ClientRequestToken=self.token())
                said, is_sure = self.compare(arn, said)
            self.reusable = {name for name, step in self.steps(arn).items() if step["StepStatus"] == "Succeeded"}
            if any(step.cached for step in self.world.steps):
                self.compare(self.start(), {})
        listed = self.call("list_pipeline_executions", PipelineName=self.world.name, MaxResults=100)
        there = {execution["PipelineExecutionArn"] for execution in listed["PipelineExecutionSummaries"]}
        assert there == set(self.arns), "each acknowledged start is one execution"

    def stop(self, arn):
        """What a stop leaves is not known; but nothing goes on, and nothing happened more often than it may."""
        threading.Event().wait(self.chance.random() * 2)
        try:
            self.call("stop_pipeline_execution", PipelineExecutionArn=arn)
        except botocore.exceptions.ClientError as error:
            assert "can be stopped" in str(error), error
        self.wait(arn)
        said = self.world.said({}, set(), {})
        for name, step in self.steps(arn).items():
            status, attempts = said[name]
            assert step["StepStatus"] in ENDED and status and step["AttemptCount"] <= attempts, (arn, step, said)
            assert self.effects(self.world.step(name)) <= attempts, (arn, step)

    def steps(self, arn):
        listed = self.call("list_pipeline_execution_steps", PipelineExecutionArn=arn, MaxResults=100)
        return {step["StepName"]: step for step in listed["PipelineExecutionSteps"]}

    def compare(self, arn, kept):
        """Compares an execution that ends with what the interpreter says; whether all of that was sure, and what it was."""
        execution, world = self.wait(arn), self.world
        said = world.said(self.counted, self.reusable, kept)
        steps = self.steps(arn)
        told = {name: (step["StepStatus"], step["AttemptCount"]) for name, step in steps.items()}
        reason = execution.get("FailureReason", "")
        what = f"{arn}\n{world}\nsaid {said}\ntold {told}\n{reason}"
        expected = "Failed" if any(status == "Failed" for status, _ in said.values()) else "Succeeded"
        assert execution["PipelineExecutionStatus"] == expected, what
        is_sure = not any(world.step(name).kind == "Fail" for name, (status, _) in said.items() if status)
        if is_sure:
            assert told == {name: one for name, one in said.items() if one[0]}, what
        else:
            # A Fail step stops what is under way, wherever that is.
            failed = [name for name in told if world.step(name).kind == "Fail"]
            assert failed and all(told[name][0] == "Failed" for name in failed), what
            assert any(f"told by {name} 0" in reason for name in failed), what
            for name, (status, attempts) in told.items():
                assert said[name][0] and status in (said[name][0], "Stopped") and attempts <= said[name][1], what
        for name, step in steps.items():
            of = world.step(name)
            if step["StepStatus"] == "Succeeded" and name not in kept:
                self.check_result(of, step, what)
            self.check_effects(of, said[name], kept.get(name, (None, 0)), is_sure, what)
        return said, is_sure

    def check_result(self, of, step, what):
        if of.kind == "Condition":
            assert step["Metadata"]["Condition"]["Outcome"] == str(self.world.outcome(of)), what
        if of.kind in ("Callback", "Lambda"):
            assert step["Metadata"][of.kind]["OutputParameters"] == [{"Name": "n", "Value": str(of.value)}], what
        assert ("CacheHitResult" in step) == (of.cached and of.name in self.reusable), what

    def check_effects(self, step, said, kept, is_sure, what):
        """Counts what a step did in the world outside."""
        if step.kind in ("Condition", "Fail"):
            return
        status, attempts = said
        runs = attempts - kept[1]
        if step.cached and step.name in self.reusable:
            runs = 0
        # A model that cannot be made is not there; a run, a function's call and a question are, even if they end badly.
        made = runs if step.kind in ("Processing", "Lambda", "Callback") else int(status == "Succeeded" and runs > 0)
        counted = self.effects(step)
        expected = self.counted.get(step.name, 0) + made
        self.counted[step.name] = counted
        # Of a step that was stopped nobody knows how far it came.
        fits = counted == expected if is_sure else counted <= expected
        assert fits, f"{step.name} ({step.kind}) has {counted} effects, not {expected}\n{what}"

    def effects(self, step):
        if step.kind in ("Processing", "Lambda"):
            return self.place.runs(self.world, step)
        if step.kind == "Model":
            names = [f"{arn.split('/')[-1]}-{step.name}-" for arn in self.arns]
            return sum(len(self.call("list_models", NameContains=name, MaxResults=100)["Models"]) for name in names)
        if step.kind == "RegisterModel":
            try:
                group = f"{self.world.name}-{step.name}"
                return len(self.call("list_model_packages", ModelPackageGroupName=group)["ModelPackageSummaryList"])
            except botocore.exceptions.ClientError:
                return 0
        return sum(len(self.answers.tokens.get((arn, step.name), ())) for arn in self.arns)


@pytest.fixture
def faulty_server(tmp_path):
    server = FaultyServer(tmp_path)
    yield server.start()
    stop_all(server)


def play_all(place, worlds, chance, disturb):
    """Plays worlds side by side while `disturb` is called, until it has had enough and all are over."""
    answers = Answers(place)
    answers.start()
    failures, left = [], list(worlds)
    lock = threading.Lock()

    def play():
        while not failures:
            with lock:
                if not left:
                    return
                world = left.pop(0)
                luck = random.Random(chance.random())
            try:
                Play(place, answers, world, luck).play()
            except BaseException as error:
                failures.append((world.name, error))

    players = [threading.Thread(target=play) for _ in range(WORLDS_AT_ONCE)]
    for player in players:
        player.start()
    while any(player.is_alive() for player in players) and not failures:
        disturb()
    for player in players:
        player.join(400)
    answers.done.set()
    answers.join(90)
    if failures:
        raise AssertionError(failures[0][0]) from failures[0][1]
    if answers.problem:
        raise answers.problem


def test_random_pipelines_killed_at_random(faulty_server, pytestconfig):
    seed = pytestconfig.getoption("--seed") or random.randrange(1 << 32)
    kills = pytestconfig.getoption("--pipeline-kills")
    print(f"to repeat: --seed {seed} --pipeline-kills {kills}")
    chance = random.Random(seed)
    server, place = faulty_server, Place(faulty_server)
    left = [kills]
    pause = threading.Event()

    def kill():
        pause.wait(0.3 + chance.random() * 1.2)
        if left[0]:
            left[0] -= 1
            server.kill()
            server.start()

    play_all(place, [World(seed, number) for number in range(max(4, kills // 2))], chance, kill)
    running = place.call("sagemaker", "list_processing_jobs", StatusEquals="InProgress")["ProcessingJobSummaries"]
    assert not running, "nothing goes on"


def small_world():
    """Steps that end as they begin, that wait, a branch, a failure: one after the other, and quick."""
    world = World(0, 0)
    world.name, world.stops, world.most_parallel = "commits", False, None
    kinds = ["Model", "RegisterModel", "Callback", "Condition", "Callback", "Model", "Model"]
    steps = [Step(at, kind, None, True) for at, kind in enumerate(kinds)]
    for before, step in zip(steps, steps[1:]):
        step.depends_on = [before.name]
    steps[3].reads, steps[3].compares, steps[3].against = steps[2], "Equals", steps[2].value
    steps[4].parent = steps[5].parent = steps[3]
    steps[4].reads = steps[2]
    steps[6].fails = ALWAYS
    world.steps = steps
    return world


@pytest.mark.parametrize("point", ["database-commit", "database-committed"])
def test_killed_at_each_commit(faulty_server, point):
    """Of each server two commits come through, of the walk or of what it calls, and the third one ends it. It is one more after every 15
    servers: on a slow disk those two may be of the start."""
    server, place = faulty_server, Place(faulty_server)
    deaths = [0]

    def kill():
        server.arm(point, f"skip {2 + deaths[0] // 15} abort")
        died = threading.Event()
        for _ in range(40):
            if server.has_died():
                deaths[0] += 1
                break
            died.wait(0.05)
        server.disarm(point)
        server.restart()

    play_all(place, [small_world()], random.Random(1), kill)
    assert deaths[0] > 10, f"the server died only {deaths[0]} times"
