//! Jobs of several hosts: what each host is told, and the launchers of the SDK's `distribution=`.

use std::fs;
use std::net::Ipv4Addr;

use runner::catalogue::Framework;
use runner::contract::{Channel, InstanceGroup, Prepared, TrainingContract};
use runner::environment::Environment;
use runner::{Executor, Exit, Network};

use crate::bench::Bench;
use crate::contract::{environment, opt_ml, pairs};

fn group(name: &str, instance_type: &str, hosts: &[&str]) -> InstanceGroup {
    InstanceGroup {
        name: name.into(),
        instance_type: instance_type.into(),
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
    }
}

fn contract(current: &str, groups: Vec<InstanceGroup>, parameters: &[(&str, &str)]) -> TrainingContract {
    let mut hyperparameters = pairs(&[
        ("epochs", "2"),
        ("sagemaker_program", "\"train.py\""),
        ("sagemaker_job_name", "\"job-1\""),
        ("sagemaker_region", "\"us-east-1\""),
        ("sagemaker_container_log_level", "20"),
        ("sagemaker_submit_directory", "\"s3://bucket/source.tar.gz\""),
    ]);
    hyperparameters.extend(pairs(parameters));
    TrainingContract {
        job_name: "job-1".into(),
        region: "us-east-1".into(),
        current_host: current.into(),
        groups,
        hyperparameters,
        channels: vec![Channel {
            name: "train".into(),
            input_mode: "File".into(),
            distribution: "FullyReplicated".into(),
            record_wrapper: "None".into(),
            ..Channel::default()
        }],
        cpus: 2,
        ..TrainingContract::default()
    }
}

fn two(current: &str, parameters: &[(&str, &str)]) -> TrainingContract {
    contract(current, vec![group("homogeneousCluster", "ml.m5.large", &["algo-1", "algo-2"])], parameters)
}

fn mixed(current: &str) -> TrainingContract {
    let groups = vec![
        group("train", "ml.g5.xlarge", &["algo-1", "algo-2"]),
        group("data", "ml.c5.xlarge", &["algo-3"]),
    ];
    let parameters = [
        ("sagemaker_mpi_enabled", "true"),
        ("sagemaker_mpi_num_of_processes_per_host", "2"),
        ("sagemaker_mpi_custom_mpi_options", "\"--NCCL_DEBUG WARN -x A=1\""),
        ("sagemaker_distribution_instance_groups", "[\"train\"]"),
    ];
    contract(current, groups, &parameters)
}

/// Prepares a contract in an image that has the given programs.
fn prepare(contract: &TrainingContract, framework: Framework, programs: &[&str]) -> Result<Prepared, String> {
    let image = tempfile::tempdir().unwrap();
    fs::create_dir(image.path().join("bin")).unwrap();
    for program in programs {
        fs::write(image.path().join("bin").join(program), "").unwrap();
    }
    let environment = Environment { framework, directory: image.path().to_owned(), ..environment() };
    let folder = opt_ml(&[("train.py", ""), ("run.sh", "")]);
    contract.prepare(folder.path(), &environment).map_err(|error| error.to_string())
}

#[track_caller]
fn assert_told(prepared: &Prepared, expected: &[(&str, &str)]) {
    for (name, expected) in expected {
        assert_eq!(prepared.environment.get(*name).map(String::as_str), Some(*expected), "{name}");
    }
}

/// The expected texts were written by the toolkit itself (sagemaker-training 5.1.4) for the same files.
#[test]
fn each_host_is_told_what_the_toolkit_says() {
    let torch =
        [("sagemaker_torch_distributed_enabled", "true"), ("sagemaker_instance_type", "\"ml.m5.large\"")];
    let second = prepare(&two("algo-2", &torch), Framework::Python, &["torchrun"]).unwrap();
    assert_told(&second, SECOND_OF_TWO);
    let data = prepare(&mixed("algo-3"), Framework::Python, &[]).unwrap();
    assert_told(&data, OTHER_GROUP);
}

#[test]
fn hosts_are_sorted_as_text() {
    let names: Vec<String> = (1..=11).map(|number| format!("algo-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let hosts = contract("algo-2", vec![group("homogeneousCluster", "ml.m5.large", &names)], &[]).hosts();
    assert_eq!(hosts[..4], ["algo-1", "algo-10", "algo-11", "algo-2"]);
}

#[test]
fn torchrun_is_started_as_by_the_toolkit() {
    let torch = [("sagemaker_torch_distributed_enabled", "true")];
    let start = |contract: &TrainingContract| prepare(contract, Framework::Pytorch, &["torchrun"]).unwrap();
    let second = start(&two("algo-2", &torch));
    assert_eq!(
        second.command.join(" "),
        "torchrun --nnodes 2 --nproc_per_node 1 --master_addr algo-1 --master_port 7777 --node_rank 1 train.py --epochs 2"
    );
    for (name, value) in [
        ("MASTER_ADDR", "algo-1"),
        ("MASTER_PORT", "7777"),
        ("NCCL_SOCKET_IFNAME", "lo"),
        ("NCCL_PROTO", "simple"),
    ] {
        assert_eq!(second.environment[name], value, "{name}");
    }
    let one = contract("algo-1", vec![group("homogeneousCluster", "ml.m5.large", &["algo-1"])], &torch);
    assert_eq!(start(&one).command.join(" "), "torchrun --nnodes 1 --nproc_per_node 1 train.py --epochs 2");
    let mut shared = two("algo-1", &torch);
    shared.rendezvous.port = 7778;
    assert!(
        start(&shared).command.join(" ").contains("--master_port 7778 --node_rank 0"),
        "a port that is free"
    );

    let data_parallel = start(&two("algo-1", &[("sagemaker_distributed_dataparallel_enabled", "true")]));
    assert_eq!(data_parallel.command[0], "torchrun");
    assert!(
        data_parallel.notes[0].contains("data-parallel library does not exist"),
        "{:?}",
        data_parallel.notes
    );
    // The images of scikit-learn start the script alone.
    let plain = prepare(&two("algo-1", &torch), Framework::ScikitLearn, &[]).unwrap();
    assert_eq!(plain.command[1], "train.py");
}

#[test]
fn a_launcher_that_cannot_work_says_why() {
    let torch = [("sagemaker_torch_distributed_enabled", "true")];
    let text = prepare(&two("algo-1", &torch), Framework::Pytorch, &[]).unwrap_err();
    assert!(text.contains("torchrun, which its image does not have: add torch"), "{text}");
    let mut command = two("algo-1", &torch);
    command.hyperparameters.insert("sagemaker_program".into(), "run.sh".into());
    let text = prepare(&command, Framework::Pytorch, &["torchrun"]).unwrap_err();
    assert!(text.contains("torchrun starts Python scripts"), "{text}");
}

/// The options are those of the toolkit's command for the same files, but for dashes that version 5 of Open MPI wants, the
/// variables that the hosts have anyway, and the library that tells programs the host's name, which is the right one here.
#[test]
fn mpirun_is_started_as_by_the_toolkit() {
    let lead = prepare(&mixed("algo-1"), Framework::Pytorch, &[]).unwrap();
    let launcher = "/opt/ml/.environment/bin/modelyard-mpi";
    let expected = format!(
        "{launcher} lead algo-2 mpirun --host algo-1:2,algo-2:2 -np 4 --allow-run-as-root --display-map --tag-output -mca btl_tcp_if_include lo -mca oob_tcp_if_include lo -mca plm_rsh_no_tree_spawn 1 --bind-to none --map-by slot -mca pml ob1 -mca btl ^openib -mca orte_abort_on_non_zero_status 1 -mca btl_vader_single_copy_mechanism none -x NCCL_MIN_NRINGS=4 -x NCCL_SOCKET_IFNAME=lo -x NCCL_DEBUG=WARN -x PATH -x A=1 /opt/ml/.environment/bin/python -m mpi4py train.py --epochs 2"
    );
    assert_eq!(lead.command.join(" "), expected);
    let second = prepare(&mixed("algo-2"), Framework::Pytorch, &[]).unwrap();
    assert_eq!(second.command, [launcher, "serve"]);
    // A host of another group runs the script by itself.
    let other = prepare(&mixed("algo-3"), Framework::Pytorch, &[]).unwrap();
    assert_eq!(other.command[1], "train.py");
}

#[tokio::test]
async fn hosts_reach_each_other_by_name() {
    let bench = Bench::new();
    let mut ready = bench.signal("ready");
    let hosts: std::collections::BTreeMap<String, Ipv4Addr> =
        (1..=2).map(|number| (format!("algo-{number}"), Ipv4Addr::new(127, 77, 7, number))).collect();
    let host = |name: &str, script: &str| {
        let mut spec = bench.spec(name, "");
        spec.command = ["python3", "-c", script].map(str::to_owned).to_vec();
        spec.hostname = name.to_owned();
        spec.hosts = hosts.clone();
        spec.network = Network::Host;
        spec
    };
    let listen = "import socket\n\
        server = socket.create_server((socket.gethostname(), 0))\n\
        open('ready', 'w').write('%d\\n' % server.getsockname()[1])\n\
        peer, _ = server.accept()\n\
        print(server.getsockname()[0], peer.getpeername()[0])\n";
    bench.executor.start(&host("algo-1", listen)).await.unwrap();
    let port = ready.line().await;
    let connect = format!(
        "import socket\nsocket.create_connection(('algo-1', {port}), source_address=('algo-2', 0))\n"
    );
    bench.run_well(&host("algo-2", &connect)).await;
    assert_eq!(bench.executor.wait("algo-1").await.unwrap().exit, Exit::Code(0));
    assert_eq!(bench.messages("algo-1"), ["127.77.7.1 127.77.7.2"]);
}

#[tokio::test]
async fn isolated_hosts_meet_in_a_network_that_is_theirs_alone() {
    let bench = Bench::new();
    let mut ready = bench.signal("ready");
    let outside = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let hosts: std::collections::BTreeMap<String, Ipv4Addr> =
        (1..=2).map(|number| (format!("algo-{number}"), Ipv4Addr::new(127, 78, 7, number))).collect();
    let host = |id: &str, name: &str, place: &str, script: &str| {
        let mut spec = bench.spec(id, "");
        spec.command = ["python3", "-c", script].map(str::to_owned).to_vec();
        spec.hostname = name.to_owned();
        spec.hosts = hosts.clone();
        spec.network = Network::Peers { place: bench.root().join(place) };
        spec.required_locks = vec![runner::locks::Lock::NetworkNamespace];
        spec
    };
    let listen = "import os, socket\n\
        server = socket.create_server((socket.gethostname(), 7007))\n\
        open('ready', 'w').write('ready\\n')\n\
        print(server.accept()[1][0], sorted(os.listdir('/proc/sys/net/ipv4/conf')))\n";
    bench.executor.start(&host("first", "algo-1", "network", listen)).await.unwrap();
    ready.line().await;
    let reach = |address: &str, port: u16| {
        format!(
            "try:\n socket.create_connection(('{address}', {port}), timeout=5, source_address=('algo-2', 0))\n print('reached')\n\
             except OSError as error:\n print('unreachable')\n"
        )
    };
    let script = |places: [(&str, u16); 3]| {
        "import socket\n".to_owned() + &places.map(|(address, port)| reach(address, port)).concat()
    };
    // Another job is in another network, with the same addresses.
    let others = script([("algo-1", 7007), ("127.0.0.1", outside), ("169.254.169.254", 80)]);
    let messages = bench.run_well(&host("stranger", "algo-2", "another", &others)).await;
    assert_eq!(messages, ["unreachable", "unreachable", "unreachable"]);
    let peer = script([("127.0.0.1", outside), ("169.254.169.254", 80), ("algo-1", 7007)]);
    let messages = bench.run_well(&host("second", "algo-2", "network", &peer)).await;
    assert_eq!(messages, ["unreachable", "unreachable", "reached"]);
    assert_eq!(bench.executor.wait("first").await.unwrap().exit, Exit::Code(0));
    assert_eq!(bench.messages("first"), ["127.78.7.2 ['all', 'default', 'lo']"]);
    // All who were in it are gone, and a host that comes late has one of its own.
    let late = host("late", "algo-1", "network", "import socket\nsocket.create_server(('algo-1', 7007))\n");
    bench.run_well(&late).await;
}

/// What the toolkit makes of the second of two hosts.
#[rustfmt::skip]
const SECOND_OF_TWO: &[(&str, &str)] = &[
    ("SM_CURRENT_HOST", r#"algo-2"#),
    ("SM_CURRENT_INSTANCE_GROUP", r#"homogeneousCluster"#),
    ("SM_CURRENT_INSTANCE_GROUP_HOSTS", r#"["algo-1","algo-2"]"#),
    ("SM_CURRENT_INSTANCE_TYPE", r#"ml.m5.large"#),
    ("SM_DISTRIBUTION_INSTANCE_GROUPS", r#"["homogeneousCluster"]"#),
    ("SM_FRAMEWORK_PARAMS", r#"{"sagemaker_instance_type":"ml.m5.large","sagemaker_torch_distributed_enabled":true}"#),
    ("SM_HOSTS", r#"["algo-1","algo-2"]"#),
    ("SM_INSTANCE_GROUPS", r#"["homogeneousCluster"]"#),
    ("SM_INSTANCE_GROUPS_DICT", r#"{"homogeneousCluster":{"hosts":["algo-1","algo-2"],"instance_group_name":"homogeneousCluster","instance_type":"ml.m5.large"}}"#),
    ("SM_IS_HETERO", r#"false"#),
    ("SM_NETWORK_INTERFACE_NAME", r#"lo"#),
    ("SM_RESOURCE_CONFIG", r#"{"current_group_name":"homogeneousCluster","current_host":"algo-2","current_instance_group":"homogeneousCluster","current_instance_type":"ml.m5.large","hosts":["algo-1","algo-2"],"instance_groups":[{"hosts":["algo-1","algo-2"],"instance_group_name":"homogeneousCluster","instance_type":"ml.m5.large"}],"network_interface_name":"lo"}"#),
    ("SM_TRAINING_ENV", r#"{"additional_framework_parameters":{"sagemaker_instance_type":"ml.m5.large","sagemaker_torch_distributed_enabled":true},"channel_input_dirs":{"train":"/opt/ml/input/data/train"},"current_host":"algo-2","current_instance_group":"homogeneousCluster","current_instance_group_hosts":["algo-1","algo-2"],"current_instance_type":"ml.m5.large","distribution_hosts":["algo-1","algo-2"],"distribution_instance_groups":["homogeneousCluster"],"framework_module":null,"hosts":["algo-1","algo-2"],"hyperparameters":{"epochs":2},"input_config_dir":"/opt/ml/input/config","input_data_config":{"train":{"RecordWrapperType":"None","S3DistributionType":"FullyReplicated","TrainingInputMode":"File"}},"input_dir":"/opt/ml/input","instance_groups":["homogeneousCluster"],"instance_groups_dict":{"homogeneousCluster":{"hosts":["algo-1","algo-2"],"instance_group_name":"homogeneousCluster","instance_type":"ml.m5.large"}},"is_hetero":false,"is_master":false,"is_modelparallel_enabled":null,"is_smddpmprun_installed":false,"is_smddprun_installed":false,"job_name":"job-1","log_level":20,"master_hostname":"algo-1","model_dir":"/opt/ml/model","module_dir":"s3://bucket/source.tar.gz","module_name":"train","network_interface_name":"lo","num_cpus":2,"num_gpus":0,"num_neurons":0,"output_data_dir":"/opt/ml/output/data","output_dir":"/opt/ml/output","output_intermediate_dir":"/opt/ml/output/intermediate","resource_config":{"current_group_name":"homogeneousCluster","current_host":"algo-2","current_instance_group":"homogeneousCluster","current_instance_type":"ml.m5.large","hosts":["algo-1","algo-2"],"instance_groups":[{"hosts":["algo-1","algo-2"],"instance_group_name":"homogeneousCluster","instance_type":"ml.m5.large"}],"network_interface_name":"lo"},"topology":[],"user_entry_point":"train.py"}"#),
];

/// What the toolkit makes of the host of a group that the script is not distributed over.
#[rustfmt::skip]
const OTHER_GROUP: &[(&str, &str)] = &[
    ("SM_CURRENT_HOST", r#"algo-3"#),
    ("SM_CURRENT_INSTANCE_GROUP", r#"data"#),
    ("SM_CURRENT_INSTANCE_GROUP_HOSTS", r#"["algo-3"]"#),
    ("SM_CURRENT_INSTANCE_TYPE", r#"ml.c5.xlarge"#),
    ("SM_DISTRIBUTION_INSTANCE_GROUPS", r#"["train"]"#),
    ("SM_FRAMEWORK_PARAMS", r#"{"sagemaker_distribution_instance_groups":["train"],"sagemaker_mpi_custom_mpi_options":"--NCCL_DEBUG WARN -x A=1","sagemaker_mpi_enabled":true,"sagemaker_mpi_num_of_processes_per_host":2}"#),
    ("SM_HOSTS", r#"["algo-1","algo-2","algo-3"]"#),
    ("SM_INSTANCE_GROUPS", r#"["train","data"]"#),
    ("SM_INSTANCE_GROUPS_DICT", r#"{"data":{"hosts":["algo-3"],"instance_group_name":"data","instance_type":"ml.c5.xlarge"},"train":{"hosts":["algo-1","algo-2"],"instance_group_name":"train","instance_type":"ml.g5.xlarge"}}"#),
    ("SM_IS_HETERO", r#"true"#),
    ("SM_NETWORK_INTERFACE_NAME", r#"lo"#),
    ("SM_RESOURCE_CONFIG", r#"{"current_group_name":"data","current_host":"algo-3","current_instance_group":"data","current_instance_type":"ml.c5.xlarge","hosts":["algo-1","algo-2","algo-3"],"instance_groups":[{"hosts":["algo-1","algo-2"],"instance_group_name":"train","instance_type":"ml.g5.xlarge"},{"hosts":["algo-3"],"instance_group_name":"data","instance_type":"ml.c5.xlarge"}],"network_interface_name":"lo"}"#),
    ("SM_TRAINING_ENV", r#"{"additional_framework_parameters":{"sagemaker_distribution_instance_groups":["train"],"sagemaker_mpi_custom_mpi_options":"--NCCL_DEBUG WARN -x A=1","sagemaker_mpi_enabled":true,"sagemaker_mpi_num_of_processes_per_host":2},"channel_input_dirs":{"train":"/opt/ml/input/data/train"},"current_host":"algo-3","current_instance_group":"data","current_instance_group_hosts":["algo-3"],"current_instance_type":"ml.c5.xlarge","distribution_hosts":["algo-1","algo-2"],"distribution_instance_groups":["train"],"framework_module":null,"hosts":["algo-1","algo-2","algo-3"],"hyperparameters":{"epochs":2},"input_config_dir":"/opt/ml/input/config","input_data_config":{"train":{"RecordWrapperType":"None","S3DistributionType":"FullyReplicated","TrainingInputMode":"File"}},"input_dir":"/opt/ml/input","instance_groups":["train","data"],"instance_groups_dict":{"data":{"hosts":["algo-3"],"instance_group_name":"data","instance_type":"ml.c5.xlarge"},"train":{"hosts":["algo-1","algo-2"],"instance_group_name":"train","instance_type":"ml.g5.xlarge"}},"is_hetero":true,"is_master":false,"is_modelparallel_enabled":null,"is_smddpmprun_installed":false,"is_smddprun_installed":false,"job_name":"job-1","log_level":20,"master_hostname":"algo-1","model_dir":"/opt/ml/model","module_dir":"s3://bucket/source.tar.gz","module_name":"train","network_interface_name":"lo","num_cpus":2,"num_gpus":0,"num_neurons":0,"output_data_dir":"/opt/ml/output/data","output_dir":"/opt/ml/output","output_intermediate_dir":"/opt/ml/output/intermediate","resource_config":{"current_group_name":"data","current_host":"algo-3","current_instance_group":"data","current_instance_type":"ml.c5.xlarge","hosts":["algo-1","algo-2","algo-3"],"instance_groups":[{"hosts":["algo-1","algo-2"],"instance_group_name":"train","instance_type":"ml.g5.xlarge"},{"hosts":["algo-3"],"instance_group_name":"data","instance_type":"ml.c5.xlarge"}],"network_interface_name":"lo"},"topology":[],"user_entry_point":"train.py"}"#),
];
