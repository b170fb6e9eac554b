//! Captured traffic, read back from S3: object by object, line by line.

use std::io::{BufRead, BufReader};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;
use serving::Latencies;
use store::objects::Object;

use super::Place;
use super::segments::LATENCIES;
use crate::app::App;
use crate::{Error, Result};

/// Keys that are listed at a time.
const KEYS_AT_ONCE: usize = 500;

/// A captured invocation.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// `eventId`.
    pub event_id: String,
    /// The request.
    pub input: Option<Body>,
    /// The answer.
    pub output: Option<Body>,
    /// `inferenceId`.
    pub inference_id: Option<String>,
    /// `customAttributes`.
    pub custom_attributes: Option<String>,
    /// `targetModel`.
    pub target_model: Option<String>,
    /// `targetContainerHostname`.
    pub target_container: Option<String>,
    /// `inferenceTime`, as it is written.
    pub at: String,
}

/// One side of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Body {
    /// Media type.
    pub content_type: Option<String>,
    /// The bytes that were sent.
    pub data: Bytes,
}

/// Where reading goes on: so many lines of that object are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    /// Key of the object; empty at the very beginning.
    pub key: String,
    /// Lines.
    pub lines: usize,
}

impl Position {
    /// Reads what [`Position::text`] wrote.
    ///
    /// # Errors
    /// [`Error::Validation`].
    pub fn parse(text: &str) -> Result<Position> {
        let read = text.split_once(' ').and_then(|(lines, key)| Some((lines.parse().ok()?, key.to_owned())));
        let (lines, key) =
            read.ok_or_else(|| Error::Validation("After: it is not what an earlier answer said.".into()))?;
        Ok(Position { key, lines })
    }

    /// A text that says it.
    pub fn text(&self) -> String {
        format!("{} {}", self.lines, self.key)
    }
}

/// The captured data of one endpoint, oldest first for each variant.
pub struct Traffic<'a> {
    app: &'a App,
    place: Place<'a>,
    prefix: String,
    /// The first hour that counts, as `yyyy/mm/dd/hh`; empty for all.
    first_hour: String,
    position: Position,
    listed: std::collections::VecDeque<Object>,
    open: Option<Open>,
}

/// An object that is being read.
struct Open {
    key: String,
    reader: BufReader<store::objects::ObjectFile>,
    lines: usize,
}

/// What comes next.
pub enum Next {
    /// An object begins; how long its invocations took, where that is known.
    Object(Option<Latencies>),
    /// An invocation.
    Line(Box<Recorded>),
    /// A line that is no captured invocation.
    Unreadable(String),
    /// That was all.
    End,
}

impl<'a> Traffic<'a> {
    /// The traffic of an endpoint below `place`, from a position on.
    pub fn new(
        app: &'a App,
        place: Place<'a>,
        endpoint: &str,
        first_hour: String,
        position: Position,
    ) -> Traffic<'a> {
        let prefix = place.key(&format!("{endpoint}/"));
        Traffic { app, place, prefix, first_hour, position, listed: Default::default(), open: None }
    }

    /// Where reading is.
    pub fn position(&self) -> Position {
        match &self.open {
            Some(open) => Position { key: open.key.clone(), lines: open.lines },
            None => self.position.clone(),
        }
    }

    /// Reads on.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn next(&mut self) -> Result<Next> {
        if let Some(mut open) = self.open.take() {
            let read = tokio::task::spawn_blocking(move || {
                let mut line = Vec::new();
                open.reader.read_until(b'\n', &mut line).map(|_| (open, line))
            });
            let (mut open, line) = read.await.map_err(Error::internal)?.map_err(Error::internal)?;
            if !line.is_empty() {
                open.lines += 1;
                self.open = Some(open);
                return Ok(match recorded(&line) {
                    Ok(recorded) => Next::Line(Box::new(recorded)),
                    Err(text) => Next::Unreadable(text),
                });
            }
            // Nothing more comes of this object, whatever its lines were.
            self.position = Position { key: open.key, lines: usize::MAX };
        }
        self.next_object().await
    }

    async fn next_object(&mut self) -> Result<Next> {
        // One that was read in part is opened again and its first lines are passed over.
        if self.position.lines < usize::MAX && !self.position.key.is_empty() {
            let Position { key, lines } = self.position.clone();
            self.position.lines = usize::MAX;
            if let Some((open, _)) = self.opened(key, lines).await? {
                self.open = Some(open);
                return Ok(Next::Object(None));
            }
        }
        loop {
            let Some(object) = self.next_key().await? else { return Ok(Next::End) };
            self.position = Position { key: object.key.clone(), lines: usize::MAX };
            if !self.counts(&object.key) {
                continue;
            }
            if let Some((open, latencies)) = self.opened(object.key, 0).await? {
                self.open = Some(open);
                return Ok(Next::Object(latencies));
            }
        }
    }

    async fn next_key(&mut self) -> Result<Option<Object>> {
        if self.listed.is_empty() {
            let after = (!self.position.key.is_empty()).then_some(self.position.key.as_bytes());
            let (account, bucket) = (self.place.account, self.place.bucket);
            let listed = self.app.objects.list_keys(account, bucket, &self.prefix, after, KEYS_AT_ONCE).await;
            self.listed = listed.map_err(|error| of_bucket(bucket, error))?.into();
        }
        Ok(self.listed.pop_front())
    }

    /// Whether a key is of captured data, and not of an hour before the first that is wanted.
    fn counts(&self, key: &str) -> bool {
        let Some((variant_and_hour, file)) = key[self.prefix.len()..].rsplit_once('/') else { return false };
        let Some((_, hour)) = variant_and_hour.split_once('/') else { return false };
        file.ends_with(".jsonl") && hour >= self.first_hour.as_str()
    }

    async fn opened(&self, key: String, lines: usize) -> Result<Option<(Open, Option<Latencies>)>> {
        let bucket = self.place.bucket;
        let (object, file) = match self.app.objects.open_version(self.place.account, bucket, &key).await {
            Ok(opened) => opened,
            // It was removed since it was listed.
            Err(store::Error::Missing { kind, .. }) if kind == store::objects::OBJECT_KIND => {
                return Ok(None);
            }
            Err(error) => return Err(of_bucket(bucket, error)),
        };
        let latencies = object.attributes.metadata.get(LATENCIES).and_then(|text| text.parse().ok());
        let passed = tokio::task::spawn_blocking(move || {
            let mut reader = BufReader::with_capacity(1 << 18, file);
            let mut line = Vec::new();
            for _ in 0..lines {
                line.clear();
                reader.read_until(b'\n', &mut line)?;
            }
            Ok::<_, std::io::Error>(reader)
        });
        let reader = passed.await.map_err(Error::internal)?.map_err(Error::internal)?;
        Ok(Some((Open { key, reader, lines }, latencies)))
    }
}

fn of_bucket(bucket: &str, error: store::Error) -> Error {
    match error {
        store::Error::Missing { .. } | store::Error::Denied(_) | store::Error::Key(_) => {
            Error::Validation(format!("The captured data in bucket {bucket} cannot be read: {error}."))
        }
        other => other.into(),
    }
}

fn recorded(line: &[u8]) -> Result<Recorded, String> {
    let line: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let side = |name: &str| -> Result<Option<Body>, String> {
        let side = &line["captureData"][name];
        let Some(data) = side["data"].as_str() else { return Ok(None) };
        let data = match side["encoding"].as_str() {
            Some("BASE64") => STANDARD.decode(data).map_err(|error| format!("{name}: {error}"))?.into(),
            Some("CSV" | "JSON") => Bytes::copy_from_slice(data.as_bytes()),
            other => return Err(format!("{name} has the encoding {other:?}")),
        };
        Ok(Some(Body { content_type: text(&side["observedContentType"]), data }))
    };
    let metadata = &line["eventMetadata"];
    Ok(Recorded {
        event_id: text(&metadata["eventId"]).ok_or("there is no eventId")?,
        input: side("endpointInput")?,
        output: side("endpointOutput")?,
        inference_id: text(&metadata["inferenceId"]),
        custom_attributes: text(&metadata["customAttributes"][0]),
        target_model: text(&metadata["targetModel"]),
        target_container: text(&metadata["targetContainerHostname"]),
        at: text(&metadata["inferenceTime"]).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_back_the_bytes_that_were_sent() {
        let line = r#"{"captureData":{"endpointInput":{"observedContentType":"a/b","mode":"INPUT","data":"Af8=","encoding":"BASE64"},
            "endpointOutput":{"observedContentType":"text/csv","mode":"OUTPUT","data":"1,2\n","encoding":"CSV"}},
            "eventMetadata":{"eventId":"e","customAttributes":["c"],"inferenceTime":"2026-01-31T12:00:00Z"},"eventVersion":"0"}"#;
        let read = recorded(line.as_bytes()).unwrap();
        assert_eq!(read.input.unwrap().data, &b"\x01\xff"[..]);
        assert_eq!(
            read.output.unwrap(),
            Body { content_type: Some("text/csv".into()), data: Bytes::from_static(b"1,2\n") }
        );
        assert_eq!((read.custom_attributes.as_deref(), read.inference_id), (Some("c"), None));
        for broken in [
            "",
            "[]",
            r#"{"eventMetadata":{"eventId":"e"},"captureData":{"endpointInput":{"data":"x","encoding":"ROT13"}}}"#,
        ] {
            assert!(recorded(broken.as_bytes()).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_position_is_read_as_it_was_written() {
        let position = Position { key: "a b/c".into(), lines: 17 };
        assert_eq!(Position::parse(&position.text()).unwrap(), position);
        assert!(Position::parse("nonsense").is_err());
    }
}
