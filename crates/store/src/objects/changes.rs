//! Tells who wants to know what happens to objects, in the transaction in which it happens.

use std::sync::Arc;

use super::{Bucket, Object, ObjectStore};
use crate::database::Session;
use crate::error::Result;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was written, in one piece.
    Put,
    /// It was copied from another one.
    Copied,
    /// It was joined from the parts of an upload.
    Completed,
    /// It was removed because somebody asked for it.
    Deleted,
    /// It was removed by a rule of its bucket.
    Expired,
}

/// Is told of each change and when it happened (in milliseconds since 1970), before the transaction is committed; its error
/// undoes the change.
pub type Observer = Arc<dyn Fn(&Session<'_>, &Bucket, &Object, Change, i64) -> Result<()> + Send + Sync>;

impl ObjectStore {
    /// Tells `observer` from now on. There is one; later ones are not told.
    pub fn observe(&self, observer: Observer) {
        // The first one stays, as documented.
        let _ = self.observer.set(observer);
    }

    pub(super) fn tell(
        &self,
        session: &Session<'_>,
        bucket: &Bucket,
        object: &Object,
        change: Change,
    ) -> Result<()> {
        let now_ms = self.clock.now_ms();
        self.observer.get().map_or(Ok(()), |observer| observer(session, bucket, object, change, now_ms))
    }
}
