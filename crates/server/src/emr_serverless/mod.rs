//! EMR Serverless: applications as names, whose job runs are processing jobs on a local Spark.

mod applications;
mod job_runs;
mod spark_submit;

use sha2::{Digest, Sha256};

use crate::{Cx, Registry};

/// Kind of an application in the store.
const APPLICATION: &str = "emr-serverless-application";
/// Kind of a job run in the store; its name is its application's, a slash and its own id.
const JOB_RUN: &str = "emr-serverless-job-run";

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    applications::routes(registry);
    job_runs::routes(registry);
}

/// The id of what a request with this token makes: the same for the same token, so that it is made once.
fn id(cx: &Cx, parent: &str, token: &str) -> String {
    const LETTERS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    let text = format!("{}\n{}\n{parent}\n{token}", cx.caller.account, cx.caller.region);
    let letters = Sha256::digest(text).into_iter().take(14).map(|byte| LETTERS[usize::from(byte % 32)]);
    format!("00{}", letters.map(char::from).collect::<String>())
}
