//! Invocations of inference components: which one a request names, and what is said when it cannot have an answer.

use std::sync::Arc;

use serving::{InvokeError, InvokeRequest, ModelAnswer};
use store::resources::ResourceKey;

use super::kinds::{ENDPOINT, INFERENCE_COMPONENT};
use super::record_key;
use crate::endpoints::components::{Place, metrics};
use crate::{Cx, Error, Result};

/// The service's words for a request to an endpoint of components that names none.
const REQUIRED: &str = "Inference Component Name header is required for endpoints to which you plan to deploy inference components. \
     Please include Inference Component Name header or consider using SageMaker models.";

/// The service's words for a request that names a component of an endpoint that has models.
const NOT_ALLOWED: &str = "Inference Component Name header is not allowed for endpoints to which you dont plan to deploy inference components. \
     Please remove the Inference Component Name header and try again.";

/// The service's words for a request to a component that has no copy.
const NO_CAPACITY: &str = "Inference Component has no capacity to process this request. ApplicationAutoScaling may be in-progress (if \
     configured) or try to increase the capacity by invoking UpdateInferenceComponentRuntimeConfig API.";

/// What answers a request.
pub struct Target {
    /// The endpoint, or the component.
    pub key: ResourceKey,
    place: Option<Arc<Place>>,
}

impl Target {
    /// What a request to an endpoint is for.
    ///
    /// # Errors
    /// [`Error::Validation`] in the service's words.
    pub fn of(
        cx: &Cx,
        endpoint: &str,
        component: Option<&str>,
        request: &mut InvokeRequest,
    ) -> Result<Target> {
        let (components, key) = (&cx.state.endpoints.components, record_key(cx, ENDPOINT, endpoint));
        let is_host = components.is_host(&key);
        let Some(name) = component else {
            return if is_host { invalid(REQUIRED) } else { Ok(Target { key, place: None }) };
        };
        if !is_host {
            // An endpoint that is not there is refused as it always is.
            let is_known = cx.state.endpoints.watch(&key).is_some();
            return if is_known { invalid(NOT_ALLOWED) } else { Ok(Target { key, place: None }) };
        }
        let own = record_key(cx, INFERENCE_COMPONENT, name);
        let account = &cx.caller.account;
        let Some(place) = components.place(&own).filter(|place| place.endpoint == key) else {
            return invalid(&format!(
                "Inference Component {name} of endpoint {endpoint} of account {account} not found."
            ));
        };
        if let Some(variant) = request.target_variant.take().filter(|variant| *variant != place.variant) {
            return invalid(&format!(
                "Inference Component {name} is not on variant {variant} of endpoint {endpoint} of account {account}."
            ));
        }
        let is_empty = place.placed == 0 && (place.wanted > 0 || !components.is_woken(&own));
        if place.has_failed || is_empty {
            metrics::no_capacity(&cx.state, &own);
            return invalid(NO_CAPACITY);
        }
        Ok(Target { key: own, place: Some(place) })
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
    pub fn refusal(&self, cx: &Cx, error: &InvokeError) -> Option<Error> {
        let has_no_room = || {
            let place = cx.state.endpoints.components.place(&self.key);
            place.is_some_and(|place| place.placed == 0)
        };
        if self.place.is_some() && matches!(error, InvokeError::Overloaded { .. }) && has_no_room() {
            metrics::no_capacity(&cx.state, &self.key);
            return Some(Error::Validation(NO_CAPACITY.into()));
        }
        let is_that = matches!(error, InvokeError::NotInService { .. } | InvokeError::NoSuchEndpoint { .. });
        let place = self.place.as_ref().filter(|_| is_that)?;
        Some(Error::Validation(format!(
            "Inference Component {} of endpoint {} is not in service; wait until its status is InService.",
            self.key.name, place.endpoint.name
        )))
    }
}

fn invalid<T>(text: &str) -> Result<T> {
    Err(Error::Validation(text.to_owned()))
}
