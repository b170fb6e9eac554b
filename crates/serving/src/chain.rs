//! Several containers that answer as one: each in its turn, or the one that the request names.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;

use crate::connection::{AnswerBody, Chunk, ChunkFuture, ExchangeError};
use crate::frame::ResponseHeader;
use crate::invocation::InvokeRequest;
use crate::latency::Latencies;
use crate::launcher::BoxFuture;
use crate::pool::{Acquire, Lease, Pool};
use crate::refused::Refused;

/// The containers of one replica, in their order.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) links: Vec<ChainLink>,
    pub(crate) is_direct: bool,
    /// How long a request waits for a worker of one container.
    pub(crate) queue_wait: Duration,
}

/// One container.
#[derive(Debug)]
pub(crate) struct ChainLink {
    pub(crate) name: String,
    pub(crate) pool: Arc<Pool>,
    /// Kept over all replicas of the variant.
    pub(crate) latencies: Arc<Latencies>,
}

/// The rest of a streamed answer of the last container.
#[derive(Debug)]
pub(crate) struct ChainRest {
    lease: Option<Lease>,
    began_at: Instant,
    latencies: Arc<Latencies>,
}

/// Head, body, and what is to be read of it later.
pub(crate) type ChainAnswered = (ResponseHeader, AnswerBody, Option<Box<ChainRest>>);

impl Chain {
    /// Answers a request; each container may take `limit`. The answer says which container it is from.
    pub(crate) fn invoke<'a>(
        &'a self,
        request: &'a InvokeRequest,
        max_body_bytes: u64,
        limit: Duration,
    ) -> BoxFuture<'a, Result<ChainAnswered, ExchangeError>> {
        Box::pin(async move {
            if self.is_direct {
                let wanted = request.target_container.as_deref();
                let link = self.links.iter().find(|link| Some(link.name.as_str()) == wanted);
                let lost = || ExchangeError::Lost("The replica has no container of that name.".into());
                return link.ok_or_else(lost)?.invoke(self, request, max_body_bytes, limit).await;
            }
            let mut passed_on: Option<InvokeRequest> = None;
            for (at, link) in self.links.iter().enumerate() {
                let is_last = at + 1 == self.links.len();
                let mut asked = passed_on.take().unwrap_or_else(|| request.clone());
                // What the caller accepts is for the answer of the last; those between say by themselves what they answer.
                asked.accept = request.accept.clone().filter(|_| is_last);
                let (header, body, rest) = link.invoke(self, &asked, max_body_bytes, limit).await?;
                if is_last || !(200..300).contains(&header.status) {
                    return Ok((header, body, rest));
                }
                let whole = link.whole(body, rest, max_body_bytes, limit).await?;
                passed_on = Some(InvokeRequest {
                    content_type: header.content_type,
                    body: whole,
                    spoken: None,
                    ..request.clone()
                });
            }
            Err(ExchangeError::Lost("The replica has no containers.".into()))
        })
    }
}

impl ChainLink {
    async fn lease(&self, queue_wait: Duration) -> Result<Lease, ExchangeError> {
        match self.pool.acquire() {
            Acquire::Ready(lease) => Ok(lease),
            Acquire::Wait(line) => match tokio::time::timeout(queue_wait, line).await {
                Ok(Ok(lease)) => Ok(lease),
                _ => Err(ExchangeError::Refused(Refused::Overloaded)),
            },
            // Requests to one of several containers are answered alone.
            Acquire::Join(_) | Acquire::Full | Acquire::Gone | Acquire::Draining => {
                Err(ExchangeError::Refused(Refused::Overloaded))
            }
        }
    }

    async fn invoke(
        &self,
        chain: &Chain,
        request: &InvokeRequest,
        max_body_bytes: u64,
        limit: Duration,
    ) -> Result<ChainAnswered, ExchangeError> {
        loop {
            let mut lease = self.lease(chain.queue_wait).await?;
            let began_at = Instant::now();
            let exchange = lease.connection().invoke(request, max_body_bytes, limit);
            let (mut header, body) = match tokio::time::timeout(limit, exchange).await {
                Ok(Ok(answered)) => answered,
                // As for a replica of one container: nothing has read the request, so another worker may.
                Ok(Err(ExchangeError::NotRead)) => continue,
                Ok(Err(ExchangeError::Unreachable(error))) => {
                    lease.connection().lose();
                    tracing::debug!(container = self.name, %error, "a container cannot be reached");
                    continue;
                }
                Ok(Err(ExchangeError::Lost(text))) => return Err(self.lost(&text)),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(ExchangeError::Refused(Refused::TimedOut)),
            };
            header.container = Some(self.name.clone());
            return Ok(match body {
                AnswerBody::Whole(_) => {
                    lease.give_back();
                    self.latencies.record(began_at.elapsed());
                    (header, body, None)
                }
                AnswerBody::Chunked => {
                    let latencies = Arc::clone(&self.latencies);
                    (header, body, Some(Box::new(ChainRest { lease: Some(lease), began_at, latencies })))
                }
            });
        }
    }

    fn lost(&self, text: &str) -> ExchangeError {
        ExchangeError::Lost(format!("container {}: {text}", self.name))
    }

    /// The whole body of an answer that is to be the next request.
    async fn whole(
        &self,
        body: AnswerBody,
        rest: Option<Box<ChainRest>>,
        max_body_bytes: u64,
        limit: Duration,
    ) -> Result<bytes::Bytes, ExchangeError> {
        let Some(mut rest) = rest else {
            return match body {
                AnswerBody::Whole(body) => Ok(body),
                AnswerBody::Chunked => Err(self.lost("the answer has no body")),
            };
        };
        let mut whole = BytesMut::new();
        loop {
            let chunk = tokio::time::timeout(limit, rest.next_chunk(max_body_bytes)).await;
            match chunk.map_err(|_| ExchangeError::Refused(Refused::TimedOut))?? {
                Chunk::Data(data) => whole.extend_from_slice(&data),
                Chunk::End => return Ok(whole.freeze()),
                Chunk::Failed(text) => return Err(self.lost(&String::from_utf8_lossy(&text))),
            }
            if whole.len() as u64 > max_body_bytes {
                return Err(ExchangeError::TooLarge(whole.len() as u64));
            }
        }
    }
}

impl ChainRest {
    /// Reads the next piece.
    pub(crate) fn next_chunk(&mut self, max_chunk_bytes: u64) -> ChunkFuture<'_> {
        Box::pin(async move {
            let Some(lease) = &mut self.lease else { return Ok(Chunk::End) };
            let chunk = lease.connection().read_chunk(max_chunk_bytes).await?;
            if !matches!(chunk, Chunk::Data(_))
                && let Some(lease) = self.lease.take()
            {
                lease.give_back();
                self.latencies.record(self.began_at.elapsed());
            }
            Ok(chunk)
        })
    }
}
