//! A graph as the runtime has it: what it takes, what it gives, and running it.

use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ort::session::{RunOptions, Session};
use ort::value::{TensorElementType, ValueType};

use super::cells::{Array, Body};
use super::outputs::Output;
use super::placing::{Port, place};
use super::tensors;
use crate::engine::refusal::RequestError;

/// A graph whose file is larger is loaded once, and its requests run one after the other on several threads: its weights would otherwise
/// be in memory for each worker.
const MOST_BYTES_FOR_EACH_WORKER: u64 = 64 * 1024 * 1024;

/// A loaded graph.
pub(crate) struct Graph {
    ports: Vec<Port>,
    elements: Vec<TensorElementType>,
    outputs: Vec<OutputPort>,
    sessions: Vec<Place>,
    idle: Mutex<Vec<usize>>,
    freed: Condvar,
}

/// An output of a graph.
#[derive(Clone, Debug)]
pub(crate) struct OutputPort {
    pub(crate) name: String,
    pub(crate) kind: ValueType,
}

/// A session of the runtime, which runs one request at a time.
struct Place {
    session: Mutex<Session>,
    options: RunOptions,
    /// Until when its request must be answered.
    deadline: Mutex<Option<Instant>>,
}

/// Gives a session back, whatever becomes of its request.
struct Taken<'a> {
    graph: &'a Graph,
    index: usize,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *lock(&self.graph.sessions[self.index].deadline) = None;
        lock(&self.graph.idle).push(self.index);
        self.graph.freed.notify_one();
    }
}

/// A poisoned lock only says that another request failed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Graph {
    /// Loads a graph with the runtime's library.
    ///
    /// # Errors
    /// A sentence for people.
    pub(crate) fn load(library: &Path, file: &Path, workers: usize) -> Result<Graph, String> {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let builder = ort::init_from(library)
            .map_err(|error| format!("The ONNX Runtime cannot be loaded: {error}."))?
            .with_name("modelyard")
            .with_telemetry(false);
        let environment =
            builder.build().map_err(|error| format!("The ONNX Runtime cannot be started: {error}."))?;
        let bytes =
            std::fs::metadata(file).map_err(|error| format!("{name} cannot be read: {error}."))?.len();
        let (sessions, threads) =
            if bytes > MOST_BYTES_FOR_EACH_WORKER { (1, workers) } else { (workers, 1) };
        let load = || -> ort::Result<Place> {
            let session = Session::builder(&environment)?
                .with_intra_threads(threads)?
                .with_inter_threads(1)?
                .with_intra_op_spinning(false)?
                .commit_from_file(file)?;
            Ok(Place {
                session: Mutex::new(session),
                options: RunOptions::new()?,
                deadline: Mutex::new(None),
            })
        };
        let sessions: Vec<Place> =
            (0..sessions).map(|_| load()).collect::<ort::Result<_>>().map_err(|error| {
                format!("{name} is no graph that the ONNX Runtime can run: {}.", first_line(&error))
            })?;
        let first = sessions.first().ok_or("There are no workers.")?;
        let (ports, elements) = inputs(&name, &lock(&first.session))?;
        let outputs = outputs(&name, &lock(&first.session))?;
        let idle = Mutex::new((0..sessions.len()).collect());
        Ok(Graph { ports, elements, outputs, sessions, idle, freed: Condvar::new() })
    }

    /// What it gives.
    pub(crate) fn outputs(&self) -> &[OutputPort] {
        &self.outputs
    }

    /// Whether its inputs take any number of rows, and its outputs give as many as they like.
    pub(crate) fn takes_rows(&self) -> bool {
        let is_free = |output: &OutputPort| match &output.kind {
            ValueType::Tensor { shape, .. } => shape.first().is_some_and(|size| *size < 0),
            _ => true,
        };
        self.ports.iter().all(|port| port.shape.first() == Some(&None)) && self.outputs.iter().all(is_free)
    }

    /// The values of a request as its inputs take them.
    pub(crate) fn arrays<'a>(
        &self,
        body: Body<'a>,
        rules: ValueRules,
    ) -> Result<Vec<Array<'a>>, RequestError> {
        let mut arrays = place(body, &self.ports)?;
        for ((array, port), element) in arrays.iter_mut().zip(&self.ports).zip(&self.elements) {
            if matches!(element, TensorElementType::Float32 | TensorElementType::Float64) {
                rules.check(array, &port.name)?;
            }
        }
        Ok(arrays)
    }

    /// Runs it on values and gives the outputs with these numbers.
    pub(crate) fn run(
        &self,
        arrays: &[Array<'_>],
        wanted: &[usize],
        time_limit: Duration,
    ) -> Result<Vec<Output>, RequestError> {
        let mut values = Vec::with_capacity(arrays.len());
        for ((array, port), element) in arrays.iter().zip(&self.ports).zip(&self.elements) {
            if array.cells.is_empty() {
                return Err(RequestError::unfit("there are no rows."));
            }
            values.push((port.name.as_str(), tensors::fill(array, *element, &port.name)?));
        }
        let taken = self.take();
        let place = &self.sessions[taken.index];
        *lock(&place.deadline) = Some(Instant::now() + time_limit);
        let failed = |error: &ort::Error| RequestError {
            status: 500,
            text: format!("The ONNX Runtime could not compute the answer: {}", first_line(error)),
        };
        let mut session = lock(&place.session);
        place.options.unterminate().map_err(|error| failed(&error))?;
        let outputs = session.run_with_options(values, &place.options).map_err(|error| failed(&error))?;
        let read = |number: &usize| {
            let port = &self.outputs[*number];
            let value = outputs.get(&port.name).ok_or_else(|| RequestError {
                status: 500,
                text: format!("The graph gave no output {}.", port.name),
            })?;
            tensors::read(&port.name, value).map_err(|error| failed(&error))
        };
        wanted.iter().map(read).collect()
    }

    fn take(&self) -> Taken<'_> {
        let mut idle = lock(&self.idle);
        loop {
            if let Some(index) = idle.pop() {
                return Taken { graph: self, index };
            }
            idle = self.freed.wait(idle).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends the requests whose time is up, and says by how much the oldest of them has overrun it.
    pub(crate) fn end_overdue(&self) -> Duration {
        let now = Instant::now();
        let mut longest = Duration::ZERO;
        for place in &self.sessions {
            let overdue = lock(&place.deadline).and_then(|deadline| now.checked_duration_since(deadline));
            if let Some(overdue) = overdue {
                // It ends between two nodes of the graph.
                let _ = place.options.terminate();
                longest = longest.max(overdue);
            }
        }
        longest
    }
}

/// What values a model takes, beyond what its graph says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ValueRules {
    /// Whether numbers may not be missing.
    pub(crate) none_missing: bool,
    /// Whether numbers may not be infinite.
    pub(crate) none_infinite: bool,
    /// Whether numbers have no more digits than a single.
    pub(crate) single_precision: bool,
}

impl ValueRules {
    fn check(self, array: &mut Array<'_>, input: &str) -> Result<(), RequestError> {
        use super::cells::Cell;
        if self == ValueRules::default() {
            return Ok(());
        }
        for cell in &mut array.cells {
            let number = match cell {
                Cell::Missing => f64::NAN,
                Cell::Number(number) => *number,
                Cell::Integer(_) => continue,
                // What is no number is told when the tensor is made.
                Cell::Text(text) if text.trim().is_empty() => f64::NAN,
                Cell::Text(text) => match text.trim().parse() {
                    Ok(number) => number,
                    Err(_) => continue,
                },
            };
            if number.is_nan() && self.none_missing {
                return Err(RequestError::unfit(&format!(
                    "Input {input} contains NaN, and the model takes no missing values."
                )));
            }
            if (number as f32).is_infinite() && self.none_infinite {
                return Err(RequestError::unfit(&format!(
                    "Input {input} contains infinity or a value too large for the model, {number:e}."
                )));
            }
            if self.single_precision && matches!(cell, Cell::Number(_)) {
                *cell = Cell::Number(f64::from(number as f32));
            }
        }
        Ok(())
    }
}

fn inputs(file: &str, session: &Session) -> Result<(Vec<Port>, Vec<TensorElementType>), String> {
    let mut ports = Vec::new();
    let mut elements = Vec::new();
    for input in session.inputs() {
        let name = input.name();
        let ValueType::Tensor { ty, shape, .. } = input.dtype() else {
            return Err(format!("{file} has an input {name} that is no tensor, which no request can fill."));
        };
        if !tensors::can_fill(*ty) {
            return Err(format!("{file} has an input {name} of {ty}, which no request can fill."));
        }
        let shape = shape.iter().map(|size| usize::try_from(*size).ok()).collect();
        ports.push(Port { name: name.to_owned(), shape });
        elements.push(*ty);
    }
    if ports.is_empty() { Err(format!("{file} has no inputs.")) } else { Ok((ports, elements)) }
}

fn outputs(file: &str, session: &Session) -> Result<Vec<OutputPort>, String> {
    let outputs: Vec<OutputPort> = session
        .outputs()
        .iter()
        .map(|output| OutputPort { name: output.name().to_owned(), kind: output.dtype().clone() })
        .collect();
    match outputs.iter().find(|output| !tensors::can_read(&output.kind)) {
        Some(odd) => {
            Err(format!("{file} has an output {} of {}, which cannot be written.", odd.name, odd.kind))
        }
        None if outputs.is_empty() => Err(format!("{file} has no outputs.")),
        None => Ok(outputs),
    }
}

/// The runtime's texts go on with places in its source.
fn first_line(error: &ort::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_end_matches('.').to_owned()
}
