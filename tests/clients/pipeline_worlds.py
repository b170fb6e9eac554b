"""Random pipelines: what each of their steps does and whether it fails, and a slow interpreter that says what must come of them."""

import random

from conftest import BASE_IMAGE

ALWAYS = 99
# Runs of one step that can be told apart: three executions or retries, each with three attempts, and one more that must not be.
MOST_RUNS = 10

# Puts an object for each run, under a number that no other run has: runs can be counted, and none of them hides another.
COUNTED = """
import time, urllib.error, urllib.request, uuid

def ask(url, body=None):
    while True:
        try:
            headers = {"If-None-Match": "*"} if body else {}
            request = urllib.request.Request(url, body, headers, method="PUT" if body else "GET")
            return urllib.request.urlopen(request, timeout=30).read()
        except urllib.error.HTTPError as error:
            if error.code == 412:
                return None
            if error.code < 500:
                raise
            problem = error
        except OSError as error:
            # The server was killed; it comes back at the same address.
            problem = error
        print("asks again:", problem, flush=True)
        time.sleep(0.2)

def run(urls):
    me = uuid.uuid4().hex.encode()
    for number, (put, get) in enumerate(urls):
        if ask(put, me) is not None or ask(get) == me:
            return number
    raise RuntimeError("there were too many runs")
"""

JOB = """
import json
number = run({urls!r})
with open("/opt/ml/processing/metrics/metrics.json", "w") as file:
    json.dump({{"n": {value}}}, file)
if number < {fails}:
    raise RuntimeError("InsufficientCapacity of run %d" % number)
"""

FUNCTION = COUNTED + """
def handler(event, context):
    run(event["urls"])
    if event["fails"]:
        raise RuntimeError("the function was told to fail")
    return {"n": event["n"]}
"""


class Step:
    """One step of a random pipeline."""

    def __init__(self, at, kind, parent, side):
        self.name, self.kind, self.parent, self.side = f"s{at}", kind, parent, side
        self.depends_on, self.reads, self.value = [], None, at * 10
        # Runs that fail before one ends well, and runs that one attempt of the pipeline may have.
        self.fails, self.most = 0, 1
        self.cached = False
        # Of a Condition: comparison and right side; the left side is what it reads, or a number.
        self.compares, self.against = None, None

    def __str__(self):
        shown = {**vars(self), "parent": self.parent and self.parent.name, "reads": self.reads and self.reads.name}
        return " ".join(f"{name}={value}" for name, value in shown.items() if value not in (None, [], False))


class World:
    """A pipeline, and what becomes of its steps."""

    def __init__(self, seed, number):
        self.name = f"world-{seed}-{number}"
        chance = random.Random(f"{seed}/{number}")
        self.steps, self.stops = [], chance.random() < 0.2
        self.most_parallel = chance.choice([None, None, 1, 2])
        self.in_experiment = chance.random() < 0.5
        kinds = ["Condition", "Condition", "Model", "Model", "RegisterModel", "Callback", "Callback", "Lambda", "Processing", "Processing", "Fail"]
        for at in range(chance.randrange(5, 10)):
            conditions = [step for step in self.steps if step.kind == "Condition"]
            parent = chance.choice(conditions) if conditions and chance.random() < 0.6 else None
            kind = chance.choice(kinds)
            if kind == "Fail" and parent is None:
                kind = "Model"
            step = Step(at, kind, parent, chance.random() < 0.6)
            for other in self.steps:
                if chance.random() < 0.2:
                    step.depends_on.append(other.name)
            readable = [other for other in self.steps if other.kind in ("Callback", "Lambda", "Processing")]
            if readable and kind in ("Condition", "Callback", "Lambda") and chance.random() < 0.7:
                step.reads = chance.choice(readable)
            if kind == "Condition":
                step.compares = chance.choice(["Equals", "GreaterThan", "LessThanOrEqualTo", "Not", "Or"])
                step.against = chance.choice([0, 10, 20, 30, 40])
            elif kind != "Fail" and chance.random() < 0.2:
                step.fails = ALWAYS
            elif kind == "Processing" and chance.random() < 0.5:
                step.fails = chance.randrange(1, 3)
            if kind == "Processing":
                step.most = chance.choice([1, 2, 3])
                step.cached = chance.random() < 0.5
            self.steps.append(step)

    def __str__(self):
        return "\n".join(str(step) for step in self.steps)

    def step(self, name):
        return next(step for step in self.steps if step.name == name)

    # What SageMaker is told.

    def definition(self, place):
        """`place` has what the steps need: role, bucket, queue, function, and `urls(world, step)`."""
        top = [self.written(step, place) for step in self.steps if step.parent is None]
        written = {"Version": "2020-12-01", "Parameters": [{"Name": "Zero", "Type": "Integer", "DefaultValue": 0}], "Steps": top}
        if self.in_experiment:
            names = {"ExperimentName": {"Get": "Execution.PipelineName"}, "TrialName": {"Get": "Execution.PipelineExecutionId"}}
            written["PipelineExperimentConfig"] = names
        return written

    def written(self, step, place):
        written = {"Name": step.name, "Type": step.kind, "DependsOn": step.depends_on}
        written.update(getattr(self, "write_" + step.kind.lower())(step, place))
        return written

    def value_of(self, step):
        other = step.reads
        if other is None:
            return {"Get": "Parameters.Zero"}
        if other.kind == "Processing":
            return {"Std:JsonGet": {"PropertyFile": {"Get": f"Steps.{other.name}.PropertyFiles.Metrics"}, "Path": "n"}}
        return {"Get": f"Steps.{other.name}.OutputParameters['n']"}

    def write_condition(self, step, place):
        compare = {"Type": "Equals", "LeftValue": self.value_of(step), "RightValue": step.against}
        never = {"Type": "GreaterThan", "LeftValue": 0, "RightValue": {"Get": "Parameters.Zero"}}
        conditions = {
            "Not": {"Type": "Not", "Condition": compare},
            "Or": {"Type": "Or", "Conditions": [never, compare]},
        }
        branches = {
            member: [self.written(inner, place) for inner in self.steps if inner.parent is step and inner.side is side]
            for member, side in (("IfSteps", True), ("ElseSteps", False))
        }
        return {"Arguments": {"Conditions": [conditions.get(step.compares, {**compare, "Type": step.compares})], **branches}}

    def write_fail(self, step, place):
        return {"Arguments": {"ErrorMessage": {"Std:Join": {"On": " ", "Values": ["told by", step.name, {"Get": "Parameters.Zero"}]}}}}

    def write_model(self, step, place):
        arguments = {"ExecutionRoleArn": place.role, "PrimaryContainer": {"Image": BASE_IMAGE}}
        if step.fails:
            arguments = {"ExecutionRoleArn": place.role, "Containers": [{"ModelPackageName": place.no_package}]}
        return {"Arguments": arguments}

    def write_registermodel(self, step, place):
        # The object of a model that fails to be registered is not there.
        key = "missing" if step.fails else "model"
        container = {"Image": BASE_IMAGE, "ModelDataUrl": f"s3://{place.bucket}/{key}.tar.gz"}
        inference = {"Containers": [container], "SupportedContentTypes": ["text/csv"], "SupportedResponseMIMETypes": ["text/csv"]}
        return {"Arguments": {"ModelPackageGroupName": f"{self.name}-{step.name}", "InferenceSpecification": inference}}

    def write_callback(self, step, place):
        outputs = [{"OutputName": "n", "OutputType": "Integer"}]
        return {"SqsQueueUrl": place.queue, "Arguments": {"read": self.value_of(step)}, "OutputParameters": outputs}

    def write_lambda(self, step, place):
        arguments = {"urls": place.urls(self, step), "n": step.value, "fails": step.fails > 0, "read": self.value_of(step)}
        outputs = [{"OutputName": "n", "OutputType": "Integer"}]
        return {"FunctionArn": place.function, "Arguments": arguments, "OutputParameters": outputs}

    def write_processing(self, step, place):
        code = {"S3Uri": place.code(self, step), "LocalPath": "/opt/ml/processing/input/code", "S3DataType": "S3Prefix", "S3InputMode": "File"}
        metrics = {"S3Uri": f"s3://{place.bucket}/metrics/{self.name}/{step.name}", "LocalPath": "/opt/ml/processing/metrics"}
        written = {
            "Arguments": {
                "AppSpecification": {
                    "ImageUri": BASE_IMAGE,
                    "ContainerEntrypoint": ["python3", f"/opt/ml/processing/input/code/{step.name}.py"],
                },
                "ProcessingInputs": [{"InputName": "code", "S3Input": code}],
                "ProcessingOutputConfig": {"Outputs": [{"OutputName": "metrics", "S3Output": {**metrics, "S3UploadMode": "EndOfJob"}}]},
                "ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}},
                "RoleArn": place.role,
            },
            "PropertyFiles": [{"PropertyFileName": "Metrics", "OutputName": "metrics", "FilePath": "metrics.json"}],
            "CacheConfig": {"Enabled": step.cached},
        }
        if step.most > 1:
            policy = {"ExceptionType": ["SageMaker.CAPACITY_ERROR"], "IntervalSeconds": 1, "BackoffRate": 1, "MaxAttempts": step.most - 1}
            written["RetryPolicies"] = [policy]
        return written

    def job_code(self, step, urls):
        return COUNTED + JOB.format(urls=urls, value=step.value, fails=step.fails)

    # What must come of it.

    def outcome(self, step):
        """What a Condition comes to."""
        left = step.reads.value if step.reads else 0
        equal = left == step.against
        return {"GreaterThan": left > step.against, "LessThanOrEqualTo": left <= step.against, "Not": not equal}.get(step.compares, equal)

    def says(self, step, ran, reusable, kept):
        """Status and attempts of a step.

        `ran` counts the runs that it has had, `reusable` has the steps that ended well in an earlier execution, and `kept` is what
        this execution left before it was retried.
        """
        status, attempts = kept.get(step.name, (None, 0))
        if status == "Succeeded":
            return status, attempts
        waits = [self.step(name) for name in step.depends_on] + [other for other in (step.reads, step.parent) if other]
        for other in waits:
            said, _ = self.says(other, ran, reusable, kept)
            if said != "Succeeded" or (other is step.parent and self.outcome(other) is not step.side):
                return None, 0
        if step.kind == "Fail":
            return "Failed", attempts + 1
        if step.kind == "Condition" or (step.cached and step.name in reusable):
            return "Succeeded", attempts + 1
        for runs in range(1, step.most + 1):
            if ran.get(step.name, 0) + runs > step.fails:
                return "Succeeded", attempts + runs
        return "Failed", attempts + step.most

    def said(self, ran, reusable, kept):
        """What becomes of every step: `{name: (status, attempts)}`."""
        return {step.name: self.says(step, ran, reusable, kept) for step in self.steps}
