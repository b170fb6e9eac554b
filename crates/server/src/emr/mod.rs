//! EMR: clusters as names with a list of steps, each of which runs as a processing job on a local Spark.

mod clusters;
mod driver;
mod plan;
mod record;
pub mod spark_job;
mod steps;

use store::resources::ResourceKey;

use crate::{Cx, Registry};

use crate::problem::{Problem, Result};
pub use driver::{Clusters, start};
use record::Cluster;

/// Kind of a cluster in the store; its name is its id.
pub const CLUSTER: &str = "emr-cluster";

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    clusters::routes(registry);
    steps::routes(registry);
}

fn arn(key: &ResourceKey) -> String {
    format!("arn:aws:elasticmapreduce:{}:{}:cluster/{}", key.region, key.account, key.name)
}

/// An id as the service makes them: a prefix and thirteen letters and digits.
fn new_id(prefix: &str) -> String {
    const LETTERS: &[u8; 36] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let random = uuid::Uuid::new_v4().as_u128();
    let letters = (0..13u32).map(|at| LETTERS[(random / 36u128.pow(at) % 36) as usize]);
    format!("{prefix}{}", letters.map(char::from).collect::<String>())
}

/// A cluster of the caller's account and region.
async fn find(cx: &Cx, id: &str) -> Result<Cluster> {
    let key = ResourceKey::new(&*cx.caller.account, &*cx.caller.region, CLUSTER, id);
    let found = cx.state.database.read(move |session| session.find_resource(&key)).await?;
    let found = found.ok_or_else(|| invalid(format!("Cluster id '{id}' is not valid.")))?;
    Ok(Cluster::read(found)?)
}

/// What is named is not there, or does not allow it.
fn invalid(text: impl Into<String>) -> Problem {
    Problem::Code("InvalidRequestException", text.into())
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_look_like_those_of_the_service() {
        let (one, other) = (super::new_id("j-"), super::new_id("j-"));
        assert_ne!(one, other);
        assert!(one.len() == 15 && one[2..].bytes().all(|letter| letter.is_ascii_alphanumeric()), "{one}");
    }
}
