"""Notebook jobs with the SDK's own step: a notebook that ends well, and one whose cell fails."""

import io
import json
import tarfile
import textwrap

from conftest import poll

IMAGE = "885854791233.dkr.ecr.us-east-1.amazonaws.com/sagemaker-distribution-prod:1-cpu"

SCRIPT = """
    import sys
    from sagemaker.workflow.notebook_job_step import NotebookJobStep
    from sagemaker.workflow.parameters import ParameterString
    from sagemaker.workflow.pipeline import Pipeline
    from sagemaker.workflow.pipeline_context import PipelineSession
    role, bucket, image = sys.argv[1:]
    who = ParameterString("Who", default_value="world")
    common = dict(image_uri=image, kernel_name="python3", role=role, s3_root_uri=f"s3://{bucket}/notebooks")
    good = NotebookJobStep(
        name="Good", notebook_job_name="notebook-good", input_notebook="good.ipynb", initialization_script="init.sh",
        parameters={"who": who}, environment_variables={"PLACE": "here"}, additional_dependencies=["extra"], **common,
    )
    bad = NotebookJobStep(name="Bad", notebook_job_name="notebook-bad", input_notebook="bad.ipynb", **common)
    pipeline = Pipeline(name="notebook-jobs", parameters=[who], steps=[good, bad], sagemaker_session=PipelineSession())
    pipeline.upsert(role)
    print(pipeline.start(parameters={"Who": "yard"}).arn)
"""


def notebook(*cells):
    """A notebook of code cells; the first one holds the parameters."""
    listed = []
    for number, code in enumerate(cells):
        tags = ["parameters"] if number == 0 else []
        source = textwrap.dedent(code).strip().splitlines(keepends=True)
        cell = {"cell_type": "code", "id": f"cell-{number}", "metadata": {"tags": tags}, "execution_count": None}
        listed.append({**cell, "outputs": [], "source": source})
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return json.dumps({"cells": listed, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


def outputs(boto, job):
    """The files of a job's output."""
    uri = job["OutputDataConfig"]["S3OutputPath"].removeprefix("s3://").rstrip("/")
    bucket, prefix = uri.split("/", 1)
    key = f"{prefix}/{job['TrainingJobName']}/output/output.tar.gz"
    content = boto("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {member.name.split("/")[-1]: archive.extractfile(member).read() for member in archive if member.isfile()}


def printed(document):
    """What the cells of an executed notebook printed."""
    found = [output for cell in json.loads(document)["cells"] for output in cell.get("outputs", [])]
    return "".join("".join(output.get("text", [])) for output in found)


def test_notebooks_run_as_steps(boto, role, bucket, server, run_python, tmp_path):
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra" / "notes.txt").write_text("from a dependency")
    (tmp_path / "init.sh").write_text("export PREPARED=yes\n")
    good = """
        import os
        print("hello", who, os.environ["PLACE"], os.environ["PREPARED"], open("extra/notes.txt").read())
    """
    (tmp_path / "good.ipynb").write_text(notebook("who = 'nobody'", good))
    (tmp_path / "bad.ipynb").write_text(notebook("rows = 0", "print('before')", "1 / rows", "print('after')"))
    (tmp_path / "run.py").write_text(textwrap.dedent(SCRIPT))
    arn = run_python(tmp_path / "run.py", role, bucket, IMAGE).strip().splitlines()[-1]
    sagemaker = boto("sagemaker")

    def over():
        execution = sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
        return execution["PipelineExecutionStatus"] in ("Succeeded", "Failed", "Stopped")

    poll(over, "the notebooks end", seconds=300)
    listed = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]
    steps = {step["StepName"]: step for step in listed}

    def job(step):
        name = steps[step]["Metadata"]["TrainingJob"]["Arn"].split("/")[-1]
        return sagemaker.describe_training_job(TrainingJobName=name)

    assert steps["Good"]["StepStatus"] == "Succeeded", steps["Good"]
    document = outputs(boto, job("Good"))["notebook-good.ipynb"]
    assert printed(document) == "hello yard here yes from a dependency\n"
    assert steps["Bad"]["StepStatus"] == "Failed"
    reason = steps["Bad"]["FailureReason"]
    assert "cell In [3] of bad.ipynb failed: ZeroDivisionError: division by zero" in reason, reason
    document = outputs(boto, job("Bad"))["notebook-bad.ipynb"]
    assert "before" in printed(document) and "after" not in printed(document)
    why = server.command("jobs", "why", job("Bad")["TrainingJobName"])
    assert "ZeroDivisionError" in why, why
