//! Clean of our own service: one step of the removal of old things, for the command line.

use serde::{Deserialize, Serialize};

use super::settings::{MOST_DAYS, is_number_of_days};
use super::{Kind, StepRequest};
use crate::own_service::own_operation;
use crate::{Cx, Error, Registry, Result};

own_operation! {
    /// Does one step, or says what it would do.
    Clean(CleanInput) -> CleanOutput
}

/// Input of [`Clean`].
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CleanInput {
    /// Name of a [`Kind`].
    pub kind: String,
    /// Where the step before ended.
    pub after: Option<String>,
    /// Days instead of those of the settings.
    pub days: Option<i32>,
    /// Only say what would go.
    pub dry_run: Option<bool>,
}

/// Output of [`Clean`].
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CleanOutput {
    /// Things that went.
    pub items: u64,
    /// Bytes that they took.
    pub bytes: u64,
    /// Days that are kept; none where everything is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
    /// Where to go on; none after the last step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<Clean, _, _, _>(clean);
}

async fn clean(cx: Cx, input: CleanInput) -> Result<CleanOutput> {
    // It goes through all accounts.
    let first = &cx.state.config.account;
    if cx.caller.account != *first {
        return Err(Error::AccessDenied(format!(
            "Only account {first}, the first one of this server, may remove what is old."
        )));
    }
    let kind = Kind::named(&input.kind).ok_or_else(|| {
        Error::Validation(format!(
            "Kind: there is no {:?}; give one of {}.",
            input.kind,
            Kind::ALL.map(Kind::name).join(", ")
        ))
    })?;
    let days = match input.days {
        None => None,
        Some(_) if matches!(kind, Kind::Metrics | Kind::Folders) => {
            return Err(Error::Validation(format!("Days cannot be given for {}.", kind.name())));
        }
        Some(days) => Some(
            u32::try_from(days)
                .ok()
                .filter(|days| is_number_of_days(*days))
                .ok_or_else(|| Error::Validation(format!("Days must be from 1 to {MOST_DAYS}.")))?,
        ),
    };
    let is_dry_run = input.dry_run.unwrap_or_default();
    let step = super::step(&cx.state, &StepRequest { kind, after: input.after, days, is_dry_run }).await?;
    Ok(CleanOutput { items: step.items, bytes: step.bytes, days: step.days, after: step.next })
}
