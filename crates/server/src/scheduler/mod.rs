//! EventBridge Scheduler: schedules in groups; and the timers that these and the rules with a timetable share.

mod cron;
mod groups;
mod schedules;
mod tags;
mod target;
pub mod timers;
pub mod timetable;

use crate::Registry;

/// Kind of a schedule in the store; its name is `GROUP/NAME`.
pub const SCHEDULE: &str = "schedule";
/// Kind of a schedule group in the store.
const GROUP: &str = "schedule-group";
/// The group that is always there.
const DEFAULT_GROUP: &str = "default";

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    schedules::routes(registry);
    groups::routes(registry);
    tags::routes(registry);
}
