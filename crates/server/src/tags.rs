//! Tags as all services have them: pairs under an ARN, with keys that nobody may use.

use crate::app::App;
use crate::{Error, Result};

/// The services' words for a tag whose key begins with `aws:`.
pub const RESERVED: &str = "aws: prefixed tag key names are not allowed for external use.";

/// Whether a key is kept for the services themselves.
pub fn is_reserved(key: &str) -> bool {
    key.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:"))
}

/// Refuses reserved keys.
///
/// # Errors
/// [`Error::Validation`] in the services' words.
pub fn check(tags: &[(String, String)]) -> Result<()> {
    match tags.iter().any(|(key, _)| is_reserved(key)) {
        true => Err(Error::Validation(RESERVED.into())),
        false => Ok(()),
    }
}

/// Adds tags, or gives those that are there other values.
///
/// # Errors
/// For a reserved key; [`store::Error::Invalid`] as its text for more tags than a resource may have; when the database fails.
pub async fn put(app: &App, arn: String, tags: Vec<(String, String)>) -> Result<()> {
    check(&tags)?;
    Ok(app.database.write(move |session| session.put_tags(&arn, &tags)).await?)
}

/// Takes the tags with these keys away.
///
/// # Errors
/// When the database fails.
pub async fn delete(app: &App, arn: String, keys: Vec<String>) -> Result<()> {
    Ok(app.database.write(move |session| session.delete_tags(&arn, &keys)).await?)
}

/// The tags under an ARN, in the order of their keys.
///
/// # Errors
/// When the database fails.
pub fn of(app: &App, arn: &str) -> Result<Vec<(String, String)>> {
    Ok(app.database.look(|session| session.tags(arn))?)
}
