"""`smspark-submit` of the Spark processing image: runs an application on a local Spark, with the options of the real one.

The first host of a job runs the application on all of its own CPUs; other hosts have nothing to do and end at once. Paths of S3
work in every place, through the gateway that runs beside the application.
"""

import argparse
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
from xml.sax.saxutils import escape

import s3_gateway

CONFIGURATION = "/opt/ml/processing/input/conf/configuration.json"
RESOURCES = "/opt/ml/config/resourceconfig.json"
FAILURE = "/opt/ml/output/failure"
# What a cluster keeps beside its programs.
SPARK_FOLDER = "/opt/ml/processing/.spark"

# Classifications whose properties are Hadoop's.
HADOOP = ("core-site", "hdfs-site", "mapred-site", "spark-hive-site")
# Classifications whose inner part `export` has variables.
EXPORTING = ("spark-env", "hadoop-env")

# What a folder that was given as an option's value contributes.
SUFFIXES = {"py_files": (".py", ".zip", ".egg"), "jars": (".jar",), "files": ("",)}


class Refusal(Exception):
    """Why the application is not started; a sentence for the user."""


def parse(words):
    parser = argparse.ArgumentParser(prog="smspark-submit", allow_abbrev=False)
    parser.add_argument("--class", dest="main_class")
    parser.add_argument("--jars", default="")
    parser.add_argument("--files", default="")
    parser.add_argument("--py-files", default="")
    parser.add_argument("--local-spark-event-logs-dir")
    parser.add_argument("--spark-event-logs-s3-uri")
    parser.add_argument("-v", "--verbose", action="store_true")
    parser.add_argument("application")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser.parse_args(words)


def dependencies(option, value):
    """The files of an option: those of a folder that the SDK has uploaded, and others as they are named."""
    found = []
    for one in filter(None, value.split(",")):
        if not os.path.isdir(one):
            found.append(one)
            continue
        for folder, _, names in sorted(os.walk(one)):
            found += [os.path.join(folder, name) for name in sorted(names) if name.endswith(SUFFIXES[option])]
    return found


def settings(configuration):
    """Spark's properties, and variables of the environment, of the classifications of a configuration."""
    properties, variables = {}, {}
    for part in [configuration] if isinstance(configuration, dict) else configuration:
        name, own = part.get("Classification"), part.get("Properties") or {}
        if name == "spark-defaults":
            properties.update(own)
        elif name in HADOOP:
            properties.update({f"spark.hadoop.{key}": value for key, value in own.items()})
        elif name in EXPORTING and not own:
            for inner in part.get("Configurations") or []:
                if inner.get("Classification") != "export":
                    raise Refusal(f"the classification {inner.get('Classification')!r} in {name} is not known here.")
                variables.update(inner.get("Properties") or {})
        # A local Spark has the whole machine that it was given anyway.
        elif name != "spark" or set(own) - {"maximizeResourceAllocation"}:
            raise Refusal(
                f"configuration: the classification {name!r} means nothing to a local Spark; leave it out. What does: "
                f"spark-defaults, {', '.join(HADOOP)}, and {' and '.join(EXPORTING)} with export."
            )
    return properties, variables


def java():
    """The folder of a Java runtime: JAVA_HOME, that of the PATH, or one of the system."""
    home = os.environ.get("JAVA_HOME")
    if home and os.path.exists(os.path.join(home, "bin/java")):
        return home
    places = [shutil.which("java"), *sorted(glob.glob("/usr/lib/jvm/*/bin/java"), reverse=True)]
    for place in filter(None, places):
        real = os.path.realpath(place)
        if os.path.exists(real):
            return os.path.dirname(os.path.dirname(real))
    raise Refusal(
        "Spark needs Java, which this machine does not have: install a Java runtime, for example with "
        "`apt-get install openjdk-17-jre-headless`."
    )


def spark():
    """The program spark-submit of the package pyspark."""
    try:
        import pyspark
    except ImportError:
        raise Refusal(
            "the package pyspark is not in the environment of this image: add it to the packages of the image in the image "
            "catalogue (docs/images.md), for example \"pyspark==3.5.*\"."
        ) from None
    return os.path.join(os.path.dirname(pyspark.__file__), "bin/spark-submit")


def defaults(properties):
    """Properties of a Spark that has one machine, with others laid over them."""
    return {"spark.master": f"local[{len(os.sched_getaffinity(0))}]", "spark.ui.enabled": "false", **properties}


def command(program, asked):
    words = [program]
    if asked.local_spark_event_logs_dir:
        words += ["--conf", "spark.eventLog.enabled=true"]
        words += ["--conf", "spark.eventLog.dir=file://" + asked.local_spark_event_logs_dir]
    if asked.main_class:
        words += ["--class", asked.main_class]
    for option in SUFFIXES:
        files = dependencies(option, getattr(asked, option))
        if files:
            words += ["--" + option.replace("_", "-"), ",".join(files)]
    if asked.verbose:
        words.append("--verbose")
    return [*words, asked.application, *asked.arguments]


def write_configuration(folder, properties, hadoop):
    """The files in which Spark and Hadoop look for settings. The command line would show them to everybody."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "spark-defaults.conf"), "w", encoding="utf-8") as file:
        for name, value in sorted(properties.items()):
            if "\n" in f"{name}{value}" or any(letter.isspace() for letter in name):
                raise Refusal(f"configuration: the property {name!r} cannot be written down; it has white space that it must not have.")
            file.write(f"{name} {value}\n")
    entries = "".join(f"<property><name>{name}</name><value>{escape(value)}</value></property>" for name, value in hadoop.items())
    # Hadoop reads the defaults of a part after the settings of an earlier one: each file has them all.
    for part in ("core", "hdfs", "mapred"):
        with open(os.path.join(folder, f"{part}-site.xml"), "w", encoding="utf-8") as file:
            file.write(f"<configuration>{entries}</configuration>")


def environment_of(gateway, properties, variables):
    """The environment of an application, whose settings are written beside it."""
    folder = os.path.join(SPARK_FOLDER, "conf")
    write_configuration(folder, defaults(properties), gateway.properties())
    own = {
        "PYSPARK_PYTHON": sys.executable,
        "JAVA_HOME": java(),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_CONF_DIR": folder,
        "HADOOP_CONF_DIR": folder,
    }
    environment = {**os.environ, **own, **variables}
    # What a cluster keeps beside its programs goes where the job may write.
    environment.setdefault("SPARK_LOCAL_DIRS", SPARK_FOLDER)
    environment["SPARK_SUBMIT_OPTS"] = f"{environment.get('SPARK_SUBMIT_OPTS', '')} {gateway.java_options()}".strip()
    return environment


def run(words, environment, **streams):
    """Runs a program to its end, passes a wish to stop on to it, and ends as it did."""
    child = subprocess.Popen(words, env=environment, **streams)
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda number, _: child.send_signal(number))
    return child


def exit_code(status):
    """The status of an ended child as a shell would tell it."""
    return 128 - status if status < 0 else status


def load(path, default):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return default


def submit(words):
    asked = parse(words)
    resources = load(RESOURCES, {})
    hosts = resources.get("hosts") or [None]
    if resources.get("current_host") not in (None, hosts[0]):
        print(f"smspark-submit: a local Spark runs the application on {hosts[0]} alone; this host has nothing to do", flush=True)
        return
    properties, variables = settings(load(CONFIGURATION, []))
    if asked.spark_event_logs_s3_uri:
        raise Refusal("--spark-event-logs-s3-uri is not done here: use spark_event_logs_s3_uri of the SDK's run().")
    if asked.local_spark_event_logs_dir:
        os.makedirs(asked.local_spark_event_logs_dir, exist_ok=True)
    program = spark()
    gateway = s3_gateway.Gateway()
    environment = environment_of(gateway, properties, variables)
    words = command(program, asked)
    print("smspark-submit:", *words, flush=True)
    gateway.start()
    sys.exit(exit_code(run(words, environment).wait()))


def refuse(program, refusal):
    """Ends with a sentence, which the job's failure card has too."""
    print(f"{program}: {refusal}", file=sys.stderr, flush=True)
    with open(FAILURE, "w", encoding="utf-8") as file:
        file.write(f"{program}: {refusal}")
    sys.exit(1)


def main():
    try:
        submit(sys.argv[1:])
    except Refusal as refusal:
        refuse("smspark-submit", refusal)


if __name__ == "__main__":
    main()
