//! Requests from an object: records gathered up to the payload, read and filtered on a thread of their own.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use store::objects::ObjectFile;
use tokio::sync::mpsc;

use super::data::Sources;
use super::plan::Plan;
use super::split::{Records, Split};
use super::spool::Position;

/// Requests that are ready before they are sent.
const READY: usize = 2;

/// A request to the model.
#[derive(Debug)]
pub struct Batch {
    /// Its body.
    pub payload: Bytes,
    /// The first record, from 1.
    pub first_record: u64,
    /// How many records.
    pub records: u64,
    /// Where the input behind it begins.
    pub input_end: u64,
    /// The records as they were, where answers are joined with them.
    pub sources: Sources,
}

/// Why there are no more requests: a sentence, and the record that it is about.
#[derive(Debug)]
pub struct BatchError {
    /// What is wrong.
    pub sentence: String,
    /// The record, from 1.
    pub record: u64,
}

/// Sends the requests of an object from a position on. Their channel ends with the object; `read_bytes` counts what was read of it.
pub fn read(
    file: ObjectFile,
    plan: Arc<Plan>,
    from: Position,
    read_bytes: Arc<AtomicU64>,
) -> mpsc::Receiver<Result<Batch, BatchError>> {
    let (sender, receiver) = mpsc::channel(READY);
    tokio::task::spawn_blocking(move || {
        let source = Counted { file, count: read_bytes };
        if let Err(error) = send(source, &plan, from, &sender) {
            // Nobody listens to an object that was given up.
            let _ = sender.blocking_send(Err(error));
        }
    });
    receiver
}

struct Counted {
    file: ObjectFile,
    count: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

type Sender = mpsc::Sender<Result<Batch, BatchError>>;

fn send(mut source: Counted, plan: &Plan, from: Position, sender: &Sender) -> Result<(), BatchError> {
    let unreadable = |error: io::Error| BatchError {
        sentence: format!("the object cannot be read: {error}"),
        record: from.records + 1,
    };
    let bytes: Box<dyn Read> = if plan.is_gzip {
        let mut unpacked = MultiGzDecoder::new(io::BufReader::with_capacity(1 << 16, source));
        // What is packed has to be unpacked again up to there.
        io::copy(&mut (&mut unpacked).take(from.input_bytes), &mut io::sink()).map_err(unreadable)?;
        Box::new(unpacked)
    } else {
        source.file.seek(SeekFrom::Start(from.input_bytes)).map_err(unreadable)?;
        source.count.fetch_add(from.input_bytes, Ordering::Relaxed);
        Box::new(source)
    };
    // Without a limit an object is sent as it is.
    let split =
        if plan.payload_mb == 0 && !plan.is_single && plan.data.is_none() { Split::None } else { plan.split };
    let mut records = Records::new(bytes, split, plan.record_bytes(), from.input_bytes, from.records);
    let mut gathered = Gathered::new(plan, split, from.records + 1);
    let mut before = from.input_bytes;
    let mut number = from.records;
    loop {
        let record =
            records.next().map_err(|error| BatchError { sentence: error.to_string(), record: number + 1 })?;
        let Some(record) = record else { break };
        number += 1;
        let refused = |sentence: String| BatchError { sentence, record: number };
        let content = record.content.bytes();
        let filtered;
        let body = match &plan.data {
            Some(data) if !data.input.is_all() => {
                filtered = data.filtered(content).map_err(refused)?;
                &filtered[..]
            }
            _ if plan.is_single || split == Split::None => content,
            _ => record.framed,
        };
        if body.len() > plan.payload_bytes() {
            let limit = plan.payload_bytes();
            return Err(refused(format!(
                "Too much data for max payload size: record {number} has {} bytes, and MaxPayloadInMB allows {limit}",
                body.len()
            )));
        }
        let mut ready = None;
        if gathered.records > 0 && !gathered.has_room(body.len()) {
            ready = Some(gathered.take(before, number));
        }
        gathered.push(body, content);
        before = records.offset();
        if let Some(batch) = ready
            && sender.blocking_send(Ok(batch)).is_err()
        {
            return Ok(());
        }
    }
    if gathered.records > 0 {
        let batch = gathered.take(before, number + 1);
        let _ = sender.blocking_send(Ok(batch)); // as above
    }
    Ok(())
}

struct Gathered<'a> {
    plan: &'a Plan,
    split: Split,
    payload: Vec<u8>,
    sources: Sources,
    first_record: u64,
    records: u64,
}

impl<'a> Gathered<'a> {
    fn new(plan: &'a Plan, split: Split, first_record: u64) -> Gathered<'a> {
        Gathered { plan, split, payload: Vec::new(), sources: Sources::default(), first_record, records: 0 }
    }

    /// Whether another record may join; the end of a line counts.
    fn has_room(&self, bytes: usize) -> bool {
        !self.plan.is_single
            && self.split != Split::None
            && self.payload.len() + bytes < self.plan.payload_bytes()
    }

    fn push(&mut self, body: &[u8], source: &[u8]) {
        self.payload.extend_from_slice(body);
        let is_text = self.split == Split::Line && !self.plan.is_single;
        if is_text && !body.ends_with(b"\n") {
            self.payload.push(b'\n');
        }
        if self.plan.data.as_ref().is_some_and(|data| data.is_joined) {
            self.sources.push(source);
        }
        self.records += 1;
    }

    fn take(&mut self, input_end: u64, next_record: u64) -> Batch {
        let batch = Batch {
            payload: std::mem::take(&mut self.payload).into(),
            first_record: self.first_record,
            records: self.records,
            input_end,
            sources: std::mem::take(&mut self.sources),
        };
        self.first_record = next_record;
        self.records = 0;
        batch
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::{Value, json};

    use super::*;

    fn plan(change: impl FnOnce(&mut Value)) -> Arc<Plan> {
        let mut request = json!({
            "TransformJobName": "t", "ModelName": "m", "MaxPayloadInMB": 1,
            "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/in"}},
                "ContentType": "text/csv", "SplitType": "Line"},
            "TransformOutput": {"S3OutputPath": "s3://b/out"},
            "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        });
        change(&mut request);
        Arc::new(Plan::of(&serde_json::from_value(request).unwrap()).unwrap())
    }

    async fn batches(data: &[u8], plan: &Arc<Plan>, from: Position) -> Vec<Result<Batch, BatchError>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(data).unwrap();
        file.rewind().unwrap();
        let mut receiver = read(ObjectFile::plain(file), plan.clone(), from, Arc::default());
        let mut found = Vec::new();
        while let Some(batch) = receiver.recv().await {
            found.push(batch);
        }
        found
    }

    #[tokio::test]
    async fn records_are_gathered_up_to_the_payload_and_again_from_any_place() {
        let data: Vec<u8> = (0..400_000).flat_map(|number| format!("{number},1\n").into_bytes()).collect();
        let plan = plan(|_| {});
        let all: Vec<Batch> =
            batches(&data, &plan, Position::default()).await.into_iter().map(Result::unwrap).collect();
        assert!(all.len() > 3 && all.iter().all(|batch| batch.payload.len() <= 1 << 20));
        assert_eq!(all.iter().flat_map(|batch| batch.payload.to_vec()).collect::<Vec<_>>(), data);
        assert_eq!(all.iter().map(|batch| batch.records).sum::<u64>(), 400_000);
        let first = &all[0];
        assert_eq!(all[1].first_record, first.records + 1);
        let from = Position { input_bytes: first.input_end, records: first.records, ..Position::default() };
        let again = batches(&data, &plan, from).await;
        let again: Vec<_> = again.into_iter().map(Result::unwrap).collect();
        assert_eq!(again.len(), all.len() - 1);
        assert!(again.iter().zip(&all[1..]).all(|(one, other)| one.payload == other.payload));
    }

    #[tokio::test]
    async fn single_records_have_no_end_of_line_and_packed_ones_are_unpacked() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(b"7,1,2\n8,3,4").unwrap();
        let packed = packed.finish().unwrap();
        let plan = plan(|request| {
            request["BatchStrategy"] = "SingleRecord".into();
            request["TransformInput"]["CompressionType"] = "Gzip".into();
            request["DataProcessing"] = json!({"InputFilter": "$[1:]", "JoinSource": "Input"});
        });
        let payloads = |batches: Vec<Result<Batch, BatchError>>| -> Vec<Vec<u8>> {
            batches.into_iter().map(|batch| batch.unwrap().payload.to_vec()).collect()
        };
        let all = batches(&packed, &plan, Position::default()).await;
        assert_eq!(all[0].as_ref().unwrap().input_end, 6);
        assert_eq!(payloads(all), [b"1,2", b"3,4"]);
        let from = Position { input_bytes: 6, records: 1, ..Position::default() };
        assert_eq!(payloads(batches(&packed, &plan, from).await), [b"3,4"]);
    }

    #[tokio::test]
    async fn what_is_too_long_or_wrong_names_its_record() {
        let plan = plan(|request| request["DataProcessing"] = json!({"InputFilter": "$[1]"}));
        let found = batches(b"1,2\n3\n", &plan, Position::default()).await;
        let error = found.last().unwrap().as_ref().unwrap_err();
        assert!(error.record == 2 && error.sentence.contains("InputFilter"), "{error:?}");
        let mut long = b"1,".to_vec();
        long.resize(2 << 20, b'x');
        let found = batches(&long, &plan, Position::default()).await;
        assert!(found[0].as_ref().unwrap_err().sentence.contains("Too much data for max payload size"));
    }
}
