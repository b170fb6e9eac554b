"""`spark-submit` for steps that were written for a cluster: takes the cluster's options away, and runs on this machine."""

import os
import sys

import spark

# Options that say where a cluster is to run the application; each has a value.
OF_CLUSTERS = ("--master", "--deploy-mode", "--queue", "--num-executors", "--executor-cores", "--total-executor-cores")
OF_CLUSTERS += ("--driver-cores", "--keytab", "--principal")
# Properties that say the same.
PROPERTIES = ("spark.master", "spark.submit.deployMode", "spark.yarn.", "spark.dynamicAllocation.", "spark.executor.instances")
# Options of spark-submit without a value.
FLAGS = ("--verbose", "-v", "--supervise", "--help", "-h", "--version")
UNITS = {"k": 1, "m": 1 << 10, "g": 1 << 20, "t": 1 << 30}


def kibibytes(text):
    """A size of Java's, for comparisons; 0 for what is none."""
    number, unit = text.strip().lower().rstrip("b"), "m"
    if number and number[-1] in UNITS:
        number, unit = number[:-1], number[-1]
    return int(number) * UNITS[unit] if number.isdigit() else 0


def local(words):
    """The arguments as a Spark of one machine takes them."""
    kept, memory, at = [], {"driver": "", "executor": ""}, 0
    while at < len(words):
        word, _, joined = words[at].partition("=")
        if not word.startswith("-"):
            break
        if word in FLAGS:
            kept.append(word)
            at += 1
            continue
        is_joined = "=" in words[at]
        value = joined if is_joined else words[at + 1] if at + 1 < len(words) else ""
        at += 1 if is_joined else 2
        is_property = word in ("--conf", "-c")
        name, _, setting = value.partition("=") if is_property else (word, "", value)
        part = {"--driver-memory": "driver", "spark.driver.memory": "driver"}.get(name)
        part = part or {"--executor-memory": "executor", "spark.executor.memory": "executor"}.get(name)
        if part:
            memory[part] = setting
        elif word not in OF_CLUSTERS and not (is_property and name.startswith(PROPERTIES)):
            kept += [word, value]
    # One process is driver and executor.
    largest = max(memory.values(), key=kibibytes)
    if largest:
        kept += ["--driver-memory", largest]
    return kept + words[at:]


def main():
    try:
        program = spark.spark()
    except spark.Refusal as refusal:
        spark.refuse("spark-submit", refusal)
    words = [program, *local(sys.argv[1:])]
    print("spark-submit:", *words[1:], file=sys.stderr, flush=True)
    os.execv(program, words)


if __name__ == "__main__":
    main()
