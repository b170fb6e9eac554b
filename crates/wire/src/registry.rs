//! The table from operations to handlers.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use api::Operation;
use api::model::Service;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, Response};
use serde::Deserialize;
use serde_json::Value;

use crate::{Body, Context, Error, IntoError};

type Answer<T> = BoxFuture<'static, Result<T, Error>>;
type Typed<S> = dyn Fn(Context<S>) -> Answer<Value> + Send + Sync;
type Raw<S> = dyn Fn(Context<S>, RawRequest) -> Answer<Response<Body>> + Send + Sync;

/// What a raw handler gets: the parts of the request with the body as sent, already read and verified.
#[derive(Debug, Clone)]
pub struct RawRequest {
    /// Decoded labels of the path.
    pub labels: Arc<BTreeMap<&'static str, String>>,
    /// Decoded query parameters in their order.
    pub query: Vec<(String, String)>,
    /// All headers.
    pub headers: HeaderMap,
    /// The body, untouched.
    pub body: Bytes,
}

pub(crate) enum Handler<S> {
    Typed(Arc<Typed<S>>),
    Raw(Arc<Raw<S>>),
}

/// Which handler does which operation.
pub struct Registry<S> {
    handlers: BTreeMap<(&'static str, &'static str), Handler<S>>,
}

impl<S> Default for Registry<S> {
    fn default() -> Self {
        Registry { handlers: BTreeMap::new() }
    }
}

impl<S: Send + 'static> Registry<S> {
    /// An empty table.
    pub fn new() -> Registry<S> {
        Registry::default()
    }

    /// Registers a handler from typed input to typed output.
    ///
    /// # Panics
    /// When the operation has a handler already, or its service does not have it.
    pub fn on<O, F, Fut, E>(&mut self, handler: F)
    where
        O: Operation,
        F: Fn(Context<S>, O::Input) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O::Output, E>> + Send + 'static,
        E: IntoError,
    {
        let typed = move |context: Context<S>| -> Answer<Value> {
            let request_id = context.request_id.clone();
            let input = match input::<O>(&context.input) {
                Ok(input) => input,
                Err(error) => return futures::future::ready(Err(error)).boxed(),
            };
            let answering = handler(context, input);
            async move {
                let output = answering.await.map_err(|error| error.into_error(O::SERVICE, &request_id))?;
                serde_json::to_value(output).map_err(|error| {
                    tracing::error!(operation = O::NAME, request_id, %error, "an output cannot be serialized");
                    Error::internal()
                })
            }
            .boxed()
        };
        self.insert(O::SERVICE, O::NAME, Handler::Typed(Arc::new(typed)));
    }

    /// Registers a handler without types, for operations that have none: [`Context::input`] has the input, and the output
    /// is keyed by model member names in the same form.
    ///
    /// # Panics
    /// As [`Registry::on`].
    pub fn on_value<F, Fut, E>(&mut self, service: &'static Service, operation: &'static str, handler: F)
    where
        F: Fn(Context<S>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value, E>> + Send + 'static,
        E: IntoError,
    {
        let typed = move |context: Context<S>| -> Answer<Value> {
            let request_id = context.request_id.clone();
            let answering = handler(context);
            async move { answering.await.map_err(|error| error.into_error(service, &request_id)) }.boxed()
        };
        self.insert(service, operation, Handler::Typed(Arc::new(typed)));
    }

    /// Registers a handler that reads the body and writes the answer by itself.
    ///
    /// # Panics
    /// As [`Registry::on`].
    pub fn on_raw<O, F, Fut, E>(&mut self, handler: F)
    where
        O: Operation,
        F: Fn(Context<S>, RawRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Body>, E>> + Send + 'static,
        E: IntoError,
    {
        let handler = Arc::new(handler);
        let raw = move |context: Context<S>, request: RawRequest| -> Answer<Response<Body>> {
            let handler = handler.clone();
            // The handler's future is made inside: such requests are many, and moving it costs as much as its work.
            Box::pin(async move {
                let request_id = context.request_id.clone();
                handler(context, request).await.map_err(|error| error.into_error(O::SERVICE, &request_id))
            })
        };
        self.insert(O::SERVICE, O::NAME, Handler::Raw(Arc::new(raw)));
    }

    fn insert(&mut self, service: &'static Service, operation: &'static str, handler: Handler<S>) {
        assert!(service.operation(operation).is_some(), "{} has no operation {operation}", service.id);
        let before = self.handlers.insert((service.id, operation), handler);
        assert!(before.is_none(), "{} {operation} is registered twice", service.id);
    }
}

impl<S> Registry<S> {
    /// Service ids and operation names of all handlers, sorted.
    pub fn operations(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.handlers.keys().copied()
    }

    pub(crate) fn find(&self, service: &'static str, operation: &'static str) -> Option<&Handler<S>> {
        self.handlers.get(&(service, operation))
    }
}

/// The typed input. Constraint checks come first, so that only a model and its types that disagree can fail here.
fn input<O: Operation>(value: &Value) -> Result<O::Input, Error> {
    O::Input::deserialize(value)
        .or_else(|error| match value {
            // Operations without an input may have the unit type.
            Value::Object(members) if members.is_empty() => {
                O::Input::deserialize(&Value::Null).map_err(|_| error)
            }
            _ => Err(error),
        })
        .map_err(|error| Error::serialization(format!("The input of {} cannot be read: {error}.", O::NAME)))
}
