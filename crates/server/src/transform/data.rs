//! `DataProcessing`: which part of a record goes to the model, what is joined with its answer, and which part of that is kept.

use serde_json::{Value, json};

use super::path::Path;

/// What records are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Rows; a record may have several where objects are not split.
    Csv,
    /// A document.
    Json,
    /// A document on each line.
    JsonLines,
}

impl Format {
    /// Of a media type; `None` for those that are not understood.
    pub fn of(media_type: &str) -> Option<Format> {
        match media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "text/csv" => Some(Format::Csv),
            "application/json" => Some(Format::Json),
            "application/jsonlines" | "application/x-jsonlines" | "application/json-lines" => {
                Some(Format::JsonLines)
            }
            _ => None,
        }
    }
}

/// The filters and the join of a job.
#[derive(Debug, Clone)]
pub struct DataProcessing {
    /// How inputs are written.
    pub format: Format,
    /// Whether a document is a whole object: then its lines mean nothing.
    pub is_whole: bool,
    /// What goes to the model.
    pub input: Path,
    /// Whether inputs are joined with answers.
    pub is_joined: bool,
    /// What is kept.
    pub output: Path,
}

/// Records as they were before they were filtered.
#[derive(Debug, Default, Clone)]
pub struct Sources {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Sources {
    /// Adds a record.
    pub fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len());
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }
}

impl DataProcessing {
    /// Whether answers pass as they are.
    pub fn keeps_answers(&self) -> bool {
        !self.is_joined && self.output.is_all()
    }

    /// The part of a record that goes to the model, without an end of line.
    ///
    /// # Errors
    /// A sentence about the record.
    pub fn filtered(&self, record: &[u8]) -> Result<Vec<u8>, String> {
        if self.input.is_all() {
            return Ok(record.to_vec());
        }
        let problem = |problem: String| format!("InputFilter cannot be applied: {problem}");
        if self.format == Format::Csv {
            let rows: Result<Vec<Vec<u8>>, String> =
                lines(record).map(|row| columns(row, &self.input)).collect();
            return rows.map(|rows| rows.join(&b'\n')).map_err(problem);
        }
        let value = document(record).map_err(problem)?;
        let chosen = self.input.select(&value).map_err(problem)?;
        Ok(chosen.to_string().into_bytes())
    }

    /// What is stored of the answer to these records.
    ///
    /// # Errors
    /// A sentence about the answer.
    pub fn stored(&self, sources: &Sources, answer: &[u8]) -> Result<Vec<u8>, String> {
        if self.keeps_answers() {
            return Ok(answer.to_vec());
        }
        let filter = |problem: String| format!("OutputFilter cannot be applied: {problem}");
        if self.is_whole && self.format != Format::Csv {
            let answer = document(answer).map_err(|problem| format!("the answer of the model {problem}"))?;
            let whole = match (self.is_joined, sources.iter().next()) {
                (true, Some(source)) => joined(document(source)?, answer),
                _ => answer,
            };
            return Ok(self.output.select(&whole).map_err(filter)?.to_string().into_bytes());
        }
        let answers: Vec<&[u8]> = lines(answer).collect();
        let mut stored = Vec::new();
        if !self.is_joined {
            for answer in answers {
                self.put(&mut stored, answer).map_err(filter)?;
            }
            return Ok(stored);
        }
        let rows: Vec<&[u8]> = sources.iter().flat_map(lines).collect();
        if rows.len() != answers.len() {
            return Err(format!(
                "the output of the model cannot be joined with its input: {} records were sent, and {} lines came back",
                rows.len(),
                answers.len()
            ));
        }
        for (source, answer) in rows.into_iter().zip(answers) {
            if self.format == Format::Csv {
                self.put(&mut stored, &[source, answer].join(&b',')).map_err(filter)?;
            } else {
                let answer =
                    document(answer).map_err(|problem| format!("the answer of the model {problem}"))?;
                let chosen = self.output.select(&joined(document(source)?, answer)).map_err(filter)?;
                stored.extend_from_slice(chosen.to_string().as_bytes());
                stored.push(b'\n');
            }
        }
        Ok(stored)
    }

    fn put(&self, stored: &mut Vec<u8>, line: &[u8]) -> Result<(), String> {
        if self.output.is_all() {
            stored.extend_from_slice(line);
        } else if self.format == Format::Csv {
            stored.extend_from_slice(&columns(line, &self.output)?);
        } else {
            stored.extend_from_slice(self.output.select(&document(line)?)?.to_string().as_bytes());
        }
        stored.push(b'\n');
        Ok(())
    }
}

/// The lines that have content.
pub fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
}

fn document(text: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(text).map_err(|error| format!("is not JSON: {error}"))
}

/// A record with the model's answer to it: in `SageMakerOutput`, beside the record's own members where it has any.
fn joined(source: Value, answer: Value) -> Value {
    match source {
        Value::Object(mut members) => {
            members.insert("SageMakerOutput".into(), answer);
            Value::Object(members)
        }
        source => json!({"SageMakerInput": source, "SageMakerOutput": answer}),
    }
}

/// The chosen columns of a row, written as they were.
fn columns(row: &[u8], path: &Path) -> Result<Vec<u8>, String> {
    let cells = cells(row);
    let chosen: Vec<&[u8]> = path.columns(cells.len())?.into_iter().map(|at| cells[at]).collect();
    Ok(chosen.join(&b','))
}

/// The cells of a row, with their quotes.
fn cells(row: &[u8]) -> Vec<&[u8]> {
    let (mut cells, mut start, mut is_quoted) = (Vec::new(), 0, false);
    for (at, byte) in row.iter().enumerate() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b',' if !is_quoted => {
                cells.push(&row[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    cells.push(&row[start..]);
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processing(format: Format, input: &str, is_joined: bool, output: &str) -> DataProcessing {
        let (input, output) = (Path::parse(input).unwrap(), Path::parse(output).unwrap());
        DataProcessing { format, is_whole: false, input, is_joined, output }
    }

    fn through(processing: &DataProcessing, records: &[&str], answer: &str) -> Result<String, String> {
        let mut sources = Sources::default();
        records.iter().for_each(|record| sources.push(record.as_bytes()));
        let stored = processing.stored(&sources, answer.as_bytes())?;
        Ok(String::from_utf8(stored).unwrap())
    }

    fn filtered(processing: &DataProcessing, record: &str) -> Result<String, String> {
        processing.filtered(record.as_bytes()).map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn an_id_is_kept_from_the_model_and_stored_with_its_answer() {
        let csv = processing(Format::Csv, "$[1:]", true, "$[0,-1]");
        assert_eq!(filtered(&csv, "7,\"a, b\",0.10").unwrap(), "\"a, b\",0.10");
        assert_eq!(through(&csv, &["7,a,1", "8,b,2"], "0.5\n0.25\n").unwrap(), "7,0.5\n8,0.25\n");
        let whole = processing(Format::Csv, "$[1:]", true, "$");
        assert_eq!(through(&whole, &["7,1.0"], "0.50,x").unwrap(), "7,1.0,0.50,x\n");
    }

    #[test]
    fn json_gets_a_member_or_a_frame() {
        let lines = processing(Format::JsonLines, "$.features", true, "$");
        assert_eq!(filtered(&lines, r#"{"id": 1, "features": [1.5, 2]}"#).unwrap(), "[1.5,2]");
        let joined = through(&lines, &[r#"{"id":1,"z":0}"#, "[3]"], "{\"score\":0.5}\n[1]\n").unwrap();
        let expected = "{\"id\":1,\"z\":0,\"SageMakerOutput\":{\"score\":0.5}}\n{\"SageMakerInput\":[3],\"SageMakerOutput\":[1]}\n";
        assert_eq!(joined, expected);
        let some = processing(Format::JsonLines, "$", true, "$['id','SageMakerOutput']");
        assert_eq!(
            through(&some, &[r#"{"x":1,"id":2}"#], "3").unwrap(),
            "{\"id\":2,\"SageMakerOutput\":3}\n"
        );
    }

    #[test]
    fn an_object_that_is_one_document_is_joined_as_one() {
        let mut json = processing(Format::Json, "$.instances", true, "$.SageMakerOutput.predictions");
        json.is_whole = true;
        assert_eq!(filtered(&json, "{\"instances\":\n[1]}").unwrap(), "[1]");
        assert_eq!(through(&json, &["{\"instances\":\n[1]}"], "{\"predictions\":\n[2]}").unwrap(), "[2]");
        let mut rows = processing(Format::Csv, "$[1]", true, "$");
        rows.is_whole = true;
        assert_eq!(filtered(&rows, "a,1\nb,2\n").unwrap(), "1\n2");
        assert_eq!(through(&rows, &["a,1\nb,2\n"], "3\n4").unwrap(), "a,1,3\nb,2,4\n");
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let csv = processing(Format::Csv, "$[5]", true, "$[0,9]");
        assert!(filtered(&csv, "1,2").unwrap_err().contains("InputFilter cannot be applied"));
        assert!(
            through(&csv, &["1", "2"], "3")
                .unwrap_err()
                .contains("2 records were sent, and 1 lines came back")
        );
        assert!(through(&csv, &["1"], "3").unwrap_err().contains("OutputFilter"));
        let lines = processing(Format::JsonLines, "$.a", false, "$.b");
        assert!(filtered(&lines, "{").unwrap_err().contains("is not JSON"));
        assert!(through(&lines, &["{}"], "nonsense").is_err());
        assert_eq!(through(&lines, &["{}"], "{\"b\":1}\n{\"b\":2}").unwrap(), "1\n2\n");
    }
}
