//! Clusters: run, describe, list, terminate.

use api::emr::{
    DescribeCluster, DescribeClusterInput, DescribeClusterOutput, ListClusters, ListClustersInput,
    ListClustersOutput, RunJobFlow, RunJobFlowInput, RunJobFlowOutput, TerminateJobFlows,
    TerminateJobFlowsInput, TerminateJobFlowsOutput,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use store::resources::{Resource, ResourceKey};

use super::record::{Cluster, ClusterRecord, Ending};
use super::{CLUSTER, arn, find, invalid, new_id, plan, spark_job, steps};
use crate::problem::{Problem, Result};
use crate::sagemaker::fields;
use crate::{Cx, Error, Registry};

/// What RunJobFlow honours, and what it keeps and shows because it only describes machines that do not exist here.
const HONOURED: &[&str] = &[
    "Name",
    "LogUri",
    "ReleaseLabel",
    "Applications.Name",
    "Applications.Version",
    "Configurations.**",
    "BootstrapActions.**",
    "Steps.Name",
    "Steps.ActionOnFailure",
    "Steps.HadoopJarStep.**",
    "StepExecutionRoleArn",
    "StepConcurrencyLevel",
    "JobFlowRole",
    "Tags.**",
    "Instances.KeepJobFlowAliveWhenNoSteps",
    "Instances.MasterInstanceType",
    "Instances.SlaveInstanceType",
    "Instances.InstanceCount",
    "Instances.InstanceGroups.Name",
    "Instances.InstanceGroups.InstanceRole",
    "Instances.InstanceGroups.InstanceType",
    "Instances.InstanceGroups.InstanceCount",
    "Instances.InstanceGroups.Market",
    "Instances.InstanceGroups.BidPrice",
    "Instances.InstanceGroups.EbsConfiguration.**",
    "Instances.InstanceFleets.Name",
    "Instances.InstanceFleets.InstanceFleetType",
    "Instances.InstanceFleets.TargetOnDemandCapacity",
    "Instances.InstanceFleets.TargetSpotCapacity",
    "Instances.InstanceFleets.InstanceTypeConfigs.InstanceType",
    "Instances.InstanceFleets.InstanceTypeConfigs.WeightedCapacity",
    "Instances.InstanceFleets.InstanceTypeConfigs.EbsConfiguration.**",
    "Instances.InstanceFleets.LaunchSpecifications.**",
    "Instances.Ec2KeyName",
    "Instances.Ec2SubnetId",
    "Instances.Ec2SubnetIds",
    "Instances.Placement.**",
    "Instances.EmrManagedMasterSecurityGroup",
    "Instances.EmrManagedSlaveSecurityGroup",
    "Instances.ServiceAccessSecurityGroup",
    "Instances.AdditionalMasterSecurityGroups",
    "Instances.AdditionalSlaveSecurityGroups",
    "ServiceRole",
    "AutoScalingRole",
    "VisibleToAllUsers",
    "ScaleDownBehavior",
    "EbsRootVolumeSize",
    "OSReleaseLabel",
];

/// Programs of a cluster that a local Spark stands for.
const APPLICATIONS: &[&str] = &["Spark", "Hadoop"];
/// Most steps that run at once, as in the service.
const MOST_PARALLEL: i32 = 256;
/// Clusters on a page.
const PAGE: usize = 50;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<RunJobFlow, _, _, _>(run_job_flow);
    registry.on::<DescribeCluster, _, _, _>(describe_cluster);
    registry.on::<ListClusters, _, _, _>(list_clusters);
    registry.on::<TerminateJobFlows, _, _, _>(terminate_job_flows);
}

async fn run_job_flow(cx: Cx, input: RunJobFlowInput) -> Result<RunJobFlowOutput> {
    fields::check(&cx.input, HONOURED)?;
    check(&cx, &input).await?;
    let mut spec = (*cx.input).clone();
    let wanted = spec["Steps"].take();
    if let Some(members) = spec.as_object_mut() {
        members.remove("Steps");
        members.remove("Tags");
    }
    let id = new_id("j-");
    let key = ResourceKey::new(&*cx.caller.account, &*cx.caller.region, CLUSTER, &*id);
    let now_ms = cx.state.clock.now_ms();
    let record = ClusterRecord {
        steps: steps::new_records(&wanted, input.step_execution_role_arn.as_deref(), now_ms),
        ..ClusterRecord::default()
    };
    let resource = Resource {
        arn: arn(&key),
        key,
        status: "STARTING".into(),
        spec,
        document: record.to_document(),
        generation: 1,
        created_at: now_ms,
        modified_at: now_ms,
    };
    let cluster = Cluster { resource: resource.clone(), record };
    for step in &cluster.record.steps {
        steps::check(&cx, &cluster, step).await?;
    }
    let tags: Vec<(String, String)> = input
        .tags
        .unwrap_or_default()
        .into_iter()
        .filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default())))
        .collect();
    let cluster_arn = resource.arn.clone();
    let made = cx.state.database.write(move |session| {
        session.insert_resource(&resource)?;
        session.put_tags(&resource.arn, &tags)?;
        session.append_event(&resource.key, "Created", &resource.spec, now_ms)?;
        session.enqueue_work(&resource.key, now_ms)
    });
    made.await?;
    cx.state.clusters.wake();
    Ok(RunJobFlowOutput { job_flow_id: Some(id), cluster_arn: Some(cluster_arn) })
}

async fn check(cx: &Cx, input: &RunJobFlowInput) -> Result<()> {
    let release = input.release_label.as_deref().filter(|label| !label.is_empty());
    let release = release.ok_or_else(|| Problem::validation("ReleaseLabel must be given."))?;
    spark_job::spark_version(release)
        .map_err(|problem| Problem::validation(format!("ReleaseLabel: {problem}")))?;
    for name in input.applications.iter().flatten().filter_map(|one| one.name.as_deref()) {
        if !APPLICATIONS.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return Err(Problem::validation(format!(
                "Applications: {name:?} is not here; a cluster has {}. Leave {name} out.",
                APPLICATIONS.join(" and ")
            )));
        }
    }
    let parallel = input.step_concurrency_level.unwrap_or(1);
    if !(1..=MOST_PARALLEL).contains(&parallel) {
        return Err(Problem::validation(format!(
            "StepConcurrencyLevel: {parallel} is not between 1 and {MOST_PARALLEL}."
        )));
    }
    check_logs(input.log_uri.as_deref())?;
    spark_job::check_configurations(&cx.input["Configurations"])
        .map_err(|problem| Problem::validation(format!("Configurations: {problem}")))?;
    let types = cx.state.capacity.instance_types();
    spark_job::instance_type(types, &machine(&cx.input)?).map_err(Problem::validation)?;
    let role = input.job_flow_role.as_deref().filter(|role| !role.is_empty());
    match role.or(input.step_execution_role_arn.as_deref()) {
        None => Err(Problem::validation(
            "JobFlowRole must be given: steps act as the role of this name, unless they have an ExecutionRoleArn.",
        )),
        Some(role) => Ok(crate::iam::check_assumable(cx, &role_arn(&cx.caller.account, role)).await?),
    }
}

/// The role behind the name of an instance profile, which has the name of its role here; an ARN stays as it is.
pub fn role_arn(account: &str, role: &str) -> String {
    match role.strip_prefix(&*format!("arn:aws:iam::{account}:instance-profile/")) {
        Some(name) => format!("arn:aws:iam::{account}:role/{name}"),
        None if role.starts_with("arn:") => role.to_owned(),
        None => format!("arn:aws:iam::{account}:role/{role}"),
    }
}

fn check_logs(uri: Option<&str>) -> Result<()> {
    let Some(uri) = uri.filter(|uri| !uri.is_empty()) else { return Ok(()) };
    let rest = uri.strip_prefix("s3://").or_else(|| uri.strip_prefix("s3n://")).unwrap_or_default();
    if rest.split('/').next().is_some_and(|bucket| !bucket.is_empty()) {
        return Ok(());
    }
    Err(Problem::validation(format!("LogUri: {uri:?} is not an S3 URI such as s3://bucket/prefix.")))
}

/// The EC2 type of the machines that would do the work: those of the core group, or else the first one's.
///
/// # Errors
/// When no type is given, or groups and fleets are.
pub fn machine(request: &Value) -> Result<String> {
    let instances = &request["Instances"];
    let listed = |member: &str| instances[member].as_array().cloned().unwrap_or_default();
    let (groups, fleets) = (listed("InstanceGroups"), listed("InstanceFleets"));
    if !groups.is_empty() && !fleets.is_empty() {
        return Err(Problem::validation(
            "Instances: InstanceGroups and InstanceFleets cannot both be given.",
        ));
    }
    let core = |all: &[Value], member: &str| {
        all.iter().find(|one| one[member] == "CORE").or_else(|| all.first()).cloned().unwrap_or_default()
    };
    let group = core(&groups, "InstanceRole");
    let fleet = core(&fleets, "InstanceFleetType");
    let places = [
        &group["InstanceType"],
        &fleet["InstanceTypeConfigs"][0]["InstanceType"],
        &instances["SlaveInstanceType"],
        &instances["MasterInstanceType"],
    ];
    let found = places.into_iter().find_map(Value::as_str).map(str::to_owned);
    found.ok_or_else(|| {
        Problem::validation(
            "Instances: give InstanceGroups, InstanceFleets or MasterInstanceType with an InstanceType.",
        )
    })
}

async fn describe_cluster(cx: Cx, input: DescribeClusterInput) -> Result<DescribeClusterOutput> {
    let cluster = find(&cx, &input.cluster_id).await?;
    let resource_arn = cluster.resource.arn.clone();
    let tags = cx.state.database.read(move |session| session.tags(&resource_arn)).await?;
    let tags: Vec<Value> = tags.into_iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect();
    let spec = &cluster.resource.spec;
    let instances = &spec["Instances"];
    let is_fleet = instances["InstanceFleets"].as_array().is_some_and(|fleets| !fleets.is_empty());
    let mut described = summary(&cluster);
    let more = json!({
        "Ec2InstanceAttributes": {
            "Ec2KeyName": instances["Ec2KeyName"],
            "Ec2SubnetId": instances["Ec2SubnetId"],
            "RequestedEc2SubnetIds": instances["Ec2SubnetIds"],
            "IamInstanceProfile": spec["JobFlowRole"],
            "EmrManagedMasterSecurityGroup": instances["EmrManagedMasterSecurityGroup"],
            "EmrManagedSlaveSecurityGroup": instances["EmrManagedSlaveSecurityGroup"],
            "ServiceAccessSecurityGroup": instances["ServiceAccessSecurityGroup"],
            "AdditionalMasterSecurityGroups": instances["AdditionalMasterSecurityGroups"],
            "AdditionalSlaveSecurityGroups": instances["AdditionalSlaveSecurityGroups"],
        },
        "InstanceCollectionType": if is_fleet { "INSTANCE_FLEET" } else { "INSTANCE_GROUP" },
        "LogUri": spec["LogUri"],
        "ReleaseLabel": spec["ReleaseLabel"],
        "AutoTerminate": instances["KeepJobFlowAliveWhenNoSteps"] != true,
        "TerminationProtected": false,
        "VisibleToAllUsers": spec["VisibleToAllUsers"].as_bool().unwrap_or(true),
        "Applications": spec["Applications"],
        "Tags": tags,
        "ServiceRole": spec["ServiceRole"],
        "Configurations": spec["Configurations"],
        "AutoScalingRole": spec["AutoScalingRole"],
        "ScaleDownBehavior": spec["ScaleDownBehavior"],
        "EbsRootVolumeSize": spec["EbsRootVolumeSize"],
        "OSReleaseLabel": spec["OSReleaseLabel"],
        "StepConcurrencyLevel": spec["StepConcurrencyLevel"].as_i64().unwrap_or(1),
    });
    if let (Value::Object(described), Value::Object(more)) = (&mut described, more) {
        described.extend(more);
    }
    Ok(serde_json::from_value(json!({"Cluster": described})).map_err(Error::internal)?)
}

fn summary(cluster: &Cluster) -> Value {
    json!({
        "Id": cluster.resource.key.name,
        "Name": cluster.resource.spec["Name"],
        "Status": cluster.status(),
        "NormalizedInstanceHours": 0,
        "ClusterArn": cluster.resource.arn,
    })
}

async fn list_clusters(cx: Cx, input: ListClustersInput) -> Result<ListClustersOutput> {
    let after = position(input.marker.as_deref())?;
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let states: Vec<String> =
        input.cluster_states.unwrap_or_default().iter().map(ToString::to_string).collect();
    let created_after = input.created_after.map_or(i64::MIN, |at| at.as_millis());
    let created_before = input.created_before.map_or(i64::MAX, |at| at.as_millis());
    let mut found = cx.state.database.read(|session| session.all_resources(CLUSTER)).await?;
    found.retain(|one| {
        one.key.account == account
            && one.key.region == region
            && (states.is_empty() || states.contains(&one.status))
            && (created_after..=created_before).contains(&one.created_at)
            && after.as_ref().is_none_or(|(at, name)| (one.created_at, &one.key.name) < (*at, name))
    });
    // The newest first.
    found.sort_by(|one, other| (other.created_at, &other.key.name).cmp(&(one.created_at, &one.key.name)));
    let more = found.len() > PAGE;
    found.truncate(PAGE);
    let last = found.last().filter(|_| more);
    let marker = last.map(|one| URL_SAFE_NO_PAD.encode(format!("{} {}", one.created_at, one.key.name)));
    let clusters = found.into_iter().map(|one| Ok(summary(&Cluster::read(one)?)));
    let clusters = clusters.collect::<store::Result<Vec<Value>>>()?;
    Ok(serde_json::from_value(json!({"Clusters": clusters, "Marker": marker})).map_err(Error::internal)?)
}

/// The last cluster of the page before.
fn position(marker: Option<&str>) -> Result<Option<(i64, String)>> {
    let Some(marker) = marker else { return Ok(None) };
    let text = URL_SAFE_NO_PAD.decode(marker).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let read = text.as_deref().and_then(|text| text.split_once(' '));
    let read = read.and_then(|(at, name)| Some((at.parse().ok()?, name.to_owned())));
    read.map(Some).ok_or_else(|| invalid(format!("Marker '{marker}' is not valid.")))
}

async fn terminate_job_flows(cx: Cx, input: TerminateJobFlowsInput) -> Result<TerminateJobFlowsOutput> {
    let mut keys = Vec::new();
    for id in &input.job_flow_ids {
        let found = find(&cx, id).await;
        keys.push(
            found.map_err(|_| Problem::validation("Specified job flow ID does not exist."))?.resource.key,
        );
    }
    let now_ms = cx.state.clock.now_ms();
    let ended = cx.state.database.write(move |session| {
        for key in &keys {
            session.update_resource(key, now_ms, |resource| {
                let mut record = ClusterRecord::read(resource)?;
                if !resource.status.starts_with("TERMINAT") {
                    let ending = Ending::new("USER_REQUEST", "Terminated by user request");
                    plan::end(&mut record, ending, now_ms);
                    resource.status = "TERMINATING".into();
                    resource.document = record.to_document();
                }
                Ok(())
            })?;
            session.append_event(key, "TerminationRequested", &Value::Null, now_ms)?;
        }
        Ok(())
    });
    ended.await?;
    Ok(TerminateJobFlowsOutput::default())
}
