//! Lineage: its vertices and edges by hand, queries over them, and what is recorded by itself.

use serde_json::{Value, json};

use super::failures::{script, system};
use crate::app::TestApp;

async fn artifact(app: &TestApp, uri: &str, kind: &str) -> String {
    let input = json!({"Source": {"SourceUri": uri}, "ArtifactType": kind, "ArtifactName": "label"});
    app.ok("SageMaker.CreateArtifact", input).await["ArtifactArn"].as_str().unwrap().to_owned()
}

async fn associate(app: &TestApp, source: &str, destination: &str, kind: &str) {
    let input = json!({"SourceArn": source, "DestinationArn": destination, "AssociationType": kind});
    app.ok("SageMaker.AddAssociation", input).await;
}

async fn vertices(app: &TestApp, query: Value) -> Vec<String> {
    let answer = app.ok("SageMaker.QueryLineage", query).await;
    answer["Vertices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|vertex| vertex["Arn"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn an_artifact_is_what_it_stands_for() {
    let app = TestApp::new().await;
    let etag = |etag: &str| {
        json!({"Source": {"SourceUri": "s3://b/x", "SourceTypes": [{"SourceIdType": "S3ETag", "Value": etag}]},
               "ArtifactType": "DataSet", "Properties": {"a": "1", "b": "2"}})
    };
    let arn = app.ok("SageMaker.CreateArtifact", etag("e1")).await["ArtifactArn"].clone();
    let (code, text) = app.refused("SageMaker.CreateArtifact", etag("\"e1\"")).await;
    assert_eq!(code, "ValidationException");
    assert!(text.contains("already exists") && text.contains(arn.as_str().unwrap()), "{text}");
    let other = app.ok("SageMaker.CreateArtifact", etag("e2")).await["ArtifactArn"].clone();
    assert_ne!(arn, other, "another content is another artifact");
    let update = json!({"ArtifactArn": arn, "ArtifactName": "n", "Properties": {"c": "3"}, "PropertiesToRemove": ["a"]});
    app.ok("SageMaker.UpdateArtifact", update).await;
    let shown = app.ok("SageMaker.DescribeArtifact", json!({"ArtifactArn": arn})).await;
    assert_eq!(shown["Properties"], json!({"b": "2", "c": "3"}));
    assert_eq!(shown["Source"]["SourceTypes"][0]["Value"], "e1");
    let listed = app.ok("SageMaker.ListArtifacts", json!({"SourceUri": "s3://b/x"})).await;
    assert_eq!(listed["ArtifactSummaries"].as_array().unwrap().len(), 2);
    let listed = app.ok("SageMaker.ListArtifacts", json!({"ArtifactType": "Model"})).await;
    assert_eq!(listed["ArtifactSummaries"], json!([]));
    associate(&app, arn.as_str().unwrap(), other.as_str().unwrap(), "DerivedFrom").await;
    let (_, text) = app.refused("SageMaker.DeleteArtifact", json!({"ArtifactArn": arn})).await;
    assert!(text.contains("associations"), "{text}");
    app.ok("SageMaker.DeleteAssociation", json!({"SourceArn": arn, "DestinationArn": other})).await;
    let (code, _) =
        app.refused("SageMaker.DeleteAssociation", json!({"SourceArn": arn, "DestinationArn": other})).await;
    assert_eq!(code, "ResourceNotFound");
    app.ok("SageMaker.DeleteArtifact", json!({"Source": etag("e1")["Source"]})).await;
    let (code, _) = app.refused("SageMaker.DescribeArtifact", json!({"ArtifactArn": arn})).await;
    assert_eq!(code, "ResourceNotFound");
}

#[tokio::test]
async fn actions_and_contexts_have_types_and_sources() {
    let app = TestApp::new().await;
    for (noun, more) in [("Action", json!({"Status": "InProgress"})), ("Context", json!({}))] {
        let (name, kind, arn) = (format!("{noun}Name"), format!("{noun}Type"), format!("{noun}Arn"));
        let mut input =
            json!({&name: "one", &kind: "Kind", "Source": {"SourceUri": "uri"}, "Description": "d"});
        input.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        let created = app.ok(&format!("SageMaker.Create{noun}"), input.clone()).await;
        let (code, _) = app.refused(&format!("SageMaker.Create{noun}"), input).await;
        assert_eq!(code, "ValidationException");
        let update = json!({&name: "one", "Description": "other", "Properties": {"p": "1"}});
        app.ok(&format!("SageMaker.Update{noun}"), update).await;
        let shown = app.ok(&format!("SageMaker.Describe{noun}"), json!({&name: "one"})).await;
        assert_eq!(
            (&shown[&kind], &shown["Description"], &shown["Properties"]["p"]),
            (&json!("Kind"), &json!("other"), &json!("1"))
        );
        for (filter, count) in
            [(json!({&kind: "Kind"}), 1), (json!({&kind: "None"}), 0), (json!({"SourceUri": "uri"}), 1)]
        {
            let listed = app.ok(&format!("SageMaker.List{noun}s"), filter).await;
            assert_eq!(listed[format!("{noun}Summaries")].as_array().unwrap().len(), count);
        }
        let deleted = app.ok(&format!("SageMaker.Delete{noun}"), json!({&name: "one"})).await;
        assert_eq!(deleted[&arn], created[&arn]);
    }
    // The operations above by name: CreateAction DescribeAction ListActions UpdateAction DeleteAction
    // CreateContext DescribeContext ListContexts UpdateContext DeleteContext
    let group = app.ok("SageMaker.ListLineageGroups", json!({})).await["LineageGroupSummaries"][0].clone();
    let named = json!({"LineageGroupName": group["LineageGroupName"]});
    assert_eq!(
        app.ok("SageMaker.DescribeLineageGroup", named.clone()).await["LineageGroupArn"],
        group["LineageGroupArn"]
    );
    assert_eq!(
        app.ok("SageMaker.GetLineageGroupPolicy", named).await["LineageGroupArn"],
        group["LineageGroupArn"]
    );
    let (code, _) = app.refused("SageMaker.DescribeLineageGroup", json!({"LineageGroupName": "none"})).await;
    assert_eq!(code, "ResourceNotFound");
}

#[tokio::test]
async fn queries_follow_edges_either_way() {
    let app = TestApp::new().await;
    let data = artifact(&app, "s3://b/data", "DataSet").await;
    let model = artifact(&app, "s3://b/model", "Model").await;
    let created = app.ok("SageMaker.CreateTrialComponent", json!({"TrialComponentName": "job"})).await;
    let job = created["TrialComponentArn"].as_str().unwrap().to_owned();
    let context = json!({"ContextName": "c", "ContextType": "Endpoint", "Source": {"SourceUri": "e"}});
    let context = app.ok("SageMaker.CreateContext", context).await["ContextArn"].as_str().unwrap().to_owned();
    for (source, destination, kind) in
        [(&data, &job, "ContributedTo"), (&job, &model, "Produced"), (&model, &context, "AssociatedWith")]
    {
        associate(&app, source, destination, kind).await;
    }
    // A circle must not be walked for ever.
    associate(&app, &context, &data, "SameAs").await;
    app.ok("SageMaker.DeleteAssociation", json!({"SourceArn": context, "DestinationArn": data})).await;
    let (code, text) =
        app.refused("SageMaker.AddAssociation", json!({"SourceArn": data, "DestinationArn": job})).await;
    assert_eq!(code, "ValidationException");
    assert!(text.contains("already exists"), "{text}");
    let gone = "arn:aws:sagemaker:us-east-1:123456789012:artifact/none";
    let (code, _) =
        app.refused("SageMaker.AddAssociation", json!({"SourceArn": gone, "DestinationArn": job})).await;
    assert_eq!(code, "ResourceNotFound");

    assert_eq!(
        vertices(&app, json!({"StartArns": [model], "Direction": "Ascendants"})).await,
        [job.clone(), data.clone()]
    );
    assert_eq!(
        vertices(&app, json!({"StartArns": [model], "Direction": "Descendants"})).await,
        [context.as_str()]
    );
    assert_eq!(
        vertices(&app, json!({"StartArns": [data], "MaxDepth": 2})).await,
        [job.clone(), model.clone()]
    );
    let filtered =
        json!({"StartArns": [context], "Filters": {"LineageTypes": ["Artifact"], "Types": ["DataSet"]}});
    assert_eq!(
        vertices(&app, filtered).await,
        [data.as_str()],
        "what is filtered out is still walked through"
    );
    let (mut token, mut seen, mut edges) = (Value::Null, Vec::new(), 0);
    loop {
        let mut query = json!({"StartArns": [data], "MaxResults": 1});
        if !token.is_null() {
            query["NextToken"] = token;
        }
        let page = app.ok("SageMaker.QueryLineage", query).await;
        seen.extend(page["Vertices"].as_array().unwrap().iter().map(|vertex| vertex["Arn"].clone()));
        edges += page["Edges"].as_array().unwrap().len();
        token = page["NextToken"].clone();
        if token.is_null() {
            break;
        }
    }
    assert_eq!(
        (seen, edges),
        (vec![json!(job), json!(model), json!(context)], 3),
        "each edge is on one page"
    );
    let listed =
        app.ok("SageMaker.ListAssociations", json!({"SourceArn": model, "DestinationType": "Context"})).await;
    assert_eq!(listed["AssociationSummaries"][0]["SourceName"], "label", "{listed}");
    let (_, text) = app.refused("SageMaker.QueryLineage", json!({"Direction": "Both"})).await;
    assert!(text.contains("StartArns"), "{text}");
    let other = app.other_account("210987654321").await;
    let (code, _) = app.refused_as("SageMaker.QueryLineage", json!({"StartArns": [data]}), &other).await;
    assert_eq!(code, "ResourceNotFound");
}

#[tokio::test]
async fn models_and_endpoints_record_what_they_are_made_of() {
    let app = TestApp::new().await;
    app.app.objects.create_bucket("123456789012", "us-east-1", "models").await.unwrap();
    let model = json!({"ModelName": "m", "ExecutionRoleArn": "arn:aws:iam::123456789012:role/ModelyardExecutionRole",
        "PrimaryContainer": {"Image": "image:1", "ModelDataUrl": "s3://models/m/model.tar.gz"}});
    app.ok("SageMaker.CreateModel", model).await;
    let config = json!({"EndpointConfigName": "c", "ProductionVariants": [
        {"VariantName": "v", "ModelName": "m", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}]});
    app.ok("SageMaker.CreateEndpointConfig", config).await;
    let found = app.ok("SageMaker.ListArtifacts", json!({"SourceUri": "s3://models/m/model.tar.gz"})).await;
    let data = found["ArtifactSummaries"][0]["ArtifactArn"].clone();
    let answer =
        app.ok("SageMaker.QueryLineage", json!({"StartArns": [data], "Direction": "Descendants"})).await;
    let types: Vec<&Value> =
        answer["Vertices"].as_array().unwrap().iter().map(|vertex| &vertex["Type"]).collect();
    assert_eq!(types, ["SageMakerModel", "EndpointConfig"]);
    let traced = app.ok("Modelyard.TraceObject", json!({"Uri": "s3://models/m/model.tar.gz"})).await;
    assert_eq!(traced["Traces"][0]["Descendants"][0]["Type"], "SageMakerModel", "{traced}");
    let none = app.ok("Modelyard.TraceObject", json!({"Uri": "s3://models/m/other"})).await;
    assert_eq!(none["Traces"], json!([]));
    let (_, text) = app.refused("Modelyard.TraceObject", json!({"Uri": "models/m"})).await;
    assert!(text.contains("s3://"), "{text}");
}

#[tokio::test]
async fn a_job_is_recorded_with_its_data_and_its_model() {
    let app = system(|_| {}).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "1,2\n").unwrap();
    let objects = &app.app.objects;
    for key in ["data/a.csv", "data/b.csv"] {
        objects.put_from_path("123456789012", "results", key, file.path(), None, None).await.unwrap();
    }
    let mut job = script("train", "echo loss=0.5; echo loss=0.25; echo x > /opt/ml/model/m");
    job["InputDataConfig"] = json!([{"ChannelName": "train", "DataSource": {"S3DataSource": {
        "S3DataType": "S3Prefix", "S3Uri": "s3://results/data/"}}}]);
    job["AlgorithmSpecification"]["MetricDefinitions"] = json!([{"Name": "loss", "Regex": "loss=([0-9.]+)"}]);
    app.ok("SageMaker.CreateTrainingJob", job).await;
    let job = app.ended("train").await;
    assert_eq!(job["TrainingJobStatus"], "Completed", "{job}");
    let asked = json!({"TrialComponentName": "train-aws-training-job"});
    let component = app.ok("SageMaker.DescribeTrialComponent", asked).await;
    assert_eq!(component["Status"]["PrimaryStatus"], "Completed");
    assert_eq!(component["Metrics"][0]["Last"], 0.25, "{component}");
    assert_eq!(
        component["OutputArtifacts"]["SageMaker.ModelArtifact"]["Value"],
        job["ModelArtifacts"]["S3ModelArtifacts"]
    );
    let model = json!({"ModelName": "m", "ExecutionRoleArn": job["RoleArn"], "PrimaryContainer": {
        "Image": "image:1", "ModelDataUrl": job["ModelArtifacts"]["S3ModelArtifacts"]}});
    app.ok("SageMaker.CreateModel", model).await;
    let trace = |uri: &str| app.ok("Modelyard.TraceObject", json!({"Uri": uri}));
    let traced = app
        .until("the data of the job is recorded", || async {
            let traced = trace("s3://results/data/a.csv").await;
            (traced["Traces"] != json!([])).then_some(traced)
        })
        .await;
    assert_eq!(traced["Traces"][0]["Version"], "current", "{traced}");
    let came: Vec<&Value> =
        traced["Traces"][0]["Descendants"].as_array().unwrap().iter().map(|one| &one["Type"]).collect();
    assert_eq!(came, ["TrainingJob", "Model", "SageMakerModel"], "{traced}");
    assert_eq!(traced["Traces"][0]["Descendants"][0]["Source"], job["TrainingJobArn"]);
    assert_eq!(
        trace("s3://results/data/c.csv").await["Traces"],
        json!([]),
        "the job did not see what was not there"
    );
    std::fs::write(file.path(), "3,4\n").unwrap();
    objects.put_from_path("123456789012", "results", "data/a.csv", file.path(), None, None).await.unwrap();
    assert_eq!(trace("s3://results/data/a.csv").await["Traces"][0]["Version"], "earlier");
    assert_eq!(trace("s3://results/data/b.csv").await["Traces"][0]["Version"], "current");
}

#[tokio::test]
async fn a_package_stands_between_its_data_and_its_models() {
    let app = TestApp::new().await;
    super::model_packages::put(&app, "123456789012", "a.tar.gz", b"weights").await;
    app.ok("SageMaker.CreateModelPackageGroup", json!({"ModelPackageGroupName": "Churn"})).await;
    let container = json!({"Image": "img:1", "ModelDataUrl": "s3://models/a.tar.gz"});
    let package = json!({
        "ModelPackageGroupName": "Churn", "ModelApprovalStatus": "Approved",
        "InferenceSpecification": {"Containers": [container], "SupportedContentTypes": ["text/csv"]},
    });
    let package = app.ok("SageMaker.CreateModelPackage", package).await["ModelPackageArn"].clone();
    let model = json!({
        "ModelName": "m", "ExecutionRoleArn": "arn:aws:iam::123456789012:role/ModelyardExecutionRole",
        "Containers": [{"ModelPackageName": package}],
    });
    app.ok("SageMaker.CreateModel", model).await;
    let found = app
        .ok("SageMaker.ListArtifacts", json!({"SourceUri": package, "ArtifactType": "ModelPackage"}))
        .await;
    let artifact = &found["ArtifactSummaries"][0];
    assert_eq!(artifact["ArtifactName"], "churn/1", "{found}");
    let around = |direction: &'static str| {
        let query = json!({"StartArns": [artifact["ArtifactArn"]], "Direction": direction});
        let app = &app;
        async move {
            let answer = app.ok("SageMaker.QueryLineage", query).await;
            let vertices = answer["Vertices"].as_array().unwrap().clone();
            let mut types: Vec<String> =
                vertices.iter().map(|vertex| vertex["Type"].as_str().unwrap().to_owned()).collect();
            types.sort();
            types
        }
    };
    assert_eq!(around("Ascendants").await, ["Image", "Model"]);
    assert_eq!(around("Descendants").await, ["ModelGroup", "SageMakerModel"]);
}

#[tokio::test]
async fn a_processing_job_is_recorded_with_its_data() {
    let app = system(|_| {}).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "1,2\n").unwrap();
    let objects = &app.app.objects;
    objects.put_from_path("123456789012", "results", "raw/a.csv", file.path(), None, None).await.unwrap();
    app.ok("SageMaker.CreateExperiment", json!({"ExperimentName": "e"})).await;
    let (input, output) = ("/opt/ml/processing/input", "/opt/ml/processing/clean");
    let job = json!({
        "ProcessingJobName": "clean",
        "AppSpecification": {
            "ImageUri": "example.com/system:1", "ContainerEntrypoint": ["/bin/sh", "-c", format!("cp {input}/a.csv {output}/b.csv")],
        },
        "ProcessingInputs": [{"InputName": "raw", "S3Input": {
            "S3Uri": "s3://results/raw/", "LocalPath": input, "S3DataType": "S3Prefix", "S3InputMode": "File"}}],
        "ProcessingOutputConfig": {"Outputs": [{"OutputName": "clean", "S3Output": {
            "S3Uri": "s3://results/clean", "LocalPath": output, "S3UploadMode": "EndOfJob"}}]},
        "ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10}},
        "RoleArn": "arn:aws:iam::123456789012:role/ModelyardExecutionRole",
        "ExperimentConfig": {"ExperimentName": "e", "TrialComponentDisplayName": "cleaning"},
    });
    app.ok("SageMaker.CreateProcessingJob", job).await;
    app.until("the job ends", || async {
        let job = app.ok("SageMaker.DescribeProcessingJob", json!({"ProcessingJobName": "clean"})).await;
        assert_ne!(job["ProcessingJobStatus"], "Failed", "{job}");
        (job["ProcessingJobStatus"] == "Completed").then_some(())
    })
    .await;
    let asked = json!({"TrialComponentName": "clean-aws-processing-job"});
    let component = app.ok("SageMaker.DescribeTrialComponent", asked).await;
    assert_eq!(component["Status"]["PrimaryStatus"], "Completed", "{component}");
    assert_eq!(
        (&component["DisplayName"], &component["Source"]["SourceType"]),
        (&json!("cleaning"), &json!("SageMakerProcessingJob"))
    );
    assert_eq!(component["InputArtifacts"]["raw"]["Value"], "s3://results/raw/");
    assert_eq!(component["OutputArtifacts"]["clean"]["Value"], "s3://results/clean");
    assert_eq!(component["Parameters"]["SageMaker.InstanceCount"]["NumberValue"], 1.0);
    let components = app.ok("SageMaker.ListTrialComponents", json!({"ExperimentName": "e"})).await;
    assert_eq!(components["TrialComponentSummaries"].as_array().unwrap().len(), 1);
    let traced = app
        .until("its input is recorded", || async {
            let traced = app.ok("Modelyard.TraceObject", json!({"Uri": "s3://results/raw/a.csv"})).await;
            (traced["Traces"] != json!([])).then_some(traced)
        })
        .await;
    let came: Vec<&Value> =
        traced["Traces"][0]["Descendants"].as_array().unwrap().iter().map(|one| &one["Type"]).collect();
    assert_eq!(came, ["ProcessingJob", "DataSet"], "{traced}");
    let traced = app.ok("Modelyard.TraceObject", json!({"Uri": "s3://results/clean/b.csv"})).await;
    assert_eq!(traced["Traces"][0]["Version"], "current", "{traced}");
}
