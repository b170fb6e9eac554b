//! Native engines: models of boosted trees that are answered in this process, without Python.

mod answer;
mod forest;
mod lightgbm;
mod numbers;
mod onnx;
mod refusal;
mod rows;
mod selection;
#[cfg(test)]
mod tests;
mod xgboost;

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use tokio::sync::Semaphore;

use self::answer::{AnswerType, Predictions, media_type};
use self::forest::LANES;
use self::lightgbm::LightgbmModel;
use self::refusal::RequestError;
use self::rows::{RowReader, RowRules};
use self::selection::Speaker;
use self::xgboost::XgboostModel;
use crate::frame::ResponseHeader;
use crate::invocation::InvokeRequest;

pub use self::onnx::{ONNX_HOST_SUBCOMMAND, OnnxHostOptions, OnnxJoins, run_onnx_host};
pub use self::refusal::Refusal;

/// The largest model file that is read: while it is, it is in memory more than once.
const MOST_FILE_BYTES: u64 = 512 * 1024 * 1024;
/// The widest rows.
const MOST_FEATURES: usize = 1 << 20;
/// The most classes or targets.
const MOST_OUTPUTS: usize = 1 << 14;
/// Rows that go through a tree before the next tree is looked at.
const BLOCK_ROWS: usize = 64;
/// Numbers in such a block, where rows are wide.
const BLOCK_NUMBERS: usize = 1 << 19;
/// What is computed where the request arrives, in steps of about a nanosecond: other requests can spare a thread for as long, and handing
/// it to another one would cost a short request more than it takes.
const INLINE_STEPS: usize = 200_000;
/// Steps that a byte of a body costs.
const STEPS_PER_BYTE: usize = 4;
/// Steps that a node of a tree costs.
const STEPS_PER_NODE: usize = 4;

/// Long computations at once: more than there are processors would only take memory.
static LONG_COMPUTATIONS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from)));

/// How a model answers, beyond what its file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerSettings {
    /// The media type of answers where the caller takes any.
    pub default_accept: Option<String>,
    /// Whether CSV answers have a line for each row rather than one for all.
    pub line_each: bool,
    /// The parts of answers, by name, where whole predictions are not wanted.
    pub selected: Option<Vec<String>>,
}

/// A model that this process answers for.
pub struct NativeModel {
    booster: Booster,
    settings: AnswerSettings,
}

#[derive(Debug)]
enum Booster {
    Xgboost(XgboostModel),
    Lightgbm(LightgbmModel),
}

impl fmt::Debug for NativeModel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "NativeModel({})", self.description())
    }
}

impl NativeModel {
    /// Loads a model file. It takes as long as reading the file does, and must not be called where that is too long.
    ///
    /// # Errors
    /// [`Refusal`] when it is not a model that the engine computes.
    pub fn load(path: &Path, settings: AnswerSettings) -> Result<Self, Refusal> {
        let unreadable = |error: std::io::Error| Refusal::Unreadable(error.to_string());
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        if size > MOST_FILE_BYTES {
            return Err(Refusal::Unsupported(format!("it is larger than {MOST_FILE_BYTES} bytes")));
        }
        Self::read(&std::fs::read(path).map_err(unreadable)?, settings)
    }

    /// Reads a model from the bytes of its file.
    ///
    /// # Errors
    /// As [`NativeModel::load`].
    pub fn read(bytes: &[u8], settings: AnswerSettings) -> Result<Self, Refusal> {
        let booster = if lightgbm::is_model(bytes) {
            Booster::Lightgbm(LightgbmModel::read(bytes)?)
        } else if xgboost::is_model(bytes) {
            Booster::Xgboost(XgboostModel::read(bytes)?)
        } else {
            return Err(Refusal::Foreign(foreign(bytes).into()));
        };
        Ok(Self { booster, settings })
    }

    /// What the model is, in a few words for people.
    pub fn description(&self) -> String {
        match &self.booster {
            Booster::Xgboost(model) => model.description(),
            Booster::Lightgbm(model) => model.description(),
        }
    }

    /// The memory that it takes.
    pub fn memory_bytes(&self) -> u64 {
        let booster = match &self.booster {
            Booster::Xgboost(model) => model.memory_bytes(),
            Booster::Lightgbm(model) => model.memory_bytes(),
        };
        (size_of::<Self>() + booster) as u64
    }

    fn rules(&self) -> RowRules {
        match &self.booster {
            Booster::Xgboost(model) => RowRules {
                features: model.features(),
                is_exact: false,
                is_single_precision: true,
                absent: f64::NAN,
            },
            Booster::Lightgbm(model) => RowRules {
                features: model.features(),
                is_exact: true,
                is_single_precision: false,
                absent: 0.0,
            },
        }
    }

    fn list_length(&self) -> Option<usize> {
        match &self.booster {
            Booster::Xgboost(model) => model.list_length(),
            Booster::Lightgbm(model) => model.list_length(),
        }
    }

    /// Answers a request; whatever is wrong with it becomes an answer.
    pub(crate) async fn answer(self: &Arc<Self>, request: &InvokeRequest) -> (ResponseHeader, Bytes) {
        let asked = Asked {
            // As in the service, where a body that says nothing of itself is CSV.
            media_type: media_type(request.content_type.as_deref().unwrap_or("text/csv")),
            accept: request.accept.clone(),
            body: request.body.clone(),
        };
        if self.steps(&asked.body) <= INLINE_STEPS {
            return finish(self.compute(&asked, &AtomicBool::new(false)));
        }
        // The semaphore is never closed.
        let _permit = LONG_COMPUTATIONS.acquire().await;
        let model = Arc::clone(self);
        let abandoned = Arc::new(AtomicBool::new(false));
        // A caller that goes away, or whose time is up, drops this.
        let _guard = SetOnDrop(Arc::clone(&abandoned));
        let computed = tokio::task::spawn_blocking(move || model.compute(&asked, &abandoned)).await;
        finish(computed.unwrap_or_else(|error| {
            tracing::error!(%error, "the native engine failed");
            Err(RequestError {
                status: 500,
                text: "The native engine failed; the server's log says more.".into(),
            })
        }))
    }

    /// About what a body costs.
    fn steps(&self, body: &[u8]) -> usize {
        let per_row = match &self.booster {
            Booster::Xgboost(model) => model.steps_per_row(),
            Booster::Lightgbm(model) => model.steps_per_row(),
        };
        let reading = body.len().saturating_mul(STEPS_PER_BYTE);
        if reading > INLINE_STEPS {
            return reading;
        }
        // Brackets end the rows of JSON; arrays have eight bytes or fewer for a number, and some have many rows in few bytes.
        let ends = body.iter().filter(|byte| matches!(byte, b'\n' | b'\r' | b']')).count() + 1;
        let rows = if body.first() == Some(&0x93) { body.len() / self.rules().features + 1 } else { ends };
        reading.saturating_add(rows.saturating_mul(per_row).saturating_mul(STEPS_PER_NODE))
    }

    fn compute(&self, asked: &Asked, abandoned: &AtomicBool) -> Result<(AnswerType, String), RequestError> {
        let default_accept = self.settings.default_accept.as_deref();
        let answer_type = AnswerType::choose(asked.accept.as_deref(), default_accept)?;
        if asked.body.is_empty() {
            return Err(RequestError { status: 204, text: String::new() });
        }
        let values = self.predict(asked, abandoned)?;
        let predictions = Predictions { values: &values, list_length: self.list_length() };
        let body = match (&self.settings.selected, &self.booster) {
            (None, _) => predictions.body(answer_type, self.settings.line_each),
            (Some(keys), booster) => {
                let speaker = match booster {
                    Booster::Xgboost(model) => {
                        Speaker { objective: model.objective(), classes: model.classes() }
                    }
                    Booster::Lightgbm(model) => Speaker { objective: model.objective(), classes: 0 },
                };
                speaker.body(predictions, keys, answer_type, self.settings.line_each)?
            }
        };
        Ok((answer_type, body))
    }

    fn predict(&self, asked: &Asked, abandoned: &AtomicBool) -> Result<Vec<f64>, RequestError> {
        let rules = self.rules();
        let mut reader = RowReader::new(&asked.media_type, &asked.body, rules)?;
        let block_rows = (BLOCK_NUMBERS / rules.features).clamp(1, BLOCK_ROWS);
        let mut block = Vec::new();
        let mut outputs = Vec::new();
        let mut has_more = true;
        while has_more && !abandoned.load(Ordering::Relaxed) {
            block.clear();
            for _ in 0..block_rows {
                let start = block.len();
                block.resize(start + rules.features, f64::NAN);
                has_more = reader.read(&mut block[start..])?;
                if !has_more {
                    block.truncate(start);
                    break;
                }
            }
            match &self.booster {
                Booster::Xgboost(model) => model.predict(&block, &mut outputs),
                Booster::Lightgbm(model) => model.predict(&block, &mut outputs),
            }
        }
        Ok(outputs)
    }
}

/// What a request asks for.
struct Asked {
    media_type: String,
    accept: Option<String>,
    body: Bytes,
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn finish(computed: Result<(AnswerType, String), RequestError>) -> (ResponseHeader, Bytes) {
    let (status, content_type, body) = match computed {
        Ok((answer_type, body)) => (200, answer_type.name(), body),
        Err(error) => (error.status, "text/plain", error.text),
    };
    let header =
        ResponseHeader { status, content_type: Some(content_type.into()), ..ResponseHeader::default() };
    (header, Bytes::from(body))
}

/// What files are that begin with these bytes, where people take them for models.
fn foreign(bytes: &[u8]) -> &'static str {
    match bytes {
        [0x80, 2..=5, ..] => {
            "it is a pickle, which only Python can load; save_model writes a file that the native engine reads"
        }
        [b'P', b'K', ..] => "it is a zip archive, which the native engine does not read",
        [b'b', b'i', b'n', b'f', ..] | [_, _, _, b'?' | b'>', ..] => {
            "it looks like XGBoost's old binary format; load it and save it again as .json or .ubj for the native engine"
        }
        [] => "it is empty",
        _ => "it is no format that the native engine knows (XGBoost's JSON and UBJSON, LightGBM's text)",
    }
}

/// The trees that are gone through together, one range after the other.
fn chunks(trees: usize) -> impl Iterator<Item = Range<usize>> {
    (0..trees).step_by(LANES).map(move |start| start..trees.min(start + LANES))
}

/// About how many nodes a row passes in so many trees.
fn steps(trees: usize, nodes: usize) -> usize {
    let leaves = (nodes / trees.max(1) / 2).max(1);
    // The depth of a balanced tree, and some for those that are not.
    trees * (leaves.ilog2() as usize * 3 / 2 + 1)
}
