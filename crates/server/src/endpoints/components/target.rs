//! What answers a request: an endpoint's own models, or the inference component that the request names.

use std::sync::Arc;

use serving::{InvokeError, InvokeRequest, ModelAnswer};
use store::resources::ResourceKey;

use super::metrics;
use super::table::Place;
use crate::Error;
use crate::app::App;
use crate::sagemaker::kinds::INFERENCE_COMPONENT;

/// What answers a request.
#[derive(Debug, Clone)]
pub struct Target {
    /// The endpoint, or the component.
    pub key: ResourceKey,
    /// Where the component is; `None` for an endpoint.
    pub place: Option<Arc<Place>>,
}

/// Why nothing answers a request, in the service's words where it has some.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The endpoint is for components, and the request names none.
    #[error(
        "Inference Component Name header is required for endpoints to which you plan to deploy inference components. \
         Please include Inference Component Name header or consider using SageMaker models."
    )]
    Required,
    /// The request names a component of an endpoint that has models.
    #[error(
        "Inference Component Name header is not allowed for endpoints to which you dont plan to deploy inference components. \
         Please remove the Inference Component Name header and try again."
    )]
    NotAllowed,
    /// The endpoint has no component of that name.
    #[error("Inference Component {component} of endpoint {} of account {} not found.", endpoint.name, endpoint.account)]
    NotFound {
        /// The name that was asked for.
        component: String,
        /// The endpoint.
        endpoint: ResourceKey,
    },
    /// The request names another variant than the one that the component is on.
    #[error(
        "Inference Component {component} is not on variant {variant} of endpoint {} of account {}.",
        endpoint.name, endpoint.account
    )]
    NotOnVariant {
        /// The component.
        component: String,
        /// The variant that was asked for.
        variant: String,
        /// The endpoint.
        endpoint: ResourceKey,
    },
    /// The component has no copy.
    #[error(
        "Inference Component has no capacity to process this request. ApplicationAutoScaling may be in-progress (if configured) or \
         try to increase the capacity by invoking UpdateInferenceComponentRuntimeConfig API."
    )]
    NoCapacity,
    /// The component has copies, and none of them has been in service yet.
    #[error(
        "Inference Component {component} of endpoint {endpoint} is not in service; wait until its status is InService."
    )]
    NotInService {
        /// The component.
        component: String,
        /// Its endpoint.
        endpoint: String,
    },
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Error {
        Error::Validation(problem.to_string())
    }
}

impl Target {
    /// What a request to an endpoint is for.
    ///
    /// # Errors
    /// When it names a component where it must not, none where it must, or one that is not there.
    pub fn of(app: &App, endpoint: ResourceKey, component: Option<&str>) -> Result<Target, Problem> {
        let components = &app.endpoints.components;
        let is_host = components.is_host(&endpoint);
        let Some(name) = component else {
            return if is_host { Err(Problem::Required) } else { Ok(Target { key: endpoint, place: None }) };
        };
        if !is_host {
            // An endpoint that is not there is refused as it always is.
            let is_known = app.endpoints.watch(&endpoint).is_some();
            return if is_known {
                Err(Problem::NotAllowed)
            } else {
                Ok(Target { key: endpoint, place: None })
            };
        }
        let key = component_key(&endpoint, name);
        match components.place(&key).filter(|place| place.endpoint == endpoint) {
            Some(place) => Ok(Target { key, place: Some(place) }),
            None => Err(Problem::NotFound { component: name.to_owned(), endpoint }),
        }
    }

    /// Whether a request finds a copy, or brings one up.
    pub fn has_capacity(&self, app: &App) -> bool {
        self.place.as_ref().is_none_or(|place| {
            let is_woken = place.wanted == 0 && app.endpoints.components.is_woken(&self.key);
            !place.has_failed && (place.placed > 0 || is_woken)
        })
    }

    /// Lets a request in, as the data plane is to have it.
    ///
    /// # Errors
    /// When it names another variant than the component's, or the component has no capacity.
    pub fn admit(&self, app: &App, request: &mut InvokeRequest) -> Result<(), Problem> {
        let Some(place) = &self.place else { return Ok(()) };
        if let Some(variant) = request.target_variant.take().filter(|variant| *variant != place.variant) {
            return Err(Problem::NotOnVariant {
                component: self.key.name.clone(),
                variant,
                endpoint: place.endpoint.clone(),
            });
        }
        if !self.has_capacity(app) {
            metrics::no_capacity(app, &self.key);
            return Err(Problem::NoCapacity);
        }
        Ok(())
    }

    /// Where the logs of what answers are, and whose they are.
    pub fn logs(&self) -> (&'static str, &str) {
        match self.place {
            Some(_) => ("/aws/sagemaker/InferenceComponents", &self.key.name),
            None => ("/aws/sagemaker/Endpoints", &self.key.name),
        }
    }

    /// Names the variant in an answer; to the data plane it is the component.
    pub fn name_variant(&self, answer: &mut ModelAnswer) {
        if let Some(place) = &self.place {
            answer.invoked_variant.clone_from(&place.variant);
        }
    }

    /// What a caller is told of a component that is not in service, or whose copies have no room; `None` for all else.
    pub fn refusal(&self, app: &App, error: &InvokeError) -> Option<Problem> {
        let place = self.place.as_ref()?;
        let has_no_room = || {
            let place = app.endpoints.components.place(&self.key);
            place.is_some_and(|place| place.placed == 0)
        };
        match error {
            InvokeError::Overloaded { .. } if has_no_room() => {
                metrics::no_capacity(app, &self.key);
                Some(Problem::NoCapacity)
            }
            InvokeError::NotInService { .. } | InvokeError::NoSuchEndpoint { .. } => {
                if !self.has_capacity(app) {
                    return Some(Problem::NoCapacity);
                }
                let (component, endpoint) = (self.key.name.clone(), place.endpoint.name.clone());
                Some(Problem::NotInService { component, endpoint })
            }
            _ => None,
        }
    }
}

/// The key of a component in the account and region of its endpoint.
pub fn component_key(endpoint: &ResourceKey, name: &str) -> ResourceKey {
    ResourceKey { kind: INFERENCE_COMPONENT.into(), name: name.to_owned(), ..endpoint.clone() }
}
