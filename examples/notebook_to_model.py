"""From a table to an approved model that answers: a pipeline prepares, trains, evaluates, decides and registers; then the version
is approved, deployed and asked.

Runs unchanged against SageMaker in the cloud and against Modelyard: modelyard run -- python examples/notebook_to_model.py
"""

import csv
import shutil
import tempfile
import time
from pathlib import Path

import sagemaker
from sagemaker import ModelPackage, image_uris
from sagemaker.deserializers import JSONDeserializer
from sagemaker.inputs import TrainingInput
from sagemaker.model import Model
from sagemaker.model_metrics import MetricsSource, ModelMetrics
from sagemaker.predictor import Predictor
from sagemaker.processing import ProcessingInput, ProcessingOutput
from sagemaker.serializers import JSONSerializer
from sagemaker.sklearn import SKLearn, SKLearnProcessor
from sagemaker.workflow.condition_step import ConditionStep
from sagemaker.workflow.conditions import ConditionGreaterThanOrEqualTo
from sagemaker.workflow.fail_step import FailStep
from sagemaker.workflow.functions import Join, JsonGet
from sagemaker.workflow.model_step import ModelStep
from sagemaker.workflow.parameters import ParameterFloat, ParameterInteger, ParameterString
from sagemaker.workflow.pipeline import Pipeline
from sagemaker.workflow.pipeline_context import PipelineSession
from sagemaker.workflow.properties import PropertyFile
from sagemaker.workflow.steps import ProcessingStep, TrainingStep
from sklearn.datasets import load_wine

NAME = "wine"
SCRIPTS = Path(__file__).parent / "wine"
VERSION = "1.2-1"
INSTANCE = "ml.m5.large"

started = time.time()


def say(text):
    print(f"[{time.time() - started:6.1f} s] {text}", flush=True)


def upload(session, wine):
    """Puts the table into the bucket, one row a line, the label last."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "wine.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([*row, label] for row, label in zip(wine.data, wine.target))
        return session.upload_data(str(path), bucket=session.default_bucket(), key_prefix="examples/wine")


def build(session, role, data, scripts):
    """The pipeline: what runs, what for, and when the model is good enough."""
    source = ParameterString("Data", default_value=data)
    trees = ParameterInteger("Trees", default_value=100)
    least_accuracy = ParameterFloat("LeastAccuracy", default_value=0.9)
    approval = ParameterString("Approval", default_value="PendingManualApproval")

    processor = SKLearnProcessor(
        framework_version=VERSION, role=role, instance_type=INSTANCE, instance_count=1, sagemaker_session=session
    )
    prepare = ProcessingStep(
        "Prepare",
        step_args=processor.run(
            code=str(scripts / "prepare.py"),
            arguments=["--test-ratio", "0.3"],
            inputs=[ProcessingInput(source=source, destination="/opt/ml/processing/input")],
            outputs=[
                ProcessingOutput(output_name="train", source="/opt/ml/processing/train"),
                ProcessingOutput(output_name="test", source="/opt/ml/processing/test"),
            ],
        ),
    )
    prepared = prepare.properties.ProcessingOutputConfig.Outputs

    estimator = SKLearn(
        entry_point="train.py",
        source_dir=str(scripts),
        framework_version=VERSION,
        role=role,
        instance_type=INSTANCE,
        hyperparameters={"trees": trees},
        metric_definitions=[{"Name": "out-of-bag-accuracy", "Regex": "out_of_bag_accuracy=([0-9.]+)"}],
        sagemaker_session=session,
    )
    train = TrainingStep(
        "Train", step_args=estimator.fit({"train": TrainingInput(prepared["train"].S3Output.S3Uri)})
    )
    artifact = train.properties.ModelArtifacts.S3ModelArtifacts

    report = PropertyFile("Report", output_name="evaluation", path="evaluation.json")
    evaluate = ProcessingStep(
        "Evaluate",
        step_args=processor.run(
            code=str(scripts / "evaluate.py"),
            inputs=[
                ProcessingInput(source=artifact, destination="/opt/ml/processing/model"),
                ProcessingInput(source=prepared["test"].S3Output.S3Uri, destination="/opt/ml/processing/test"),
            ],
            outputs=[ProcessingOutput(output_name="evaluation", source="/opt/ml/processing/evaluation")],
        ),
        property_files=[report],
    )
    evaluation = evaluate.properties.ProcessingOutputConfig.Outputs["evaluation"].S3Output.S3Uri
    accuracy = JsonGet(
        step_name=evaluate.name, property_file=report, json_path="multiclass_classification_metrics.accuracy.value"
    )

    # The script that serves is packed into the model's archive by a step that the SDK adds.
    model = Model(
        image_uri=image_uris.retrieve("sklearn", session.boto_region_name, version=VERSION, instance_type=INSTANCE),
        model_data=artifact,
        entry_point="inference.py",
        source_dir=str(scripts),
        role=role,
        sagemaker_session=session,
    )
    register = ModelStep(
        "Register",
        step_args=model.register(
            content_types=["application/json"],
            response_types=["application/json"],
            inference_instances=[INSTANCE],
            model_package_group_name=NAME,
            approval_status=approval,
            model_metrics=ModelMetrics(
                model_statistics=MetricsSource(
                    s3_uri=Join(on="/", values=[evaluation, "evaluation.json"]), content_type="application/json"
                )
            ),
        ),
    )
    refuse = FailStep("Refuse", error_message=Join(on=" ", values=["The model's accuracy is below", least_accuracy]))
    judge = ConditionStep(
        "Judge",
        conditions=[ConditionGreaterThanOrEqualTo(left=accuracy, right=least_accuracy)],
        if_steps=[register],
        else_steps=[refuse],
    )
    return Pipeline(
        name=NAME,
        parameters=[source, trees, least_accuracy, approval],
        steps=[prepare, train, evaluate, judge],
        sagemaker_session=session,
    )


def main():
    session = sagemaker.Session()
    role = sagemaker.get_execution_role()
    wine = load_wine()
    data = upload(session, wine)
    say(f"uploaded {len(wine.data)} rows to {data}")

    with tempfile.TemporaryDirectory() as folder:
        # A copy, because the SDK leaves files of its own beside the scripts that it packs.
        scripts = Path(shutil.copytree(SCRIPTS, Path(folder) / "wine"))
        pipeline = build(PipelineSession(), role, data, scripts)
        pipeline.upsert(role_arn=role)
    execution = pipeline.start(parameters={"Trees": 60})
    say(f"started {execution.arn}")
    execution.wait(delay=2, max_attempts=900)
    steps = {step["StepName"]: step for step in execution.list_steps()}
    for name, step in sorted(steps.items(), key=lambda named: named[1]["EndTime"]):
        say(f"{name}: {step['StepStatus']}")

    arn = steps["Register-RegisterModel"]["Metadata"]["RegisterModel"]["Arn"]
    package = ModelPackage(
        role=role, model_package_arn=arn, predictor_cls=Predictor, sagemaker_session=session
    )
    package.update_approval_status("Approved", "It is better than it has to be.")
    say(f"approved {arn}")

    predictor = package.deploy(
        initial_instance_count=1,
        instance_type=INSTANCE,
        serializer=JSONSerializer(),
        deserializer=JSONDeserializer(),
    )
    say(f"deployed {predictor.endpoint_name}")
    try:
        names = predictor.predict(wine.data[::59].tolist())
        for label, name in zip(wine.target[::59], names):
            say(f"a wine of {wine.target_names[label]} is taken for {name}")
    finally:
        predictor.delete_endpoint()
        package.delete_model()


if __name__ == "__main__":
    main()
