//! The frames of `python/model_host/PROTOCOL.md`, over a Unix socket.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::{AnswerBody, Chunk, ExchangeError};
use crate::frame::{self, CHUNK_ERROR, CHUNKED, MAX_HEADER_BYTES, PREFIX_BYTES, Prefix, ResponseHeader};

const FIRST_READ_BYTES: usize = 16 * 1024;
const COPIED_BYTES: usize = 4 * 1024;

/// Frames over a Unix socket.
#[derive(Debug)]
pub(super) struct Frames {
    pub(super) stream: UnixStream,
    pub(super) buffer: BytesMut,
}

impl Frames {
    /// Sends one request. Nothing may be left of an earlier answer.
    pub(super) async fn send(&mut self, header: Bytes, body: Bytes) -> Result<(), ExchangeError> {
        debug_assert!(self.buffer.is_empty(), "an answer has not been read to its end");
        let mut frame = header.chain(body);
        self.stream.write_all_buf(&mut frame).await.map_err(|error| ExchangeError::from_io(&error))
    }

    /// Reads an answer up to the end of its body, or, for a streamed one, up to the first chunk.
    pub(super) async fn receive(
        &mut self,
        max_body_bytes: u64,
    ) -> Result<(ResponseHeader, AnswerBody), ExchangeError> {
        let prefix = self.read_prefix().await?;
        if prefix.header_bytes > MAX_HEADER_BYTES {
            return Err(ExchangeError::Lost("The model host sent a header that is too long.".into()));
        }
        self.fill(prefix.header_bytes).await?;
        let header = frame::decode_response_header(&self.buffer[..prefix.header_bytes])
            .map_err(ExchangeError::Lost)?;
        self.buffer.advance(prefix.header_bytes);
        if prefix.body_bytes == CHUNKED {
            return Ok((header, AnswerBody::Chunked));
        }
        if prefix.body_bytes > max_body_bytes {
            return Err(ExchangeError::TooLarge(prefix.body_bytes));
        }
        let body = self.take(prefix.body_bytes as usize).await?;
        Ok((header, AnswerBody::Whole(body)))
    }

    /// Reads the next piece of a streamed answer.
    pub(super) async fn read_chunk(&mut self, max_chunk_bytes: u64) -> Result<Chunk, ExchangeError> {
        self.fill(4).await?;
        let length = self.buffer.get_u32();
        let failed = length == CHUNK_ERROR;
        let length = if failed {
            self.fill(4).await?;
            self.buffer.get_u32()
        } else {
            length
        };
        if u64::from(length) > max_chunk_bytes {
            return Err(ExchangeError::TooLarge(u64::from(length)));
        }
        let data = self.take(length as usize).await?;
        Ok(match (failed, length) {
            (true, _) => Chunk::Failed(data),
            (false, 0) => Chunk::End,
            (false, _) => Chunk::Data(data),
        })
    }

    async fn read_prefix(&mut self) -> Result<Prefix, ExchangeError> {
        self.fill(PREFIX_BYTES).await?;
        Ok(frame::take_prefix(&mut self.buffer).expect("the buffer was filled up to it"))
    }

    /// Reads until the buffer holds that many bytes.
    async fn fill(&mut self, bytes: usize) -> Result<(), ExchangeError> {
        if self.buffer.len() < bytes {
            self.buffer.reserve((bytes - self.buffer.len()).max(FIRST_READ_BYTES));
        }
        while self.buffer.len() < bytes {
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return Err(ExchangeError::Lost("The worker ended before it had answered.".into())),
                Ok(_) => {}
                Err(error) => return Err(ExchangeError::from_io(&error)),
            }
        }
        Ok(())
    }

    async fn take(&mut self, bytes: usize) -> Result<Bytes, ExchangeError> {
        self.fill(bytes).await?;
        if bytes > COPIED_BYTES {
            return Ok(self.buffer.split_to(bytes).freeze());
        }
        // A small piece is copied, so that the buffer stays whole for the next answer; a new one would cost more.
        let piece = Bytes::copy_from_slice(&self.buffer[..bytes]);
        self.buffer.advance(bytes);
        Ok(piece)
    }
}
