//! The container contract: files, variables and commands, and a prepared job that really runs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use runner::catalogue::{Framework, Launcher};
use runner::contract::{Channel, InstanceGroup, Prepared, TrainingContract, failure_message};
use runner::environment::{Environment, Interpreter};
use runner::{Access, Mount, WorkloadSpec};

use crate::bench::Bench;
use crate::environment::shared_image;

pub fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// An environment that nothing runs in.
pub fn environment() -> Environment {
    Environment {
        directory: "/environments/key".into(),
        python: "/environments/key/bin/python".into(),
        interpreter: Interpreter {
            version: "3.11".into(),
            prefix: "/environments/key".into(),
            base_prefix: "/usr".into(),
            base_executable: "/usr/bin/python3.11".into(),
            site_packages: vec!["/environments/key/lib/python3.11/site-packages".into()],
        },
        read_only_paths: vec!["/environments/key".into()],
        content_key: "key".into(),
        notes: Vec::new(),
        job_scripts: None,
        pip_settings: pairs(&[("PIP_INDEX_URL", "https://index/simple")]),
        framework: Framework::Python,
        launcher: Launcher::Script,
    }
}

fn contract() -> TrainingContract {
    let channel = |name: &str, content_type: Option<&str>| Channel {
        name: name.into(),
        content_type: content_type.map(str::to_owned),
        input_mode: "File".into(),
        distribution: "FullyReplicated".into(),
        record_wrapper: "None".into(),
    };
    TrainingContract {
        job_name: "job-1".into(),
        job_arn: "arn:aws:sagemaker:us-east-1:123456789012:training-job/job-1".into(),
        region: "us-east-1".into(),
        current_host: "algo-1".into(),
        groups: vec![InstanceGroup {
            name: "homogeneousCluster".into(),
            instance_type: "ml.m5.large".into(),
            hosts: vec!["algo-1".into()],
        }],
        channels: vec![channel("validation", None), channel("train", Some("text/csv"))],
        hyperparameters: pairs(&[
            ("epochs", "10"),
            ("learning-rate", "1e-05"),
            ("name", "\"it's é\""),
            ("plain", "not json"),
            ("layers", "[1, 2.0, \"a\", null, true]"),
            ("options", "{\"b\": 1, \"a\": [\"x\"]}"),
            ("nothing", "null"),
            ("flag", "true"),
            ("x", "123456789012345678901234567890"),
            ("_tuning_objective_metric", "\"loss\""),
            ("sagemaker_program", "\"train.py\""),
            ("sagemaker_submit_directory", "\"s3://bucket/job-1/source/sourcedir.tar.gz\""),
            ("sagemaker_container_log_level", "20"),
            ("sagemaker_job_name", "\"job-1\""),
            ("sagemaker_region", "\"us-east-1\""),
            ("sagemaker_mpi_enabled", "false"),
        ]),
        environment: pairs(&[("MY_OWN", "value"), ("SM_MODEL_DIR", "overridden")]),
        cpus: 2,
        ..TrainingContract::default()
    }
}

/// A folder for `/opt/ml` with the given files of code.
pub fn opt_ml(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join("code").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn prepare(contract: &TrainingContract, files: &[(&str, &str)]) -> Result<Prepared, String> {
    contract.prepare(opt_ml(files).path(), &environment()).map_err(|error| error.to_string())
}

#[test]
fn the_files_are_those_of_the_service() {
    let folder = opt_ml(&[("train.py", "")]);
    contract().prepare(folder.path(), &environment()).unwrap();
    let read = |name: &str| fs::read_to_string(folder.path().join("input/config").join(name)).unwrap();
    assert_eq!(
        read("inputdataconfig.json"),
        r#"{"train":{"ContentType":"text/csv","RecordWrapperType":"None","S3DistributionType":"FullyReplicated","TrainingInputMode":"File"},"validation":{"RecordWrapperType":"None","S3DistributionType":"FullyReplicated","TrainingInputMode":"File"}}"#
    );
    assert_eq!(
        read("resourceconfig.json"),
        r#"{"current_group_name":"homogeneousCluster","current_host":"algo-1","current_instance_group":"homogeneousCluster","current_instance_type":"ml.m5.large","hosts":["algo-1"],"instance_groups":[{"hosts":["algo-1"],"instance_group_name":"homogeneousCluster","instance_type":"ml.m5.large"}],"network_interface_name":"lo"}"#
    );
    let hyperparameters: BTreeMap<String, String> =
        serde_json::from_str(&read("hyperparameters.json")).unwrap();
    assert_eq!(hyperparameters, contract().hyperparameters, "values stay encoded as they came");
    for name in [
        "model",
        "output/data",
        "output/intermediate",
        "checkpoints",
        "input/data/train",
        "input/data/validation",
    ] {
        assert!(folder.path().join(name).is_dir(), "{name}");
    }
}

/// The expected texts were written by the toolkit itself (sagemaker-training 5.1.4) for the same files.
#[test]
fn the_variables_are_those_of_the_toolkit() {
    let prepared = prepare(&contract(), &[("train.py", "")]).unwrap();
    let variable = |name: &str| prepared.environment.get(name).map(String::as_str);
    for (name, expected) in TOOLKIT_VARIABLES {
        assert_eq!(variable(name), Some(*expected), "{name}");
    }
    let known: Vec<&str> = TOOLKIT_VARIABLES.iter().map(|(name, _)| *name).collect();
    let others = prepared.environment.keys().filter(|name| name.starts_with("SM_"));
    let others: Vec<&String> = others.filter(|name| !known.contains(&name.as_str())).collect();
    assert!(others.is_empty(), "{others:?}");
    for (name, expected) in [
        ("TRAINING_JOB_NAME", "job-1"),
        ("TRAINING_JOB_ARN", "arn:aws:sagemaker:us-east-1:123456789012:training-job/job-1"),
        ("AWS_REGION", "us-east-1"),
        ("CURRENT_HOST", "algo-1"),
        ("SAGEMAKER_JOB_NAME", "job-1"),
        ("SAGEMAKER_REGION", "us-east-1"),
        ("MY_OWN", "value"),
        ("PYTHONPATH", "/opt/ml/code"),
        ("VIRTUAL_ENV", "/opt/ml/.environment"),
        ("PIP_INDEX_URL", "https://index/simple"),
    ] {
        assert_eq!(variable(name), Some(expected), "{name}");
    }
    assert!(variable("PATH").unwrap().starts_with("/opt/ml/.environment/bin:/environments/key/bin:/usr"));
}

#[test]
fn the_command_is_python_with_sorted_arguments() {
    let prepared = prepare(&contract(), &[("train.py", "")]).unwrap();
    assert_eq!(prepared.working_directory, Path::new("/opt/ml/code"));
    let expected = [
        "/opt/ml/.environment/bin/python",
        "train.py",
        "--epochs",
        "10",
        "--flag",
        "True",
        "--layers",
        "[1, 2.0, 'a', None, True]",
        "--learning-rate",
        "1e-05",
        "--name",
        "it's é",
        "--nothing",
        "",
        "--options",
        "a=['x'],b=1",
        "--plain",
        "not json",
        "-x",
        "123456789012345678901234567890",
    ];
    assert_eq!(prepared.command, expected);
}

#[test]
fn other_kinds_of_programs_start_as_in_the_toolkit() {
    let with = |program: &str| {
        let mut contract = contract();
        contract.hyperparameters = pairs(&[("sagemaker_program", program), ("a b", "it's")]);
        contract
    };
    let folder = opt_ml(&[("run.sh", "#!/bin/sh\n"), ("setup.py", ""), ("bin/tool", "")]);
    let command = |program: &str| with(program).prepare(folder.path(), &environment()).unwrap().command;
    assert_eq!(command("\"run.sh\""), ["/bin/sh", "-c", "./run.sh '--a b' 'it'\"'\"'s'"]);
    assert_eq!(command("train.py")[3..], ["/opt/ml/.environment/bin/python", "-m", "train", "--a b", "it's"]);
    fs::remove_file(folder.path().join("code/setup.py")).unwrap();
    assert_eq!(command("bin/tool")[2], "./bin/tool '--a b' 'it'\"'\"'s'");
    for name in ["run.sh", "bin/tool"] {
        let mode = fs::metadata(folder.path().join("code").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o777, "{name}");
    }
    // The variable wins over the hyperparameter.
    let mut both = with("run.sh");
    both.environment = pairs(&[("SAGEMAKER_PROGRAM", "bin/tool")]);
    let prepared = both.prepare(folder.path(), &environment()).unwrap();
    assert_eq!(prepared.environment["SM_USER_ENTRY_POINT"], "bin/tool");
}

#[test]
fn an_entry_point_runs_as_it_is() {
    let mut contract = contract();
    contract.entrypoint = Some(vec!["/bin/bash".into()]);
    contract.arguments = vec!["-c".into(), "echo $0".into()];
    let prepared = prepare(&contract, &[]).unwrap();
    assert_eq!(prepared.command, ["/bin/bash", "-c", "echo $0"]);
    assert_eq!(prepared.environment["SM_MODEL_DIR"], "overridden", "the toolkit has no part in it");
    assert!(!prepared.environment.contains_key("SM_HPS"));
    assert_eq!(prepared.environment["TRAINING_JOB_NAME"], "job-1");
}

#[test]
fn frameworks_add_what_their_images_do() {
    let folder = opt_ml(&[("train.py", "")]);
    let mut contract = contract();
    let of = |contract: &TrainingContract, framework| {
        let environment = Environment { framework, ..environment() };
        contract.prepare(folder.path(), &environment).unwrap().environment
    };
    let pytorch = of(&contract, Framework::Pytorch);
    assert_eq!(pytorch["SM_FRAMEWORK_MODULE"], "sagemaker_pytorch_container.training:main");
    assert_eq!((pytorch["MASTER_ADDR"].as_str(), pytorch["MASTER_PORT"].as_str()), ("algo-1", "7777"));
    let sklearn = of(&contract, Framework::ScikitLearn);
    assert_eq!(sklearn["SM_FRAMEWORK_MODULE"], "sagemaker_sklearn_container.training:main");
    assert!(!sklearn.contains_key("MASTER_ADDR"));
    contract.environment.insert("SAGEMAKER_TRAINING_MODULE".into(), "mine:main".into());
    assert_eq!(of(&contract, Framework::Pytorch)["SM_FRAMEWORK_MODULE"], "mine:main");
}

#[test]
fn what_cannot_start_says_why() {
    let refused = |contract: &TrainingContract, files: &[(&str, &str)]| prepare(contract, files).unwrap_err();
    let text = refused(&contract(), &[("other.py", "")]);
    assert!(text.contains("no file \"train.py\""), "{text}");
    let mut unnamed = contract();
    unnamed.hyperparameters.remove("sagemaker_program");
    assert!(refused(&unnamed, &[]).contains("names no script"));
    let mut outside = contract();
    outside.hyperparameters.insert("sagemaker_program".into(), "\"../../etc/passwd\"".into());
    assert!(refused(&outside, &[]).contains("must be a path inside the source"));
    let mut arguments = contract();
    arguments.arguments = vec!["--x".into()];
    assert!(refused(&arguments, &[("train.py", "")]).contains("give ContainerEntrypoint"));
    let strict = Environment { launcher: Launcher::Entrypoint, ..environment() };
    let folder = opt_ml(&[("train.py", "")]);
    let text = contract().prepare(folder.path(), &strict).unwrap_err().to_string();
    assert!(text.contains("launcher = \"entrypoint\""), "{text}");
}

#[test]
fn a_link_out_of_the_source_is_not_the_program() {
    let folder = opt_ml(&[]);
    let canary = folder.path().join("canary");
    fs::write(&canary, "").unwrap();
    fs::set_permissions(&canary, fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(folder.path().join("code")).unwrap();
    std::os::unix::fs::symlink("../canary", folder.path().join("code/run.sh")).unwrap();
    let mut contract = contract();
    contract.hyperparameters.insert("sagemaker_program".into(), "run.sh".into());
    assert!(contract.prepare(folder.path(), &environment()).is_err());
    assert_eq!(fs::metadata(&canary).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn source_of_a_channel_is_put_in_place() {
    let submitted = |directory: &str| {
        let mut contract = contract();
        contract.hyperparameters.insert("sagemaker_submit_directory".into(), directory.into());
        contract
    };
    let folder = opt_ml(&[]);
    let channel = folder.path().join("input/data/code");
    fs::create_dir_all(channel.join("deep")).unwrap();
    fs::write(channel.join("train.py"), "print()").unwrap();
    fs::write(channel.join("deep/module.py"), "").unwrap();
    std::os::unix::fs::symlink("/etc/shadow", channel.join("link")).unwrap();
    let contract = submitted("/opt/ml/input/data/code");
    assert_eq!(contract.source_archive(), None);
    let prepared = contract.prepare(folder.path(), &environment()).unwrap();
    assert_eq!(prepared.environment["SM_MODULE_DIR"], "/opt/ml/input/data/code");
    assert!(folder.path().join("code/deep/module.py").exists() && !folder.path().join("code/link").exists());

    let folder = opt_ml(&[]);
    let packed = folder.path().join("input/data/code");
    fs::create_dir_all(&packed).unwrap();
    let archive = fs::File::create(packed.join("sourcedir.tar.gz")).unwrap();
    let origin = opt_ml(&[("train.py", "")]);
    runner::archive::create_tar_gz(&origin.path().join("code"), archive, 1).unwrap();
    submitted("\"/opt/ml/input/data/code/sourcedir.tar.gz\"").place_source(folder.path()).unwrap();
    assert!(folder.path().join("code/train.py").exists());

    for outside in ["/etc", "/opt/ml/../../etc", "relative", "/opt/ml/input/data/missing"] {
        let folder = opt_ml(&[]);
        assert!(submitted(outside).place_source(folder.path()).is_err(), "{outside}");
    }
    let archive = self::contract().source_archive();
    assert_eq!(archive.as_deref(), Some("s3://bucket/job-1/source/sourcedir.tar.gz"));
}

#[test]
fn a_failure_message_is_read_without_following_links() {
    let folder = tempfile::tempdir().unwrap();
    let failure = folder.path().join("output/failure");
    fs::create_dir(folder.path().join("output")).unwrap();
    assert_eq!(failure_message(folder.path()), None);
    fs::write(&failure, "é".repeat(3000)).unwrap();
    assert_eq!(failure_message(folder.path()).unwrap(), "é".repeat(1024));
    fs::remove_file(&failure).unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    std::os::unix::fs::symlink(&secret, &failure).unwrap();
    assert_eq!(failure_message(folder.path()), None);
}

/// The whole way: environment, contract, sandbox. The job installs a package itself, as scripts and drivers do.
#[tokio::test]
async fn a_prepared_job_runs_and_can_install_packages() {
    let environment = shared_image().await;
    let bench = Bench::new();
    fs::create_dir(bench.ml().join("code")).unwrap();
    let script = "import os, subprocess, sys, alpha, beta, helper\n\
        print(alpha.version, beta.version, helper.answer, sys.argv[1:], os.getcwd(), flush=True)\n\
        for pip in ([sys.executable, '-m', 'pip'], ['pip']):\n    \
            subprocess.check_call(pip + ['install', '-q', 'beta==2.0'])\n\
        print(subprocess.check_output(['beta-version'], text=True).strip())\n\
        print(subprocess.check_output(['python3', '-c', 'import beta; print(beta.version)'], text=True).strip())\n\
        open(os.environ['SM_MODEL_DIR'] + '/model', 'w').write('done')\n";
    fs::write(bench.ml().join("code/train.py"), script).unwrap();
    fs::write(bench.ml().join("code/helper.py"), "answer = 42").unwrap();
    let mut contract = contract();
    contract.hyperparameters = pairs(&[("sagemaker_program", "\"train.py\""), ("epochs", "1")]);
    let prepared = contract.prepare(&bench.ml(), &environment).unwrap();
    let mut spec = WorkloadSpec {
        command: prepared.command,
        environment: prepared.environment,
        working_directory: prepared.working_directory,
        ..bench.spec("job", "")
    };
    spec.mounts.extend(environment.read_only_paths.iter().map(|path| Mount {
        source: path.clone(),
        target: path.clone(),
        access: Access::ReadOnly,
    }));
    let messages = bench.run_well(&spec).await;
    let told: Vec<&String> = messages.iter().filter(|line| !line.contains("otice")).collect();
    assert_eq!(told, ["1.0 1.0 42 ['--epochs', '1'] /opt/ml/code", "2.0", "2.0"], "{messages:#?}");
    assert_eq!(fs::read_to_string(bench.ml().join("model/model")).unwrap(), "done");
}

/// What the toolkit makes of [`contract`].
#[rustfmt::skip]
const TOOLKIT_VARIABLES: &[(&str, &str)] = &[
    ("SM_CHANNELS", r#"["train","validation"]"#),
    ("SM_CHANNEL_TRAIN", r#"/opt/ml/input/data/train"#),
    ("SM_CHANNEL_VALIDATION", r#"/opt/ml/input/data/validation"#),
    ("SM_CURRENT_HOST", r#"algo-1"#),
    ("SM_CURRENT_INSTANCE_GROUP", r#"homogeneousCluster"#),
    ("SM_CURRENT_INSTANCE_GROUP_HOSTS", r#"["algo-1"]"#),
    ("SM_CURRENT_INSTANCE_TYPE", r#"ml.m5.large"#),
    ("SM_DISTRIBUTION_INSTANCE_GROUPS", r#"[]"#),
    ("SM_FRAMEWORK_MODULE", r#""#),
    ("SM_FRAMEWORK_PARAMS", r#"{"sagemaker_mpi_enabled":false}"#),
    ("SM_HOSTS", r#"["algo-1"]"#),
    ("SM_HPS", r#"{"epochs":10,"flag":true,"layers":[1,2.0,"a",null,true],"learning-rate":1e-05,"name":"it's \u00e9","nothing":null,"options":{"a":["x"],"b":1},"plain":"not json","x":123456789012345678901234567890}"#),
    ("SM_HP_EPOCHS", r#"10"#),
    ("SM_HP_FLAG", r#"true"#),
    ("SM_HP_LAYERS", r#"[1,2.0,"a",null,true]"#),
    ("SM_HP_LEARNING-RATE", r#"1e-05"#),
    ("SM_HP_NAME", r#"it's é"#),
    ("SM_HP_NOTHING", r#""#),
    ("SM_HP_OPTIONS", r#"{"a":["x"],"b":1}"#),
    ("SM_HP_PLAIN", r#"not json"#),
    ("SM_HP_X", r#"123456789012345678901234567890"#),
    ("SM_INPUT_CONFIG_DIR", r#"/opt/ml/input/config"#),
    ("SM_INPUT_DATA_CONFIG", r#"{"train":{"ContentType":"text/csv","RecordWrapperType":"None","S3DistributionType":"FullyReplicated","TrainingInputMode":"File"},"validation":{"RecordWrapperType":"None","S3DistributionType":"FullyReplicated","TrainingInputMode":"File"}}"#),
    ("SM_INPUT_DIR", r#"/opt/ml/input"#),
    ("SM_INSTANCE_GROUPS", r#"["homogeneousCluster"]"#),
    ("SM_INSTANCE_GROUPS_DICT", r#"{"homogeneousCluster":{"hosts":["algo-1"],"instance_group_name":"homogeneousCluster","instance_type":"ml.m5.large"}}"#),
    ("SM_IS_HETERO", r#"false"#),
    ("SM_LOG_LEVEL", r#"20"#),
    ("SM_MODEL_DIR", r#"/opt/ml/model"#),
    ("SM_MODULE_DIR", r#"s3://bucket/job-1/source/sourcedir.tar.gz"#),
    ("SM_MODULE_NAME", r#"train"#),
    ("SM_NETWORK_INTERFACE_NAME", r#"lo"#),
    ("SM_NUM_CPUS", r#"2"#),
    ("SM_NUM_GPUS", r#"0"#),
    ("SM_NUM_NEURONS", r#"0"#),
    ("SM_OUTPUT_DATA_DIR", r#"/opt/ml/output/data"#),
    ("SM_OUTPUT_DIR", r#"/opt/ml/output"#),
    ("SM_OUTPUT_INTERMEDIATE_DIR", r#"/opt/ml/output/intermediate"#),
    ("SM_RESOURCE_CONFIG", r#"{"current_group_name":"homogeneousCluster","current_host":"algo-1","current_instance_group":"homogeneousCluster","current_instance_type":"ml.m5.large","hosts":["algo-1"],"instance_groups":[{"hosts":["algo-1"],"instance_group_name":"homogeneousCluster","instance_type":"ml.m5.large"}],"network_interface_name":"lo"}"#),
    ("SM_TRAINING_ENV", r#"{"additional_framework_parameters":{"sagemaker_mpi_enabled":false},"channel_input_dirs":{"train":"/opt/ml/input/data/train","validation":"/opt/ml/input/data/validation"},"current_host":"algo-1","current_instance_group":"homogeneousCluster","current_instance_group_hosts":["algo-1"],"current_instance_type":"ml.m5.large","distribution_hosts":[],"distribution_instance_groups":[],"framework_module":null,"hosts":["algo-1"],"hyperparameters":{"epochs":10,"flag":true,"layers":[1,2.0,"a",null,true],"learning-rate":1e-05,"name":"it's \u00e9","nothing":null,"options":{"a":["x"],"b":1},"plain":"not json","x":123456789012345678901234567890},"input_config_dir":"/opt/ml/input/config","input_data_config":{"train":{"ContentType":"text/csv","RecordWrapperType":"None","S3DistributionType":"FullyReplicated","TrainingInputMode":"File"},"validation":{"RecordWrapperType":"None","S3DistributionType":"FullyReplicated","TrainingInputMode":"File"}},"input_dir":"/opt/ml/input","instance_groups":["homogeneousCluster"],"instance_groups_dict":{"homogeneousCluster":{"hosts":["algo-1"],"instance_group_name":"homogeneousCluster","instance_type":"ml.m5.large"}},"is_hetero":false,"is_master":true,"is_modelparallel_enabled":null,"is_smddpmprun_installed":false,"is_smddprun_installed":false,"job_name":"job-1","log_level":20,"master_hostname":"algo-1","model_dir":"/opt/ml/model","module_dir":"s3://bucket/job-1/source/sourcedir.tar.gz","module_name":"train","network_interface_name":"lo","num_cpus":2,"num_gpus":0,"num_neurons":0,"output_data_dir":"/opt/ml/output/data","output_dir":"/opt/ml/output","output_intermediate_dir":"/opt/ml/output/intermediate","resource_config":{"current_group_name":"homogeneousCluster","current_host":"algo-1","current_instance_group":"homogeneousCluster","current_instance_type":"ml.m5.large","hosts":["algo-1"],"instance_groups":[{"hosts":["algo-1"],"instance_group_name":"homogeneousCluster","instance_type":"ml.m5.large"}],"network_interface_name":"lo"},"topology":[],"user_entry_point":"train.py"}"#),
    ("SM_USER_ARGS", r#"["--epochs","10","--flag","True","--layers","[1, 2.0, 'a', None, True]","--learning-rate","1e-05","--name","it's \u00e9","--nothing","","--options","a=['x'],b=1","--plain","not json","-x","123456789012345678901234567890"]"#),
    ("SM_USER_ENTRY_POINT", r#"train.py"#),
];
