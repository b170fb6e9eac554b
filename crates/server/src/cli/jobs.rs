//! `modelyard jobs`: training, processing and transform jobs, why they failed, and a look inside.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::client::Client;
use super::job_kind::JobKind;
use super::output::{self, Format};
use super::{shell, why};

/// Flags of `modelyard jobs`.
#[derive(clap::Args)]
pub struct Flags {
    #[command(subcommand)]
    command: Option<Command>,
    /// Table for people, or JSON as the API answers it
    #[arg(long, short, value_enum, default_value_t, global = true)]
    output: Format,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List training, processing and transform jobs, newest first (what `modelyard jobs` does by itself)
    List {
        /// Only jobs in this status, for example InProgress or Failed
        #[arg(long)]
        status: Option<String>,
        /// Only jobs whose name contains this
        #[arg(long)]
        name: Option<String>,
    },
    /// Show one job: its phases, its results, and, when it failed, the whole failure card
    Show(Named),
    /// Say why a job failed and what to do about it, or what it waits for or does
    Why(Named),
    /// Open a shell in the sandbox of a running job, on the server's machine; a training job needs RemoteDebugConfig
    Shell(shell::Flags),
    /// Interrupt a spot job (EnableManagedSpotTraining) as the cloud does: it is ended like a stopped one, and starts again
    Interrupt {
        /// Name of the job
        name: String,
    },
    /// Stop a job: SIGTERM, a grace period, SIGKILL
    Stop(Named),
}

/// One job.
#[derive(clap::Args)]
struct Named {
    /// Name of the job
    name: String,
    /// Its kind, where jobs of several kinds have the name
    #[arg(long, value_enum)]
    kind: Option<JobKind>,
}

/// Runs the command.
///
/// # Errors
/// The server's error, or why it was not reached.
pub fn jobs(data_dir: &Path, flags: Flags) -> Result<ExitCode, String> {
    let command = flags.command.unwrap_or(Command::List { status: None, name: None });
    if let Command::Shell(flags) = &command {
        return shell::open(data_dir, flags);
    }
    let client = Client::open(data_dir)?;
    super::block_on(async {
        match command {
            Command::List { status, name } => list(&client, status, name, flags.output).await,
            Command::Show(Named { name, kind }) => show(&client, &name, kind, flags.output).await,
            Command::Why(Named { name, kind }) => why::why(&client, &name, kind, flags.output).await,
            Command::Stop(Named { name, kind }) => {
                let (kind, _) = JobKind::find(&client, &name, kind).await?;
                kind.call(&client, "Stop", &name).await?;
                output::line(&format!("{name} is stopping"));
                Ok(())
            }
            Command::Interrupt { name } => {
                client.call("Modelyard.InterruptTrainingJob", &json!({"TrainingJobName": name})).await?;
                output::line(&format!("{name} is interrupted; it starts again when its program has ended"));
                Ok(())
            }
            Command::Shell(_) => Ok(()),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn list(
    client: &Client,
    status: Option<String>,
    name: Option<String>,
    format: Format,
) -> Result<(), String> {
    let mut input = json!({"MaxResults": 100});
    if let Some(status) = status {
        input["StatusEquals"] = status.into();
    }
    if let Some(name) = name {
        input["NameContains"] = name.into();
    }
    let mut jobs = Vec::new();
    for kind in JobKind::ALL {
        let target = format!("SageMaker.List{}s", kind.member(""));
        let found = client.list(&target, input.clone(), &kind.member("Summaries")).await?;
        jobs.extend(found.into_iter().map(|job| (kind, job)));
    }
    let created_at = |job: &Value| job["CreationTime"].as_f64().unwrap_or_default();
    jobs.sort_by(|(_, one), (_, other)| created_at(other).total_cmp(&created_at(one)));
    if format == Format::Json {
        output::json(&jobs.into_iter().map(|(_, job)| job).collect());
        return Ok(());
    }
    let rows: Vec<Vec<String>> = jobs
        .iter()
        .map(|(kind, job)| {
            vec![
                text(&job[kind.member("Name")]),
                kind.word().to_owned(),
                text(&job[kind.member("Status")]),
                text(&job["SecondaryStatus"]),
                output::time(job["CreationTime"].as_f64()),
                duration(job["CreationTime"].as_f64(), job[kind.end_time()].as_f64()),
            ]
        })
        .collect();
    output::table(&["NAME", "KIND", "STATUS", "PHASE", "CREATED (UTC)", "TOOK"], &rows);
    Ok(())
}

async fn show(client: &Client, name: &str, kind: Option<JobKind>, format: Format) -> Result<(), String> {
    let (kind, mut job) = JobKind::find(client, name, kind).await?;
    let run = super::run_facts::fetch(client, name, kind).await?;
    let answer = why::fetch(client, name, Some(kind)).await?;
    if format == Format::Json {
        if let Some(card) = &answer.card {
            job["FailureCard"] = json!(card);
        }
        job["Hosts"] = json!(run);
        job["Explanation"] = json!(answer);
        if let Some(explanation) = job["Explanation"].as_object_mut() {
            // It stands beside it.
            explanation.remove("Card");
        }
        output::json(&job);
        return Ok(());
    }
    let (image, ran_for) = match kind {
        JobKind::Training => (
            &job["AlgorithmSpecification"]["TrainingImage"],
            job["TrainingTimeInSeconds"].as_i64().map(|seconds| format!("{seconds} s")).unwrap_or_default(),
        ),
        JobKind::Processing => (
            &job["AppSpecification"]["ImageUri"],
            duration(job["ProcessingStartTime"].as_f64(), job["ProcessingEndTime"].as_f64()),
        ),
        JobKind::Transform => {
            (&Value::Null, duration(job["TransformStartTime"].as_f64(), job["TransformEndTime"].as_f64()))
        }
    };
    output::fields(&[
        ("Name", text(&job[kind.member("Name")])),
        ("Status", text(&job[kind.member("Status")])),
        ("Image", text(image)),
        ("Created", output::time(job["CreationTime"].as_f64())),
        (if kind == JobKind::Training { "Trained for" } else { "Ran for" }, ran_for),
        ("Model", text(&job["ModelArtifacts"]["S3ModelArtifacts"]) + &text(&job["ModelName"])),
        ("Message", text(&job["ExitMessage"])),
        ("Experiment", text(&job["ExperimentConfig"]["ExperimentName"])),
        ("Trial", text(&job["ExperimentConfig"]["TrialName"])),
        ("Run", text(&job["ExperimentConfig"]["RunName"])),
    ]);
    let none = Vec::new();
    let outputs = job["ProcessingOutputConfig"]["Outputs"].as_array().unwrap_or(&none);
    if !outputs.is_empty() {
        output::line("\nOutputs:");
    }
    if let Some(uri) = job["TransformOutput"]["S3OutputPath"].as_str() {
        output::line(&format!("\nOutput: {uri}"));
    }
    for one in outputs {
        output::line(&format!("  {:<22} {}", text(&one["OutputName"]), text(&one["S3Output"]["S3Uri"])));
    }
    if answer.card.is_none() {
        output::line(&format!("\n{}", answer.sentence));
    }
    let phases = job["SecondaryStatusTransitions"].as_array().unwrap_or(&none);
    if !phases.is_empty() {
        output::line("\nPhases:");
    }
    for phase in phases {
        let took = duration(phase["StartTime"].as_f64(), phase["EndTime"].as_f64());
        output::line(&format!(
            "  {:<22} {took:<9} {}",
            text(&phase["Status"]),
            // The reason of a failure stands below, whole.
            text(&phase["StatusMessage"]).lines().next().unwrap_or_default()
        ));
    }
    let metrics = job["FinalMetricDataList"].as_array().unwrap_or(&none);
    if !metrics.is_empty() {
        output::line("\nMetrics:");
        for metric in metrics {
            output::line(&format!("  {:<22} {}", text(&metric["MetricName"]), metric["Value"]));
        }
    }
    let several = run.len() > 1;
    for (host, run) in &run {
        if several {
            output::line(&format!("\nHost {host}"));
        }
        super::run_facts::show(run);
    }
    if let Some(card) = &answer.card {
        why::show_card(&answer, card);
    }
    Ok(())
}

/// The text of a JSON string; empty for anything else.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn duration(from: Option<f64>, to: Option<f64>) -> String {
    match (from, to) {
        (Some(from), Some(to)) => format!("{:.1} s", to - from),
        _ => String::new(),
    }
}
