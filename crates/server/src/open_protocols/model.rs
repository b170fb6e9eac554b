//! What a request means by the name of a model: an endpoint, or an inference component of one.

use serving::{InvokeError, InvokeRequest};
use store::resources::ResourceKey;

use super::asked::Asked;
use super::refusal::{Reason, Refusal};
use crate::endpoints::components::{Problem, Target, component_key};

/// The header, and in gRPC the metadata, by which a request names an inference component.
pub const COMPONENT_HEADER: &str = "x-amzn-sagemaker-inference-component";

/// Most components that a text names.
const MOST_NAMED: usize = 10;

/// What answers a request.
#[derive(Debug, Clone)]
pub struct Model {
    target: Target,
    /// Whether names of models and versions are those of its container: below an endpoint's own address, where the path does not name a
    /// component.
    pub is_scoped: bool,
}

impl Asked {
    /// What the caller may invoke under a name: below the address of the endpoint `scope`, or an endpoint or inference component anywhere. Of an
    /// endpoint with components it is the one that the header names, the one that bears the name, or the only one.
    ///
    /// # Errors
    /// When the policies say no, or it is not said which of several components is meant.
    pub async fn model(&self, scope: Option<&str>, name: &str) -> Result<Model, Refusal> {
        let endpoints = &self.app.endpoints;
        let mut endpoint = self.endpoint(scope.unwrap_or(name));
        let in_path = endpoints.components.place(&component_key(&endpoint, name));
        let in_header = self.component.as_deref();
        // Of an endpoint and a component that have one name, the endpoint is meant.
        if let (None, Some(place)) = (scope, &in_path)
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
        let in_path = in_path.filter(|place| place.endpoint == endpoint).map(|_| name);
        let is_named_by_path = in_header.is_none() && in_path.is_some();
        let target = match in_header.or(in_path) {
            None if endpoints.components.is_host(&endpoint) => {
                let only = self.only_component(&endpoint)?;
                Target::of(&self.app, endpoint, Some(&only.name))
            }
            component => Target::of(&self.app, endpoint, component),
        };
        Ok(Model { target: target?, is_scoped: scope.is_some() && !is_named_by_path })
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
    /// When it is an inference component without a copy, or one that is not on the variant that is asked for as `version`.
    pub fn invocation(&self, model: &Model, version: Option<&str>) -> Result<InvokeRequest, Refusal> {
        let mut request = InvokeRequest {
            target_variant: version.map(str::to_owned),
            request_id: Some(self.request_id.clone()),
            target_model: self.target_model.clone(),
            ..InvokeRequest::default()
        };
        model.target.admit(&self.app, &mut request)?;
        Ok(request)
    }

    /// What the caller is told when a model did not answer.
    pub fn refusal(&self, model: &Model, error: &InvokeError) -> Refusal {
        match model.target.refusal(&self.app, error) {
            Some(problem) => problem.into(),
            None => Refusal::of(model.name(), error),
        }
    }

    /// Whether a model, or one version of it, answers.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn ready(&self, model: &Model, version: Option<&str>) -> Result<bool, Refusal> {
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

    /// The name of what answers.
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

    /// Whether this is a name of it, below the address of the endpoint `scope`.
    pub fn is_called(&self, scope: &str, name: &str) -> bool {
        [scope, self.name()].iter().any(|own| own.eq_ignore_ascii_case(name))
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
