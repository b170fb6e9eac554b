//! How many workers a replica runs whose model does not say it.

use crate::capacity::Profile;

/// One for each CPU that the instance type and the machine have, as in the service's containers; or one for each accelerator, whose
/// memory workers would not share.
pub fn usual_workers(profile: Option<&Profile>, machine_cpus: f64) -> u32 {
    match profile {
        Some(profile) if profile.gpus > 0 => profile.gpus,
        Some(profile) => profile.vcpus.min(machine_cpus).max(1.0) as u32,
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_follow_the_instance_type_and_the_machine() {
        let profile = |vcpus, gpus| Profile { vcpus, memory_gib: 8.0, gpus, gpu: None };
        assert_eq!(usual_workers(Some(&profile(4.0, 0)), 8.0), 4);
        assert_eq!(usual_workers(Some(&profile(96.0, 0)), 2.0), 2);
        assert_eq!(usual_workers(Some(&profile(0.5, 0)), 2.0), 1);
        assert_eq!(usual_workers(Some(&profile(96.0, 8)), 128.0), 8);
        assert_eq!(usual_workers(None, 8.0), 1);
    }
}
