//! The hosts of a job: which there are, what each is asked to do, and how all of them are ended.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use api::sagemaker::{Channel, CreateTrainingJobInput};
use runner::contract::{HOMOGENEOUS_GROUP, InstanceGroup};
use runner::feed::Shard;
use runner::workload::{Exit, Observation};

use super::addresses::AddressRange;
use super::prepare::job_directory;
use super::record::{HostRecord, TrainingRecord};
use crate::app::App;
use crate::workloads;

/// The name of a host, counted from 0.
pub fn host_name(index: usize) -> String {
    format!("algo-{}", index + 1)
}

/// The instance groups of a job; hosts are numbered through all of them.
pub fn groups(request: &CreateTrainingJobInput) -> Vec<InstanceGroup> {
    let Some(resources) = &request.resource_config else { return Vec::new() };
    let mut next = 0;
    let mut names = |count: i64| {
        let first = next;
        next += usize::try_from(count).unwrap_or(0);
        (first..next).map(host_name).collect::<Vec<_>>()
    };
    match resources.instance_groups.as_deref() {
        Some(groups) if !groups.is_empty() => groups
            .iter()
            .map(|group| InstanceGroup {
                name: group.instance_group_name.clone(),
                instance_type: group.instance_type.to_string(),
                hosts: names(i64::from(group.instance_count)),
            })
            .collect(),
        _ => vec![InstanceGroup {
            name: HOMOGENEOUS_GROUP.to_owned(),
            instance_type: resources.instance_type.as_ref().map(ToString::to_string).unwrap_or_default(),
            hosts: names(resources.instance_count.map_or(1, i64::from)),
        }],
    }
}

/// Number of hosts of a job.
pub fn count(groups: &[InstanceGroup]) -> usize {
    groups.iter().map(|group| group.hosts.len()).sum()
}

/// The addresses of all hosts.
pub fn addresses(groups: &[InstanceGroup], range: AddressRange) -> BTreeMap<String, Ipv4Addr> {
    (0..count(groups)).map(|index| (host_name(index), range.host(index))).collect()
}

/// A channel that a host gets, and its part in sharing it.
pub struct OwnChannel {
    /// The channel.
    pub channel: Channel,
    /// Which of the hosts that get the channel this is.
    pub shard: Shard,
}

/// The channels of a host: those that name its group, or none.
pub fn channels(request: &CreateTrainingJobInput, groups: &[InstanceGroup], host: &str) -> Vec<OwnChannel> {
    let all = request.input_data_config.iter().flatten();
    let own = all.filter_map(|channel| {
        let source = channel.data_source.s3_data_source.as_ref();
        let named = source.and_then(|source| source.instance_group_names.clone()).unwrap_or_default();
        let mut sharing = groups
            .iter()
            .filter(|group| named.is_empty() || named.contains(&group.name))
            .flat_map(|group| &group.hosts);
        let position = sharing.clone().position(|one| one == host)?;
        let shard = Shard { host: position, hosts: sharing.by_ref().count() };
        Some(OwnChannel { channel: channel.clone(), shard })
    });
    own.collect()
}

/// Whether every host was started, so that all can be taken up again.
///
/// # Errors
/// When that cannot be told now: a job that did run must not run again.
pub fn are_all_started(app: &App, record: &TrainingRecord) -> store::Result<bool> {
    for host in &record.hosts {
        let unclear = |error: runner::Error| {
            let context = format!("look at the workload {}", host.workload);
            store::Error::file(context)(std::io::Error::other(error))
        };
        match app.executor.observe(&host.workload) {
            Ok(seen @ (Observation::Running { .. } | Observation::Exited(_))) => {
                if app.executor.awaits_task(&host.workload).map_err(unclear)? {
                    return Ok(false);
                }
                // The word to go is not forced to the disk; the record that comes before it is. After a crash of the machine
                // a job that was to be let go may have run.
                let may_have_run = record.attempts.run_started_at.is_some()
                    && matches!(&seen, Observation::Exited(report) if report.exit == Exit::SupervisorLost);
                if !may_have_run && app.executor.is_held(&host.workload).map_err(unclear)? {
                    return Ok(false);
                }
            }
            Ok(Observation::Unknown) | Err(runner::Error::UnknownWorkload(_)) => return Ok(false),
            Err(error) => return Err(unclear(error)),
        }
    }
    Ok(!record.hosts.is_empty())
}

/// Asks all hosts but one to end.
pub fn stop(app: &App, hosts: &[HostRecord], except: Option<usize>) {
    for (index, host) in hosts.iter().enumerate() {
        if Some(index) != except
            && let Err(error) = app.executor.stop(&host.workload)
        {
            tracing::error!(host = host.log_stream, %error, "a host of a job could not be stopped");
        }
    }
}

/// Ends what still runs and removes what the hosts leave on the machine.
pub async fn clean_up(app: &Arc<App>, hosts: &[HostRecord]) {
    let workloads: Vec<String> = hosts.iter().map(|host| host.workload.clone()).collect();
    clean_up_workloads(app, &workloads).await;
}

/// As [`clean_up`], by the ids of the workloads.
pub async fn clean_up_workloads(app: &App, workloads: &[String]) {
    let executor = &app.executor;
    for id in workloads {
        if let Ok(Observation::Running { .. }) = executor.observe(id)
            && let Err(error) = executor.kill(id)
        {
            tracing::error!(workload = id, %error, "a workload could not be ended");
        }
    }
    for id in workloads {
        match executor.wait(id).await {
            Ok(_) | Err(runner::Error::UnknownWorkload(_)) => {}
            Err(error) => tracing::warn!(workload = id, %error, "a workload's end could not be awaited"),
        }
        if let Err(error) = executor.remove(id) {
            tracing::warn!(workload = id, %error, "an ended workload could not be removed");
        }
        workloads::remove_directory(&job_directory(app, id)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(resources: &serde_json::Value, channels: &serde_json::Value) -> CreateTrainingJobInput {
        serde_json::from_value(json!({
            "TrainingJobName": "job", "RoleArn": "arn:aws:iam::123456789012:role/R",
            "OutputDataConfig": {"S3OutputPath": "s3://b/"},
            "ResourceConfig": resources, "InputDataConfig": channels,
        }))
        .unwrap()
    }

    #[test]
    fn hosts_are_numbered_through_the_groups_that_share_a_channel() {
        let source = |names: &[&str]| json!({"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/p", "InstanceGroupNames": names}});
        let request = request(
            &json!({"VolumeSizeInGB": 1, "InstanceGroups": [
                {"InstanceGroupName": "train", "InstanceType": "ml.m5.large", "InstanceCount": 2},
                {"InstanceGroupName": "data", "InstanceType": "ml.c5.large", "InstanceCount": 1},
            ]}),
            &json!([
                {"ChannelName": "all", "DataSource": source(&[])},
                {"ChannelName": "data", "DataSource": source(&["data"])},
            ]),
        );
        let groups = groups(&request);
        assert_eq!(groups[1].hosts, ["algo-3"]);
        let of = |host: &str| {
            let own = channels(&request, &groups, host);
            own.iter()
                .map(|one| (one.channel.channel_name.clone(), one.shard.host, one.shard.hosts))
                .collect::<Vec<_>>()
        };
        assert_eq!(of("algo-2"), [("all".to_owned(), 1, 3)]);
        assert_eq!(of("algo-3"), [("all".to_owned(), 2, 3), ("data".to_owned(), 0, 1)]);
        let range = AddressRange { second: 9, third: 8, port: 7777 };
        assert_eq!(addresses(&groups, range)["algo-3"], Ipv4Addr::new(127, 9, 8, 3));
    }

    #[test]
    fn a_plain_job_has_one_group() {
        let request = request(
            &json!({"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}),
            &json!([]),
        );
        let groups = groups(&request);
        assert_eq!((groups.len(), groups[0].name.as_str(), count(&groups)), (1, HOMOGENEOUS_GROUP, 2));
    }
}
