//! Which replica gets the requests for a model, where each of several would load it for itself.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::shelf::Shelf;

/// What a replica may have to do beyond twice the mean before requests for its models go elsewhere.
const SLACK: usize = 4;

/// The replica with a free connection to which requests for the model go: always the same of those that there are, as long as it has not far more
/// to do than the others. A model with so many requests is loaded by another one, too.
pub(crate) fn choose<'a>(shelves: &'a [Arc<Shelf>], model: &str) -> Option<&'a Arc<Shelf>> {
    let free = || shelves.iter().filter(|shelf| shelf.count() > 0);
    let busy: usize = free().map(|shelf| shelf.link.outstanding()).sum();
    let bound = 2 * busy / free().count().max(1) + SLACK;
    let fits = free().filter(|shelf| shelf.link.outstanding() <= bound);
    fits.max_by_key(|shelf| weight(&shelf.link.id, model))
}

fn weight(replica: &str, model: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (replica, model).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_keeps_its_replica_when_others_come_and_go() {
        let replicas: Vec<String> = (0..4).map(|number| format!("replica-{number}")).collect();
        let of = |replicas: &[String], model: &str| {
            replicas.iter().max_by_key(|replica| weight(replica, model)).cloned()
        };
        let mut counts = std::collections::BTreeMap::new();
        for number in 0..1000 {
            let model = format!("{number}.tar.gz");
            let all = of(&replicas, &model);
            *counts.entry(all.clone()).or_insert(0) += 1;
            if all.as_ref() != replicas.last() {
                assert_eq!(of(&replicas[..3], &model), all);
            }
        }
        assert!(counts.len() == 4 && counts.values().all(|count| (150..350).contains(count)), "{counts:?}");
    }
}
