//! Lists the objects of a job once: what comes later is not transformed, and a restart goes on with the same list.

use std::path::Path;

use super::ledger::{ListWriter, Source};
use crate::app::App;
use crate::training::Listed;

/// Writes the list; answers how many objects and bytes there are.
///
/// # Errors
/// A text for the failure card.
pub async fn write(
    app: &App,
    account: &str,
    data_type: &str,
    uri: &str,
    folder: &Path,
) -> Result<(u64, u64), String> {
    let on_disk =
        |error: std::io::Error| format!("InternalServerError: the list of objects cannot be kept: {error}");
    let mut writer = ListWriter::create(folder).map_err(on_disk)?;
    let listed = crate::training::list_objects(&app.objects, account, data_type, uri, |page| {
        for Listed { bucket, object, path } in page {
            let number = writer.count();
            let path = path.display().to_string();
            let source =
                Source { number, bucket, key: object.key, path, size: object.size, etag: object.etag };
            writer.push(&source).map_err(on_disk)?;
        }
        Ok(())
    });
    listed.await?;
    tokio::task::spawn_blocking(|| writer.finish()).await.map_err(|error| error.to_string())?.map_err(on_disk)
}
