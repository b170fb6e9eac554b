//! What a client calls a model: an endpoint, or one of the many models of an endpoint.

use serving::FetchError;

use super::asked::Asked;
use super::refusal::{Reason, Refusal};
use crate::endpoints::find_archive;

/// What archives are called, which clients need not say.
const ARCHIVE: &str = ".tar.gz";

/// Names that say already what kind of archive they are.
const ARCHIVES: [&str; 2] = [ARCHIVE, ".tgz"];

/// One of the many models of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOfMany {
    /// What the client calls it.
    pub called: String,
    /// Its archive, relative to the endpoint's prefix.
    pub target: String,
}

/// The endpoint, and what the name says beyond that: below an endpoint's own address (`scope`) all of it, elsewhere what follows the
/// first slash.
fn parts<'a>(scope: Option<&'a str>, model: &'a str) -> (&'a str, Option<&'a str>) {
    match (scope, model.split_once('/')) {
        (Some(scope), _) => (scope, Some(model)),
        (None, Some((endpoint, target))) => (endpoint, Some(target)),
        (None, None) => (model, None),
    }
}

/// The request with the one of an endpoint's many models that it means, if the endpoint has many; and the endpoint, which the caller
/// may invoke.
///
/// # Errors
/// When the caller may not, there is no such endpoint, or it has one model and the name is of one of many.
pub async fn meant<'a>(
    asked: Asked,
    scope: Option<&'a str>,
    model: &'a str,
) -> Result<(Asked, &'a str), Refusal> {
    let (endpoint, target) = parts(scope, model);
    asked.may_invoke(endpoint).await?;
    let Some(target) = target else { return Ok((asked, endpoint)) };
    if asked.app.open_protocols.hosts.of(&asked, endpoint).await?.has_many {
        let one = OneOfMany { called: model.to_owned(), target: archive(target) };
        return Ok((Asked { one_of_many: Some(one), ..asked }, endpoint));
    }
    // Below an endpoint's own address its container may have names of its own.
    if scope.is_some() { Ok((asked, endpoint)) } else { Err(no_other(model, endpoint)) }
}

fn archive(target: &str) -> String {
    let is_whole = ARCHIVES.iter().any(|ending| target.ends_with(ending));
    format!("{target}{}", if is_whole { "" } else { ARCHIVE })
}

impl Asked {
    /// Refuses names of others below an endpoint's own address, where no container has them.
    ///
    /// # Errors
    /// When it is one.
    pub fn check_own_name(&self, scope: Option<&str>, model: &str) -> Result<(), Refusal> {
        match scope {
            Some(scope) if self.one_of_many.is_none() && !scope.eq_ignore_ascii_case(model) => {
                Err(no_other(model, scope))
            }
            _ => Ok(()),
        }
    }

    /// What the client calls the model, which is an endpoint's unless that has many.
    pub fn called<'a>(&'a self, endpoint: &'a str) -> &'a str {
        self.one_of_many.as_ref().map_or(endpoint, |one| &one.called)
    }

    /// Looks for the archive of the model that is meant, where an endpoint has many.
    ///
    /// # Errors
    /// When there is none, or it cannot be looked for.
    pub async fn check_archive(&self, endpoint: &str) -> Result<(), Refusal> {
        let Some(one) = &self.one_of_many else { return Ok(()) };
        let (_, record) = self.deployed(endpoint).await?;
        find_archive(&self.app, &self.caller.account, &record.variants, &one.target).await.map_err(
            |problem| {
                let reason = match problem {
                    FetchError::Missing(_) => Reason::NotFound,
                    FetchError::Unusable(_) => Reason::Unavailable,
                };
                Refusal::new(reason, problem.to_string())
            },
        )
    }
}

fn no_other(model: &str, endpoint: &str) -> Refusal {
    let text = format!("There is no model {model} here; the endpoint's model is called {endpoint}.");
    Refusal::new(Reason::NotFound, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_endpoint_and_archive() {
        assert_eq!(parts(None, "one"), ("one", None));
        assert_eq!(parts(None, "many/berlin/rents"), ("many", Some("berlin/rents")));
        assert_eq!(parts(Some("many"), "berlin/rents"), ("many", Some("berlin/rents")));
        for (called, target) in [
            ("a", "a.tar.gz"),
            ("a.tar.gz", "a.tar.gz"),
            ("b/a.tgz", "b/a.tgz"),
            ("rents-1.2", "rents-1.2.tar.gz"),
        ] {
            assert_eq!(archive(called), target);
        }
    }
}
