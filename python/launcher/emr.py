"""Runs one step of an EMR cluster, or one job run of EMR Serverless, on a local Spark.

The arguments are the pieces of one JSON text: `Jar`, `MainClass`, `Args` and `Properties` of a cluster, or `SparkSubmit` of an
application; `Configurations`, `BootstrapActions` and `Logs`, the folder that takes copies of what is printed.
"""

import gzip
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import urllib.parse

import s3_gateway
import spark

# Where what comes from S3 is put.
FETCHED = os.path.join(spark.SPARK_FOLDER, "fetched")
# The jars of a cluster that run other programs.
COMMAND_RUNNER, SCRIPT_RUNNER = "command-runner.jar", "script-runner.jar"


def fetch(uri):
    """A file of S3 as a file of this machine; other names stay as they are."""
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme not in s3_gateway.SCHEMES:
        return uri
    os.makedirs(FETCHED, exist_ok=True)
    path = os.path.join(FETCHED, os.path.basename(parts.path))
    try:
        s3_gateway.client().download_file(parts.netloc, parts.path.lstrip("/"), path)
    except Exception as error:
        raise spark.Refusal(f"{uri} cannot be read: {error}") from None
    return path


def script(path):
    """The words that run a script: as its first line says, or else in a shell."""
    with open(path, "rb") as file:
        has_interpreter = file.read(2) == b"#!"
    os.chmod(path, 0o755)
    return [path] if has_interpreter else ["bash", path]


def words_of(step):
    """The program of a step, with its arguments."""
    if "SparkSubmit" in step:
        submit = step["SparkSubmit"]
        parameters = shlex.split(submit.get("Parameters") or "")
        entry = submit["EntryPoint"]
        # The main class of a jar is read from a file alone.
        entry = fetch(entry) if entry.endswith(".jar") else entry
        return ["spark-submit", *parameters, entry, *(submit.get("Arguments") or [])]
    jar, arguments = step["Jar"], step.get("Args") or []
    name = jar.rsplit("/", 1)[-1]
    if name == COMMAND_RUNNER:
        if not arguments:
            raise spark.Refusal("command-runner.jar needs Args: the program and its arguments, for example spark-submit.")
        return arguments
    if name == SCRIPT_RUNNER:
        if not arguments:
            raise spark.Refusal("script-runner.jar needs Args: the script and its arguments.")
        return [*script(fetch(arguments[0])), *arguments[1:]]
    main_class = ["--class", step["MainClass"]] if step.get("MainClass") else []
    return ["spark-submit", *main_class, fetch(jar), *arguments]


def quoted(text):
    """A word for SPARK_SUBMIT_OPTS."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def java_properties(step):
    return " ".join(quoted(f"-D{name}={value}") for name, value in (step.get("Properties") or {}).items())


class Copy:
    """A stream that goes to its place and, compressed, into a file."""

    def __init__(self, source, target, path):
        self.source, self.target, self.path = source, target, path
        self.thread = threading.Thread(target=self.copy)
        self.thread.start()

    def copy(self):
        # The name says when the file is whole: what is uploaded while it grows would be half of one.
        partial = os.path.join(spark.SPARK_FOLDER, os.path.basename(self.path))
        with gzip.open(partial, "wb") as kept:
            for line in self.source:
                self.target.write(line)
                self.target.flush()
                kept.write(line)
        shutil.move(partial, self.path)


def run(words, environment, logs):
    """Runs a program and answers its exit status."""
    if shutil.which(words[0], path=environment.get("PATH")) is None:
        raise spark.Refusal(
            f"{words[0]} is no program of this environment. There are spark-submit, spark-sql, pyspark, python3, bash and the "
            "programs of this machine; there is no Hadoop or Hive beside Spark."
        )
    if logs is None:
        return spark.run(words, environment).wait()
    os.makedirs(logs, exist_ok=True)
    child = spark.run(words, environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    copies = [
        Copy(child.stdout, sys.stdout.buffer, os.path.join(logs, "stdout.gz")),
        Copy(child.stderr, sys.stderr.buffer, os.path.join(logs, "stderr.gz")),
    ]
    status = child.wait()
    for copy in copies:
        copy.thread.join()
    return status


def perform(step):
    properties, variables = spark.settings(step.get("Configurations") or [])
    gateway = s3_gateway.Gateway()
    options = java_properties(step)
    if options:
        variables = {**variables, "SPARK_SUBMIT_OPTS": options}
    environment = spark.environment_of(gateway, properties, variables)
    gateway.start()
    for action in step.get("BootstrapActions") or []:
        words = [*script(fetch(action["Path"])), *(action.get("Args") or [])]
        print("bootstrap action:", *words, file=sys.stderr, flush=True)
        status = run(words, environment, None)
        if status != 0:
            raise spark.Refusal(f"the bootstrap action {action['Path']} ended with status {spark.exit_code(status)}.")
    words = words_of(step)
    print("step:", *words, file=sys.stderr, flush=True)
    return spark.exit_code(run(words, environment, step.get("Logs")))


def main():
    try:
        status = perform(json.loads("".join(sys.argv[1:])))
    except spark.Refusal as refusal:
        print(f"step: {refusal}", file=sys.stderr, flush=True)
        with open(spark.FAILURE, "w", encoding="utf-8") as file:
            file.write(str(refusal))
        status = 1
    sys.exit(status)


if __name__ == "__main__":
    main()
