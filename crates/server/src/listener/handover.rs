//! Which requests the thread of a connection answers itself, and which it hands over.

use std::future::Future;

use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Body as _;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use wire::{Body, Peer};

/// Longest body of a request that is answered by the thread of its connection.
const MOST_BYTES: u64 = 64 * 1024;

/// Answers short invocations where they arrive, since most take less than it takes to hand them over. All else is for the threads of `workers`,
/// so that nothing that computes for long holds up the other connections of a thread.
pub fn divided<F>(
    handler: impl Fn(Request<Body>, Peer) -> F + Clone,
    workers: Handle,
) -> impl Fn(Request<Body>, Peer) -> BoxFuture<'static, Response<Body>> + Clone
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    move |request, peer| {
        let is_short = is_short_invocation(&request);
        let answering = handler(request, peer);
        if is_short {
            return Box::pin(answering);
        }
        // Given up with the connection, as if it ran there.
        let mut task = JoinSet::new();
        task.spawn_on(answering, &workers);
        Box::pin(async move {
            task.join_next().await.and_then(Result::ok).unwrap_or_else(|| {
                // The workers have ended before the connections.
                let mut response = Response::new(wire::empty());
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                response
            })
        })
    }
}

fn is_short_invocation(request: &Request<Body>) -> bool {
    let path = request.uri().path();
    request.method() == Method::POST
        && path.starts_with("/endpoints/")
        && (path.ends_with("/invocations") || path.ends_with("/invocations-response-stream"))
        && request.body().size_hint().upper().is_some_and(|bytes| bytes <= MOST_BYTES)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread::ThreadId;

    use super::*;

    /// The thread that a request is answered by.
    async fn thread(method: Method, path: &str, body: Body, workers: &Handle) -> ThreadId {
        let answered = |_, _| async {
            let mut response = Response::new(wire::empty());
            response.extensions_mut().insert(std::thread::current().id());
            response
        };
        let handler = divided(answered, workers.clone());
        let request = Request::builder().method(method).uri(path).body(body).unwrap();
        let response = handler(request, Peer(([127, 0, 0, 1], 1).into())).await;
        *response.extensions().get().unwrap()
    }

    #[test]
    fn only_short_invocations_stay_where_they_arrive() {
        let workers = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let connections = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let here = std::thread::current().id();
        let is_here = |method, path: &str, bytes: u64| {
            let body = wire::full(vec![0; bytes as usize]);
            connections.block_on(thread(method, path, body, workers.handle())) == here
        };
        assert!(is_here(Method::POST, "/endpoints/e/invocations", MOST_BYTES));
        assert!(is_here(Method::POST, "/endpoints/e/invocations-response-stream", 0));
        assert!(!is_here(Method::POST, "/endpoints/e/invocations", MOST_BYTES + 1));
        assert!(!is_here(Method::GET, "/endpoints/e/invocations", 0));
        assert!(!is_here(Method::POST, "/endpoints/e/async-invocations", 0));
        assert!(!is_here(Method::POST, "/", 1));
        assert!(!is_here(Method::PUT, "/bucket/endpoints/invocations", 1));
    }

    #[test]
    fn what_was_handed_over_goes_with_its_connection() {
        let workers = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let held = Arc::new(tokio::sync::Semaphore::new(0));
        let seen = held.clone();
        let handler = move |_, _| {
            let seen = seen.clone();
            async move {
                seen.add_permits(1);
                std::future::pending::<()>().await;
                Response::new(wire::empty())
            }
        };
        let handler = divided(handler, workers.handle().clone());
        let answering = handler(Request::new(wire::empty()), Peer(([127, 0, 0, 1], 1).into()));
        drop(handler);
        workers.block_on(async {
            let _ = held.acquire().await.unwrap();
            // It holds one beside ours.
            assert_eq!(Arc::strong_count(&held), 2);
            drop(answering);
            while Arc::strong_count(&held) > 1 {
                tokio::task::yield_now().await;
            }
        });
    }
}
