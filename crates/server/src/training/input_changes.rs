//! Notices that something in S3 has changed that a waiting job was prepared from.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::attempt::Attempt;
use super::bucket_and_key;

/// The places that are followed.
#[derive(Default)]
pub struct InputChanges {
    followed: Mutex<Vec<Weak<Inputs>>>,
}

/// Where a job reads, and whether anything there has changed since it is followed.
#[derive(Debug)]
pub struct Inputs {
    places: Vec<Place>,
    has_changed: AtomicBool,
}

/// All objects whose key begins so.
#[derive(Debug)]
struct Place {
    bucket: String,
    prefix: String,
}

impl InputChanges {
    /// Follows `inputs` for as long as they live. To be called in a transaction: what was told before it is committed with it,
    /// and found by whoever reads afterwards.
    pub fn follow(&self, inputs: &Arc<Inputs>) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.retain(|one| one.strong_count() > 0);
        followed.push(Arc::downgrade(inputs));
    }

    /// To be called of each change, before it is committed.
    pub fn note(&self, bucket: &str, key: &str) {
        let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        for inputs in followed.iter().filter_map(Weak::upgrade) {
            if inputs.places.iter().any(|place| place.bucket == bucket && key.starts_with(&place.prefix)) {
                inputs.has_changed.store(true, Ordering::Release);
            }
        }
    }
}

impl Inputs {
    /// Where the job reads while it is prepared; `None` where that cannot be followed: manifests name objects anywhere, and
    /// a folder of the machine or another store changes unseen.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn of(attempt: &Attempt<'_>) -> store::Result<Option<Arc<Inputs>>> {
        let Some(places) = places(attempt) else { return Ok(None) };
        for place in &places {
            match attempt.app.objects.bucket(&attempt.work.key.account, &place.bucket).await {
                Ok(bucket) if bucket.folder.is_none() && bucket.remote.is_none() => {}
                // What is missing is told by the preparation at the job's turn.
                Ok(_) | Err(store::Error::Missing { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(Arc::new(Inputs { places, has_changed: AtomicBool::new(false) })))
    }

    /// Whether anything has changed, or is about to.
    pub fn have_changed(&self) -> bool {
        self.has_changed.load(Ordering::Acquire)
    }
}

fn places(attempt: &Attempt<'_>) -> Option<Vec<Place>> {
    let request = &attempt.request;
    let mut uris = Vec::new();
    for input in
        attempt.kind.processing().and_then(|request| request.processing_inputs.as_ref()).into_iter().flatten()
    {
        let source = input.s3_input.as_ref().filter(|source| source.s3_data_type.as_str() == "S3Prefix")?;
        uris.push(source.s3_uri.clone());
    }
    for channel in request.input_data_config.iter().flatten() {
        let source = channel.data_source.s3_data_source.as_ref()?;
        if source.s3_data_type.as_str() != "S3Prefix" {
            return None;
        }
        uris.push(source.s3_uri.clone());
    }
    let parameters = request.hyper_parameters.as_ref();
    let source = parameters.and_then(|parameters| parameters.get("sagemaker_submit_directory"));
    uris.extend(source.map(|uri| uri.trim_matches('"').to_owned()).filter(|uri| uri.starts_with("s3://")));
    uris.extend(request.checkpoint_config.as_ref().map(|config| config.s3_uri.clone()));
    let place = |uri: &String| {
        let (bucket, prefix) = bucket_and_key(uri)?;
        Some(Place { bucket: bucket.to_owned(), prefix: prefix.trim_end_matches('/').to_owned() })
    };
    uris.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_below_a_place_count_and_only_while_it_is_followed() {
        let changes = InputChanges::default();
        let inputs = |prefix: &str| {
            let places = vec![Place { bucket: "b".into(), prefix: prefix.into() }];
            Arc::new(Inputs { places, has_changed: AtomicBool::new(false) })
        };
        let (data, gone) = (inputs("data"), inputs(""));
        changes.note("b", "data/early");
        changes.follow(&data);
        changes.follow(&gone);
        drop(gone);
        changes.note("other", "data/x");
        changes.note("b", "elsewhere/data");
        assert!(!data.have_changed());
        changes.note("b", "data/x");
        assert!(data.have_changed());
        changes.follow(&inputs("x"));
        assert_eq!(changes.followed.lock().unwrap().len(), 2, "those that nobody follows are forgotten");
    }
}
