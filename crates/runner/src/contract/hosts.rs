//! The hosts of a job: their groups, who leads, and what `resourceconfig.json` says of them.

use super::TrainingContract;
use super::python_json::Json;

/// The one instance group of a job that asks for none.
pub const HOMOGENEOUS_GROUP: &str = "homogeneousCluster";

/// The network interface that the hosts of a job reach each other over. The service says `eth0`; here the hosts are
/// addresses of the loopback device, and gloo and NCCL look for an address of the very interface that they are told.
pub const NETWORK_INTERFACE: &str = "lo";

/// The port at which the framework's images let the first host listen.
pub const RENDEZVOUS_PORT: u16 = 7777;

/// Hosts of one type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceGroup {
    /// Name in the request; [`HOMOGENEOUS_GROUP`] where there are no groups.
    pub name: String,
    /// Instance type, as asked for.
    pub instance_type: String,
    /// Names of the hosts.
    pub hosts: Vec<String>,
}

/// How the hosts of a job find and trust each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendezvous {
    /// Port of the first host.
    pub port: u16,
    /// What the hosts of this job know and nobody else does.
    pub secret: String,
}

impl Default for Rendezvous {
    fn default() -> Self {
        Self { port: RENDEZVOUS_PORT, secret: String::new() }
    }
}

impl InstanceGroup {
    pub(super) fn hosts_json(&self) -> Json {
        Json::texts(sorted(&self.hosts))
    }

    pub(super) fn to_json(&self) -> Json {
        Json::dictionary([
            ("hosts", self.hosts_json()),
            ("instance_group_name", Json::Text(self.name.clone())),
            ("instance_type", Json::Text(self.instance_type.clone())),
        ])
    }
}

/// The service sorts host names as text: `algo-10` comes before `algo-2`.
fn sorted(hosts: &[String]) -> Vec<String> {
    let mut hosts = hosts.to_vec();
    hosts.sort_unstable();
    hosts
}

impl TrainingContract {
    /// All hosts, in the order in which the service shows them: as text.
    pub fn hosts(&self) -> Vec<String> {
        let all: Vec<String> = self.groups.iter().flat_map(|group| group.hosts.clone()).collect();
        sorted(&all)
    }

    /// The group of this host.
    pub(super) fn group(&self) -> InstanceGroup {
        let own = self.groups.iter().find(|group| group.hosts.contains(&self.current_host));
        own.cloned().unwrap_or_else(|| InstanceGroup {
            name: HOMOGENEOUS_GROUP.to_owned(),
            ..InstanceGroup::default()
        })
    }

    pub(super) fn resource_config(&self) -> Json {
        let text = |text: &str| Json::Text(text.to_owned());
        let group = self.group();
        Json::dictionary([
            ("current_group_name", text(&group.name)),
            ("current_host", text(&self.current_host)),
            ("current_instance_group", text(&group.name)),
            ("current_instance_type", text(&group.instance_type)),
            ("hosts", Json::texts(self.hosts())),
            ("instance_groups", Json::List(self.groups.iter().map(InstanceGroup::to_json).collect())),
            ("network_interface_name", text(NETWORK_INTERFACE)),
        ])
    }
}
