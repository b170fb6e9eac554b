//! What an inference component takes of an instance, and how many copies of several components fit on the instances of a variant.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::capacity::Profile;

/// Most copies of a component, so that finding room for them takes no time.
pub const MOST_COPIES: u32 = 1000;

/// Most instances of a variant for components.
pub const MOST_INSTANCES: u32 = 100;

/// Cores and memory that differ by less are the same.
const SLACK: f64 = 1e-6;

/// What each copy of a component takes of the instance that it is on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// CPU cores that are its own; without a number it uses what is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<f64>,
    /// Accelerators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerators: Option<f64>,
    /// Memory that is kept for it.
    pub min_memory_mib: u32,
    /// Memory that it may have at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_memory_mib: Option<u32>,
    /// Where its copies go.
    #[serde(default)]
    pub placement: Placement,
}

/// Which instance a copy goes to, in the words of the service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Placement {
    /// The one with the fewest copies of the component.
    #[default]
    Spread,
    /// The first that has room.
    Binpack,
}

impl Share {
    /// Reads `ComputeResourceRequirements` and `SchedulingConfig` of a specification.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn of(specification: &Value) -> Result<Share, String> {
        let wanted = &specification["ComputeResourceRequirements"];
        let mebibytes = |name: &str| wanted[name].as_u64().and_then(|number| u32::try_from(number).ok());
        let Some(min_memory_mib) = mebibytes("MinMemoryRequiredInMb") else {
            return Err(
                "Specification.ComputeResourceRequirements: MinMemoryRequiredInMb must be given.".into()
            );
        };
        let share = Share {
            cpu_cores: wanted["NumberOfCpuCoresRequired"].as_f64(),
            accelerators: wanted["NumberOfAcceleratorDevicesRequired"].as_f64(),
            min_memory_mib,
            max_memory_mib: mebibytes("MaxMemoryRequiredInMb"),
            placement: match specification["SchedulingConfig"]["PlacementStrategy"].as_str() {
                Some("BINPACK") => Placement::Binpack,
                _ => Placement::Spread,
            },
        };
        match share.max_memory_mib {
            Some(most) if most < min_memory_mib => Err(format!(
                "Specification.ComputeResourceRequirements: MaxMemoryRequiredInMb {most} must not be below \
                 MinMemoryRequiredInMb {min_memory_mib}."
            )),
            _ => Ok(share),
        }
    }

    /// Memory that a copy may use: what is said as its most; else no limit of its own.
    pub fn memory_limit_bytes(&self) -> Option<u64> {
        self.max_memory_mib.map(|mebibytes| u64::from(mebibytes) << 20)
    }

    /// CPUs that a copy may use: its cores, rounded up.
    pub fn cpu_limit(&self) -> Option<u32> {
        self.cpu_cores.map(|cores| cores.ceil().max(1.0) as u32)
    }

    /// Worker processes of a copy, where its model does not say it: one for each of its cores that the machine has, or for each of its
    /// accelerators; `usual` when it names neither.
    pub fn workers(&self, usual: u32, machine_cpus: f64) -> u32 {
        match (self.accelerators, self.cpu_cores) {
            (Some(accelerators), _) => accelerators.ceil().max(1.0) as u32,
            (None, Some(cores)) => cores.min(machine_cpus).ceil().max(1.0) as u32,
            (None, None) => usual,
        }
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(cores) = self.cpu_cores {
            write!(formatter, "{cores} CPU cores, ")?;
        }
        if let Some(accelerators) = self.accelerators {
            write!(formatter, "{accelerators} accelerators, ")?;
        }
        write!(formatter, "{} MB of memory", self.min_memory_mib)
    }
}

/// What is free of an instance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Free {
    cpu_cores: f64,
    memory_mib: f64,
    accelerators: f64,
}

impl Free {
    /// An empty instance.
    pub fn of(profile: &Profile) -> Free {
        Free {
            cpu_cores: profile.vcpus,
            memory_mib: profile.memory_gib * 1024.0,
            accelerators: f64::from(profile.gpus),
        }
    }

    fn after(&self, share: &Share) -> Option<Free> {
        let left = Free {
            cpu_cores: self.cpu_cores - share.cpu_cores.unwrap_or(0.0),
            memory_mib: self.memory_mib - f64::from(share.min_memory_mib),
            accelerators: self.accelerators - share.accelerators.unwrap_or(0.0),
        };
        let least = left.cpu_cores.min(left.memory_mib).min(left.accelerators);
        (least > -SLACK).then_some(left)
    }

    /// How many copies of a share have room.
    pub fn copies(&self, share: &Share) -> u32 {
        std::iter::successors(self.after(share), |free| free.after(share)).fold(0, |count, _| count + 1)
    }
}

impl std::fmt::Display for Free {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cores = (self.cpu_cores * 100.0).round() / 100.0;
        write!(formatter, "{cores} CPU cores, {:.0} MB of memory", self.memory_mib)?;
        if self.accelerators > SLACK {
            write!(formatter, ", {} accelerators", self.accelerators)?;
        }
        Ok(())
    }
}

/// Copies of one component that are to have a place.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// What each of them takes.
    pub share: &'a Share,
    /// How many have a place already, which come before all that are new.
    pub kept: u32,
    /// How many are wanted.
    pub wanted: u32,
}

/// Who has a place.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrangement {
    /// What is free of each instance.
    pub free: Vec<Free>,
    /// How many copies of each ask have a place.
    pub placed: Vec<u32>,
}

/// Gives copies their places on so many instances: first those that had one, then the others, in the order of the asks.
pub fn arrange(profile: &Profile, instances: u32, asks: &[Ask<'_>]) -> Arrangement {
    let mut free = vec![Free::of(profile); instances as usize];
    let mut copies = vec![vec![0u32; free.len()]; asks.len()];
    let rounds: [fn(&Ask<'_>) -> u32; 2] = [|ask| ask.kept.min(ask.wanted), |ask| ask.wanted];
    for wanted in rounds {
        for (ask, copies) in asks.iter().zip(&mut copies) {
            let missing = wanted(ask).saturating_sub(copies.iter().sum());
            for _ in 0..missing {
                let has_room = (0..free.len()).filter(|at| free[*at].after(ask.share).is_some());
                let chosen = match ask.share.placement {
                    Placement::Spread => has_room.min_by_key(|at| copies[*at]),
                    Placement::Binpack => has_room.min_by(|one, other| {
                        let left = |at: usize| (free[at].accelerators, free[at].memory_mib);
                        left(*one).partial_cmp(&left(*other)).unwrap_or(std::cmp::Ordering::Equal)
                    }),
                };
                let Some(at) = chosen else { break };
                if let Some(left) = free[at].after(ask.share) {
                    free[at] = left;
                    copies[at] += 1;
                }
            }
        }
    }
    Arrangement { free, placed: copies.iter().map(|copies| copies.iter().sum()).collect() }
}

/// As [`arrange`], on as few instances of `least` to `most` as have room for all copies; on `most` when there is no such number.
/// Gives how many that are, too.
pub fn arrange_within(profile: &Profile, (least, most): (u32, u32), asks: &[Ask<'_>]) -> (u32, Arrangement) {
    let is_whole =
        |found: &Arrangement| found.placed.iter().zip(asks).all(|(placed, ask)| *placed == ask.wanted);
    for instances in least..most {
        let found = arrange(profile, instances, asks);
        if is_whole(&found) {
            return (instances, found);
        }
    }
    (most, arrange(profile, most, asks))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn share(cpu_cores: f64, min_memory_mib: u32) -> Share {
        Share {
            cpu_cores: Some(cpu_cores),
            accelerators: None,
            min_memory_mib,
            max_memory_mib: None,
            placement: Placement::Spread,
        }
    }

    fn large() -> Profile {
        Profile { vcpus: 2.0, memory_gib: 8.0, gpus: 0, gpu: None }
    }

    fn ask(share: &Share, kept: u32, wanted: u32) -> Ask<'_> {
        Ask { share, kept, wanted }
    }

    #[test]
    fn requirements_are_read_and_checked() {
        let specification = json!({
            "ComputeResourceRequirements": {
                "NumberOfCpuCoresRequired": 1.5, "MinMemoryRequiredInMb": 1024, "MaxMemoryRequiredInMb": 2048,
            },
            "SchedulingConfig": {"PlacementStrategy": "BINPACK"},
        });
        let read = Share::of(&specification).unwrap();
        assert_eq!((read.cpu_limit(), read.memory_limit_bytes()), (Some(2), Some(2 << 30)));
        assert_eq!((read.workers(8, 16.0), read.workers(8, 1.0)), (2, 1));
        assert_eq!(read.to_string(), "1.5 CPU cores, 1024 MB of memory");
        assert_eq!(read.placement, Placement::Binpack);
        let plain =
            Share::of(&json!({"ComputeResourceRequirements": {"MinMemoryRequiredInMb": 128}})).unwrap();
        assert_eq!((plain.cpu_limit(), plain.memory_limit_bytes(), plain.workers(3, 4.0)), (None, None, 3));
        assert!(Share::of(&json!({})).unwrap_err().contains("MinMemoryRequiredInMb must be given"));
        let wrong = json!({"ComputeResourceRequirements": {"MinMemoryRequiredInMb": 512, "MaxMemoryRequiredInMb": 256}});
        assert!(Share::of(&wrong).unwrap_err().contains("MaxMemoryRequiredInMb 256"));
    }

    #[test]
    fn copies_take_room_and_those_that_had_a_place_keep_it() {
        let (small, half) = (share(0.5, 1024), share(1.0, 1024));
        let found = arrange(&large(), 1, &[ask(&small, 0, 3), ask(&half, 1, 2)]);
        // One of the second had its place; what is left goes to the first in line.
        assert_eq!(found.placed, [2, 1]);
        assert_eq!(found.free[0].to_string(), "0 CPU cores, 5120 MB of memory");
        assert_eq!(found.free[0].copies(&small), 0);
        assert_eq!(Free::of(&large()).copies(&small), 4);
        let accelerated = Share { accelerators: Some(1.0), ..share(0.25, 128) };
        assert_eq!(arrange(&large(), 3, &[ask(&accelerated, 0, 1)]).placed, [0]);
        assert_eq!(arrange(&large(), 0, &[ask(&small, 0, 1)]).placed, [0]);
    }

    #[test]
    fn strategies_choose_other_instances() {
        let spread = share(0.5, 1024);
        let packed = Share { placement: Placement::Binpack, ..share(0.5, 1024) };
        let used = |share: &Share| {
            let found = arrange(&large(), 2, &[ask(share, 0, 2)]);
            found.free.iter().filter(|free| **free != Free::of(&large())).count()
        };
        assert_eq!((used(&spread), used(&packed)), (2, 1));
    }

    #[test]
    fn as_few_instances_as_possible_are_taken() {
        let half = share(1.0, 1024);
        let within = |bounds, wanted| {
            let (instances, found) = arrange_within(&large(), bounds, &[ask(&half, 0, wanted)]);
            (instances, found.placed[0])
        };
        assert_eq!(within((0, 4), 0), (0, 0));
        assert_eq!(within((1, 4), 0), (1, 0));
        assert_eq!(within((0, 4), 5), (3, 5));
        assert_eq!(within((0, 2), 5), (2, 4));
    }
}
