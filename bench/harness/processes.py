"""Starting and ending the servers under measurement, each by its own process id."""

import http.client
import os
import signal
import socket
import subprocess
import time


def clean_environment(**more):
    """This process's environment without what may be set for real AWS."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SAGEMAKER_", "MODELYARD_"))}
    return {**kept, **{name: str(value) for name, value in more.items()}}


def free_port():
    """A port that was free a moment ago, for servers that cannot pick one."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def answers(address, path):
    """Whether GET on a path is answered with 200."""
    host, port = address.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


class Process:
    """A server process; its output goes to a log file. Use it in a `with` statement."""

    def __init__(self, command, log, environment=None, read_output=False):
        self.log = log
        with open(log, "ab") as file:
            self.spawned_at = time.perf_counter()
            self.process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if read_output else file,
                stderr=file,
                text=True,
                env=environment or clean_environment(),
                start_new_session=True,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def wait_until_answers(self, address, path, seconds=60):
        """Waits for the first 200; returns the seconds since the process was spawned."""
        end = time.perf_counter() + seconds
        while not answers(address, path):
            if self.process.poll() is not None or time.perf_counter() > end:
                raise SystemExit(f"{self.process.args[0]} does not answer at {address}{path}; see {self.log}")
            time.sleep(0.002)
        return time.perf_counter() - self.spawned_at

    def line_with(self, text):
        """Reads the output up to a line that contains the text; returns the line."""
        for line in self.process.stdout:
            if text in line:
                return line.strip()
        raise SystemExit(f"{self.process.args[0]} ended before it said {text!r}; see {self.log}")

    def resident_bytes(self):
        """Resident memory of the process and its children."""
        return sum(resident_bytes(pid) for pid in [self.process.pid, *children(self.process.pid)])

    def end(self):
        """SIGTERM, then SIGKILL after ten seconds."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


def resident_bytes(pid):
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def children(pid):
    """Process ids of all descendants."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as file:
            for child in file.read().split():
                found += [int(child), *children(int(child))]
    return found


def cpu_seconds(pids):
    """Processor time of processes so far, of user code and of the kernel for it."""
    ticks = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat") as file:
                # The name in parentheses may hold anything.
                fields = file.read().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def proportional_bytes(pids):
    """Memory of processes; what several share is counted once."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                total += sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return total


def all_that_mention(folder):
    """Ids of processes whose command line or environment names a folder that only this run uses, but for this one."""
    mark = os.fsencode(folder)
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/cmdline", "rb") as command, open(f"/proc/{name}/environ", "rb") as environment:
                if mark in command.read() or mark in environment.read():
                    found.append(int(name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def end_all_that_mention(folder):
    """Ends processes whose command line or environment names a folder that only this run uses."""
    for pid in all_that_mention(folder):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
