//! What a request means by the name of a model: an endpoint, an inference component of one, or one of an endpoint's many models.

use serving::{FetchError, InvokeError, InvokeRequest};
use store::resources::{Resource, ResourceKey};

use super::asked::Asked;
use super::refusal::{Reason, Refusal};
use crate::endpoints::components::{Problem, Target, component_key};
use crate::endpoints::{EndpointRecord, find_archive};

/// The header, and in gRPC the metadata, by which a request names an inference component.
pub const COMPONENT_HEADER: &str = "x-amzn-sagemaker-inference-component";

/// Most components that a text names.
const MOST_NAMED: usize = 10;

/// What archives of models are called, which clients need not say.
const ARCHIVE: &str = ".tar.gz";

/// Ends of names that say already what kind of archive they are.
const ARCHIVES: [&str; 2] = [ARCHIVE, ".tgz"];

/// What answers a request.
#[derive(Debug, Clone)]
pub struct Model {
    target: Target,
    /// The one that is meant, where the endpoint has many.
    one_of_many: Option<OneOfMany>,
    /// Whether names of models and versions are those of its container: below an endpoint's own address, where the path does not name a
    /// component.
    pub is_scoped: bool,
}

/// One of the many models of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OneOfMany {
    /// What the client calls it.
    called: String,
    /// Its archive, relative to the endpoint's prefix.
    archive: String,
}

/// The endpoint that a name means, or the component that has it alone; and what it says of a model below the endpoint: below the endpoint's own
/// address (`scope`) all of it, elsewhere what follows the first slash.
fn parts<'a>(scope: Option<&'a str>, name: &'a str) -> (&'a str, Option<&'a str>) {
    match (scope, name.split_once('/')) {
        (Some(scope), _) => (scope, Some(name)),
        (None, Some((endpoint, below))) => (endpoint, Some(below)),
        (None, None) => (name, None),
    }
}

fn archive(name: &str) -> String {
    let is_whole = ARCHIVES.iter().any(|end| name.ends_with(end));
    format!("{name}{}", if is_whole { "" } else { ARCHIVE })
}

impl Asked {
    /// What the caller may invoke under a name: `ENDPOINT/MODEL`, below the address of the endpoint `scope` just `MODEL`, or the name of an
    /// endpoint or inference component. Of an endpoint with components it is the one that the header names, the one that bears the name, or
    /// the only one; of one with many models, the one whose archive it is.
    ///
    /// # Errors
    /// When the policies say no, the endpoint has no such model, or it is not said which of several components is meant.
    pub async fn model(&self, scope: Option<&str>, name: &str) -> Result<Model, Refusal> {
        let (outer, below) = parts(scope, name);
        let own = below.unwrap_or(name);
        let endpoints = &self.app.endpoints;
        let mut endpoint = self.endpoint(outer);
        let in_path = endpoints.components.place(&component_key(&endpoint, own));
        let in_header = self.component.as_deref();
        // Of an endpoint and a component that have one name, the endpoint is meant.
        if let (None, Some(place)) = (below, &in_path)
            && endpoints.watch(&endpoint).is_none()
        {
            if let Some(other) = in_header.filter(|other| *other != name) {
                return Err(Refusal::invalid(format!(
                    "The request names two inference components: {name} as its model, and {other} in the header {COMPONENT_HEADER}."
                )));
            }
            endpoint = place.endpoint.clone();
        }
        self.may_invoke(&endpoint.name).await?;
        let in_path = in_path.filter(|place| place.endpoint == endpoint).map(|_| own);
        let is_named_by_path = in_header.is_none() && in_path.is_some();
        let target = match in_header.or(in_path) {
            None if endpoints.components.is_host(&endpoint) => {
                let only = self.only_component(&endpoint)?;
                Target::of(&self.app, endpoint, Some(&only.name))
            }
            component => Target::of(&self.app, endpoint, component),
        };
        let is_scoped = scope.is_some() && !is_named_by_path;
        let model = Model { target: target?, one_of_many: None, is_scoped };
        match below {
            Some(below) => self.below(model, name, below).await,
            None => Ok(model),
        }
    }

    /// What is meant by `below`, a name of a model below an endpoint that the client calls `name` as a whole.
    async fn below(&self, model: Model, name: &str, below: &str) -> Result<Model, Refusal> {
        let has_many =
            !model.is_component() && self.app.open_protocols.hosts.of(self, &model).await?.has_many;
        if has_many {
            let one = OneOfMany { called: name.to_owned(), archive: archive(below) };
            return Ok(Model { one_of_many: Some(one), ..model });
        }
        let is_component = model.is_component() && below.eq_ignore_ascii_case(model.name());
        // Below an endpoint's own address its container may have names of its own.
        if is_component || model.is_scoped { Ok(model) } else { Err(model.no_other(name)) }
    }

    fn only_component(&self, endpoint: &ResourceKey) -> Result<ResourceKey, Refusal> {
        let mut own = self.app.endpoints.components.of(endpoint);
        match (own.pop(), own.len()) {
            (Some(only), 0) => Ok(only),
            (None, _) => {
                let text =
                    format!("The endpoint {} has no inference component that could answer.", endpoint.name);
                Err(Refusal::new(Reason::Unavailable, text))
            }
            (Some(last), others) => {
                own.push(last);
                let named: Vec<&str> = own.iter().take(MOST_NAMED).map(|key| key.name.as_str()).collect();
                let more = if others < MOST_NAMED { "" } else { ", …" };
                Err(Refusal::invalid(format!(
                    "The endpoint {} has several inference components: {}{more}. Name one as the model, or in the header {COMPONENT_HEADER}.",
                    endpoint.name,
                    named.join(", ")
                )))
            }
        }
    }

    /// A request to a model, with what all of them carry.
    ///
    /// # Errors
    /// When it is an inference component without a copy, or one that is not on the variant that is asked for as `version`, or an endpoint
    /// that answers later.
    pub fn invocation(&self, model: &Model, version: Option<&str>) -> Result<InvokeRequest, Refusal> {
        if self.app.endpoints.queues.check_direct(model.key()).is_err() {
            return Err(Refusal::invalid(format!(
                "The endpoint {} is asynchronous: it answers InvokeEndpointAsync alone.",
                model.name()
            )));
        }
        let mut request = InvokeRequest {
            target_variant: version.map(str::to_owned),
            request_id: Some(self.request_id.clone()),
            target_model: model.one_of_many.as_ref().map(|one| one.archive.clone()),
            ..InvokeRequest::default()
        };
        model.target.admit(&self.app, &mut request)?;
        Ok(request)
    }

    /// What the caller is told when a model did not answer.
    pub fn refusal(&self, model: &Model, error: &InvokeError) -> Refusal {
        match model.target.refusal(&self.app, error) {
            Some(problem) => problem.into(),
            None => Refusal::of(model.called(model.name()), error),
        }
    }

    /// What is kept of the endpoint or component that answers, once the archive that the name means was looked for.
    ///
    /// # Errors
    /// When there is none of that name, or it cannot be looked for.
    pub async fn found(&self, model: &Model) -> Result<Resource, Refusal> {
        let resource = self.resource(model.key()).await?;
        let Some(one) = &model.one_of_many else { return Ok(resource) };
        let record = EndpointRecord::read(&resource.document).map_err(|error| {
            tracing::error!(%error, endpoint = model.name(), "the record of an endpoint cannot be read");
            Refusal::new(Reason::Internal, "The endpoint's record cannot be read; the server's log says why.")
        })?;
        let found = find_archive(&self.app, &self.caller.account, &record.variants, &one.archive).await;
        found.map_err(|problem| {
            let reason = match problem {
                FetchError::Missing(_) => Reason::NotFound,
                FetchError::Unusable(_) => Reason::Unavailable,
            };
            Refusal::new(reason, problem.to_string())
        })?;
        Ok(resource)
    }

    /// Whether a model, or one version of it, answers.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn ready(&self, model: &Model, version: Option<&str>) -> Result<bool, Refusal> {
        if model.one_of_many.is_some() {
            self.found(model).await?;
        }
        let (endpoints, key) = (&self.app.endpoints, model.key());
        if let Some(place) = &model.target.place {
            if let Some(version) = version.filter(|version| *version != place.variant) {
                return Err(Refusal::no_version(model.name(), version));
            }
            return Ok(model.target.has_capacity(&self.app) && endpoints.is_ready(key, None) == Some(true));
        }
        match (endpoints.is_ready(key, version), version) {
            (Some(is_ready), _) => Ok(is_ready),
            (None, Some(version)) if endpoints.watch(key).is_some() => {
                Err(Refusal::no_version(model.name(), version))
            }
            (None, _) => Err(Refusal::no_model(model.name())),
        }
    }
}

impl Model {
    /// The key of what answers.
    pub fn key(&self) -> &ResourceKey {
        &self.target.key
    }

    /// The name of the endpoint or component that answers.
    pub fn name(&self) -> &str {
        &self.target.key.name
    }

    /// Whether it is an inference component.
    pub fn is_component(&self) -> bool {
        self.target.place.is_some()
    }

    /// The variant that an inference component is on.
    pub fn variant(&self) -> Option<&str> {
        self.target.place.as_ref().map(|place| place.variant.as_str())
    }

    /// What it is called where its endpoint or component is called `own`: one of many models is called what the client calls it.
    pub fn called<'a>(&'a self, own: &'a str) -> &'a str {
        self.one_of_many.as_ref().map_or(own, |one| &one.called)
    }

    /// Refuses names of others below the address of the endpoint `scope`, where no container has them.
    ///
    /// # Errors
    /// When it is one.
    pub fn check_own_name(&self, scope: Option<&str>, name: &str) -> Result<(), Refusal> {
        let Some(scope) = scope.filter(|_| self.is_scoped && self.one_of_many.is_none()) else {
            return Ok(());
        };
        let is_own = [scope, self.name()].iter().any(|own| own.eq_ignore_ascii_case(name));
        if is_own { Ok(()) } else { Err(self.no_other(name)) }
    }

    fn no_other(&self, name: &str) -> Refusal {
        let text = format!("There is no model {name} here; the endpoint's model is called {}.", self.name());
        Refusal::new(Reason::NotFound, text)
    }

    /// The version that answered, of an answer that the data plane gave.
    pub fn version(&self, answered: String) -> String {
        self.variant().map_or(answered, str::to_owned)
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Refusal {
        let reason = match &problem {
            Problem::Required | Problem::NotAllowed => Reason::Invalid,
            Problem::NotFound { .. } => Reason::NotFound,
            Problem::NotOnVariant { component, variant, .. } => {
                return Refusal::no_version(component, variant);
            }
            Problem::NoCapacity | Problem::NotInService { .. } => Reason::Unavailable,
        };
        Refusal::new(reason, problem.to_string())
    }
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
