//! Warm pools: what a job that has ended keeps of the machine for the next one that is like it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::sagemaker::CreateTrainingJobInput;
use serde_json::{Value, json};
use store::Session;
use store::resources::{Resource, ResourceKey};
use store::warm_pools::WarmPool;
use tokio::sync::Notify;
use wire::SessionTags;

use super::admission;
use super::attempt::Attempt;
use super::record::TrainingRecord;
use super::warm_start::{self, Pattern};
use crate::app::App;
use crate::capacity::{Allocation, Claim};
use crate::sagemaker::kinds::TRAINING_JOB;

/// What the pools of this server hold. Their rows in the database say which there are; a restarted server takes hold again.
#[derive(Default)]
pub struct WarmPools {
    kept: Mutex<HashMap<ResourceKey, Kept>>,
    /// Wakes the jobs that wait in line when a pool can be had.
    available: Notify,
}

struct Kept {
    allocation: Allocation,
    /// Milliseconds since 1970; open while the job still uploads what it leaves.
    ends_at: Option<i64>,
}

impl WarmPools {
    fn lock(&self) -> MutexGuard<'_, HashMap<ResourceKey, Kept>> {
        // A poisoned lock only says that another thread panicked; the map is still a map.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, key: &ResourceKey, allocation: Allocation, ends_at: Option<i64>) {
        allocation.rest();
        self.lock().insert(key.clone(), Kept { allocation, ends_at });
    }

    fn take(&self, key: &ResourceKey) -> Option<Allocation> {
        self.lock().remove(key).map(|kept| kept.allocation)
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn holds(&self, key: &ResourceKey) -> bool {
        self.lock().contains_key(key)
    }

    fn ends_at(&self, key: &ResourceKey) -> Option<i64> {
        self.lock().get(key)?.ends_at
    }

    /// Of what has no end yet, only the database can tell: the end may just have been written.
    fn may_any_be_due(&self, now_ms: i64) -> bool {
        self.lock().values().any(|kept| kept.ends_at.is_none_or(|ends_at| ends_at <= now_ms))
    }

    fn due(&self, now_ms: i64) -> Vec<ResourceKey> {
        let kept = self.lock();
        let due = kept.iter().filter(|(_, kept)| kept.ends_at.is_some_and(|ends_at| ends_at <= now_ms));
        due.map(|(key, _)| key.clone()).collect()
    }
}

/// How long the job keeps its part of the machine after its end; 0 without a pool.
pub fn keep_alive_seconds(request: &CreateTrainingJobInput) -> i64 {
    let resources = request.resource_config.as_ref();
    resources.and_then(|resources| resources.keep_alive_period_in_seconds).map_or(0, i64::from)
}

/// What two jobs must have in common so that one can have the other's pool. Tags of sessions tell tenants of one role apart.
fn matching(request: &Value, session_tags: &SessionTags) -> String {
    let resources = &request["ResourceConfig"];
    let mut matching = json!({
        "RoleArn": request["RoleArn"],
        "TrainingImage": request["AlgorithmSpecification"]["TrainingImage"],
        "InstanceType": resources["InstanceType"],
        "InstanceCount": resources["InstanceCount"],
        "VolumeKmsKeyId": resources["VolumeKmsKeyId"],
        "VpcConfig": request["VpcConfig"],
        "EnableInterContainerTrafficEncryption": request["EnableInterContainerTrafficEncryption"] == true,
        "EnableNetworkIsolation": request["EnableNetworkIsolation"] == true,
    });
    if !session_tags.is_empty() {
        matching["SessionTags"] = json!(session_tags.tags);
    }
    matching.to_string()
}

/// Waits for the job's turn, or takes a pool that matches it.
///
/// # Errors
/// When the database fails or the lease is lost.
pub async fn admit(attempt: &Attempt<'_>, claim: Claim) -> store::Result<Allocation> {
    let app = attempt.app;
    if attempt.kind.processing().is_some() {
        // As in the service, pools are for training jobs.
        return admission::admit(attempt, claim).await;
    }
    let pools = app.training.warm_pools();
    // What an earlier attempt of the same job has kept is still its own.
    if let Some(allocation) = pools.take(&claim.key) {
        return Ok(app.capacity.hand_over(allocation, claim));
    }
    let keeps = keep_alive_seconds(&attempt.request) > 0;
    let matching = matching(&serde_json::to_value(&attempt.request)?, &attempt.record()?.session_tags);
    let allocation = loop {
        let available = pools.available.notified();
        tokio::pin!(available);
        // From here on no pool is missed.
        available.as_mut().enable();
        if !claim.spot && !pools.is_empty() {
            expire(app).await?;
            if let Some(pool) = reuse(attempt, &matching, keeps).await? {
                if let Some(allocation) = pools.take(&pool.key) {
                    app.training.warm_starts().pass_on(&pool.key, &claim.key);
                    return Ok(app.capacity.hand_over(allocation, claim));
                }
                tracing::warn!(pool = pool.key.name, "a warm pool held nothing; the job waits for its turn");
            }
        }
        // A job that waits in line takes a pool as soon as one that matches is there.
        tokio::select! {
            allocation = admission::admit(attempt, claim.clone()) => break allocation?,
            () = available => {}
        }
    };
    if keeps {
        let (work, owner) = (attempt.work.clone(), attempt.owner.to_owned());
        let written = app.database.write(move |session| {
            session.check_lease(&work, &owner)?;
            session.put_warm_pool(&WarmPool::in_use(work.key.clone(), matching))
        });
        written.await?;
    }
    Ok(allocation)
}

/// The pool that the job takes over, in the database.
async fn reuse(attempt: &Attempt<'_>, matching: &str, keeps: bool) -> store::Result<Option<WarmPool>> {
    let (work, owner) = (attempt.work.clone(), attempt.owner.to_owned());
    let (matching, now_ms) = (matching.to_owned(), attempt.app.clock.now_ms());
    let taken = attempt.app.database.write(move |session| {
        session.check_lease(&work, &owner)?;
        let Some(pool) = session.reuse_warm_pool(&work.key, &matching, now_ms)? else { return Ok(None) };
        let detail = json!({"status": pool.status, "reused_by": work.key.name});
        session.append_event(&pool.key, "WarmPool", &detail, now_ms)?;
        if keeps {
            session.put_warm_pool(&WarmPool::in_use(work.key.clone(), matching))?;
        }
        Ok(Some(pool))
    });
    taken.await
}

/// Keeps the job's part of the machine until its end is written, where it asks for that; else gives it back.
pub fn retain(attempt: &Attempt<'_>, allocation: Allocation) {
    if keep_alive_seconds(&attempt.request) > 0 {
        attempt.app.training.warm_pools().keep(&attempt.work.key, allocation, None);
    }
}

/// Whether a job that ended like this leaves a pool: as in the service, one that failed for a fault of the machine does not.
pub fn is_left(attempt: &Attempt<'_>, failure_reason: Option<&str>) -> bool {
    let of_the_job = |reason: &str| reason.starts_with("AlgorithmError") || reason.starts_with("ClientError");
    attempt.app.training.warm_pools().holds(&attempt.work.key) && failure_reason.is_none_or(of_the_job)
}

/// Writes what becomes of the pool of a job that has just ended, in the transaction that ends the job.
///
/// # Errors
/// When the database fails.
pub fn end(session: &Session<'_>, job: &Resource, is_left: bool, now_ms: i64) -> store::Result<()> {
    let Some(mut pool) = session.warm_pool(&job.key)? else { return Ok(()) };
    let seconds = job.spec["ResourceConfig"]["KeepAlivePeriodInSeconds"].as_i64().unwrap_or(0);
    if is_left && seconds > 0 {
        pool.keep(seconds, now_ms);
    } else {
        pool.terminate(now_ms);
    }
    session.append_event(&job.key, "WarmPool", &json!({"status": pool.status}), now_ms)?;
    session.put_warm_pool(&pool)
}

/// To be called once the end of a job is written, or found to be another's to write: the pool in memory follows.
///
/// # Errors
/// When the database fails.
pub async fn ended(app: &Arc<App>, key: &ResourceKey) -> store::Result<()> {
    app.training.warm_starts().forget_environment(key);
    // One that the job did not come to use.
    if let Some(prepared) = app.training.warm_starts().take(key) {
        warm_start::discard(app, prepared).await;
    }
    changed(app, key).await
}

/// To be called once the row of a pool is changed: the pool in memory follows.
///
/// # Errors
/// When the database fails.
pub async fn changed(app: &Arc<App>, key: &ResourceKey) -> store::Result<()> {
    if app.training.warm_pools().holds(key) { follow(app, key).await } else { Ok(()) }
}

/// Prepares the start of the next job of a pool, as long as that can be had.
pub async fn prepare(app: &Arc<App>, key: &ResourceKey, pattern: Pattern) {
    let Some(ends_at) = app.training.warm_pools().ends_at(key) else { return };
    warm_start::prepare(app, key, pattern, (ends_at - app.clock.now_ms()) / 1000).await;
    // Whoever took the pool meanwhile did so without.
    if !app.training.warm_pools().holds(key)
        && let Some(prepared) = app.training.warm_starts().take(key)
    {
        warm_start::discard(app, prepared).await;
    }
}

/// Gives back what is held of a pool, unless it can be had, else as soon as it ends.
async fn follow(app: &Arc<App>, key: &ResourceKey) -> store::Result<()> {
    let pools = app.training.warm_pools();
    let wanted = key.clone();
    let pool = app.database.read(move |session| session.warm_pool(&wanted)).await?;
    match pool.filter(WarmPool::is_available) {
        None => give_up(app, key).await,
        Some(pool) => {
            let was_followed = {
                let mut kept = pools.lock();
                kept.get_mut(key)
                    .is_some_and(|kept| std::mem::replace(&mut kept.ends_at, pool.ends_at).is_some())
            };
            if !was_followed {
                pools.available.notify_waiters();
                end_in_time(app, key);
            }
        }
    }
    Ok(())
}

async fn give_up(app: &App, key: &ResourceKey) {
    let allocation = app.training.warm_pools().take(key);
    // First, since it uses what is given back.
    if let Some(prepared) = app.training.warm_starts().take(key) {
        warm_start::discard(app, prepared).await;
    }
    drop(allocation);
}

/// Ends the pool when its time is up, however often that is put off.
fn end_in_time(app: &Arc<App>, key: &ResourceKey) {
    let (app, key) = (Arc::downgrade(app), key.clone());
    tokio::spawn(async move {
        loop {
            let left_ms = match app.upgrade() {
                Some(app) => match app.training.warm_pools().ends_at(&key) {
                    Some(ends_at) => ends_at - app.clock.now_ms(),
                    None => return,
                },
                None => return,
            };
            if left_ms > 0 {
                tokio::time::sleep(Duration::from_millis(left_ms as u64)).await;
                continue;
            }
            let Some(app) = app.upgrade() else { return };
            if let Err(error) = expire(&app).await {
                tracing::error!(%error, "a warm pool could not be ended; it is tried again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    });
}

/// Ends the pools whose time is up. Whoever shows or wants pools calls it first, so that none is seen after its end.
///
/// # Errors
/// When the database fails.
pub async fn expire(app: &Arc<App>) -> store::Result<()> {
    let (pools, now_ms) = (app.training.warm_pools(), app.clock.now_ms());
    if !pools.may_any_be_due(now_ms) {
        return Ok(());
    }
    let ended = app.database.write(move |session| {
        for pool in session.terminate_warm_pools(now_ms)? {
            session.append_event(&pool.key, "WarmPool", &json!({"status": pool.status}), now_ms)?;
        }
        Ok(())
    });
    ended.await?;
    for key in pools.due(now_ms) {
        follow(app, &key).await?;
    }
    Ok(())
}

/// Takes hold of what the pools of an earlier server kept; call it before any job is admitted.
///
/// # Errors
/// When the database fails.
pub async fn resume(app: &Arc<App>) -> store::Result<()> {
    warm_start::sweep(app).await;
    let now_ms = app.clock.now_ms();
    let found = app.database.write(move |session| {
        session.terminate_warm_pools(now_ms)?;
        let mut found = Vec::new();
        for mut pool in session.available_warm_pools()? {
            match session.find_resource(&pool.key)? {
                Some(job) => found.push((pool, job)),
                None => {
                    pool.terminate(now_ms);
                    session.put_warm_pool(&pool)?;
                }
            }
        }
        Ok(found)
    });
    for (pool, job) in found.await? {
        let record = TrainingRecord::read(&job.document)?;
        match admission::hosts(&job.spec, app.capacity.instance_types()) {
            Ok(hosts) => {
                let claim = Claim {
                    key: job.key.clone(),
                    hosts,
                    queue: record.queue,
                    priority: record.priority,
                    spot: false,
                    enqueued_at: job.created_at,
                };
                let allocation = app.capacity.enter(claim, record.grant);
                app.training.warm_pools().keep(&pool.key, allocation, pool.ends_at);
                end_in_time(app, &pool.key);
            }
            Err(why) => {
                tracing::warn!(pool = pool.key.name, why, "a warm pool is given up");
                let mut pool = pool;
                pool.terminate(now_ms);
                app.database.write(move |session| session.put_warm_pool(&pool)).await?;
            }
        }
    }
    Ok(())
}

/// Changes how long the pool of a job that has ended is kept, from now on; 0 ends it.
///
/// # Errors
/// [`store::Error::Invalid`] when the job has no pool that can be had.
pub fn update(session: &Session<'_>, job: &mut Resource, seconds: i64, now_ms: i64) -> store::Result<()> {
    let pool = session.warm_pool(&job.key)?;
    let status = pool.as_ref().map(|pool| pool.status.clone());
    let Some(mut pool) = pool.filter(WarmPool::is_available) else {
        let is = status.map_or_else(
            || "has no warm pool".to_owned(),
            |status| format!("has a warm pool in status {status}"),
        );
        return Err(store::Error::Invalid(format!(
            "ResourceConfig.KeepAlivePeriodInSeconds can be updated while the warm pool of the training job is Available; \
             the training job {:?} {is}.",
            job.key.name
        )));
    };
    if seconds > 0 {
        pool.keep(seconds, now_ms);
    } else {
        pool.terminate(now_ms);
    }
    job.spec["ResourceConfig"]["KeepAlivePeriodInSeconds"] = seconds.into();
    session.append_event(&job.key, "WarmPool", &json!({"status": pool.status}), now_ms)?;
    session.put_warm_pool(&pool)
}

/// The pool as Describe and List show it.
pub fn shown(pool: &WarmPool, now_ms: i64) -> Value {
    let mut shown = json!({"Status": pool.status});
    if pool.available_at.is_some() {
        shown["ResourceRetainedBillableTimeInSeconds"] = ((pool.kept_ms(now_ms) + 999) / 1000).into();
    }
    if let Some(name) = &pool.reused_by {
        shown["ReusedByJob"] = name.as_str().into();
    }
    shown
}

/// The pools of some training jobs of one account and region, for a list of them.
///
/// # Errors
/// When the database fails.
pub async fn of_jobs(app: &Arc<App>, keys: Vec<ResourceKey>) -> store::Result<Vec<Option<WarmPool>>> {
    debug_assert!(keys.iter().all(|key| key.kind == TRAINING_JOB));
    app.database.read(move |session| keys.iter().map(|key| session.warm_pool(key)).collect()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_belongs_to_the_machine_has_to_match() {
        let job = |change: &dyn Fn(&mut Value)| {
            let mut job = json!({
                "TrainingJobName": "a", "RoleArn": "arn:aws:iam::123456789012:role/R",
                "AlgorithmSpecification": {"TrainingImage": "image:1", "TrainingInputMode": "File"},
                "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "KeepAlivePeriodInSeconds": 60},
            });
            change(&mut job);
            matching(&job, &SessionTags::default())
        };
        let first = job(&|_| ());
        assert_eq!(first, job(&|job| job["TrainingJobName"] = json!("b")));
        assert_eq!(first, job(&|job| job["ResourceConfig"]["KeepAlivePeriodInSeconds"] = json!(0)));
        assert_eq!(first, job(&|job| job["EnableNetworkIsolation"] = json!(false)));
        assert_ne!(first, job(&|job| job["RoleArn"] = json!("arn:aws:iam::123456789012:role/Other")));
        assert_ne!(first, job(&|job| job["AlgorithmSpecification"]["TrainingImage"] = json!("image:2")));
        assert_ne!(first, job(&|job| job["ResourceConfig"]["InstanceType"] = json!("ml.m5.xlarge")));
        assert_ne!(first, job(&|job| job["ResourceConfig"]["InstanceCount"] = json!(2)));
        assert_ne!(first, job(&|job| job["EnableNetworkIsolation"] = json!(true)));
        let of_tenant = |name: &str| SessionTags {
            tags: [("tenant".to_owned(), name.to_owned())].into(),
            ..Default::default()
        };
        assert_ne!(matching(&json!({}), &of_tenant("a")), matching(&json!({}), &of_tenant("b")));
        assert_ne!(first, job(&|job| job["VpcConfig"] = json!({"Subnets": ["s"]})));
    }
}
