//! All points, in one list: what the tests go through.

macro_rules! points {
    ($($(#[doc = $doc:literal])* $point:ident = $name:literal,)*) => {
        /// A place in the code where a write becomes durable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point {
            $($(#[doc = $doc])* $point,)*
        }

        impl Point {
            /// Every point.
            pub const ALL: [Point; [$($name),*].len()] = [$(Point::$point),*];

            /// Its name for tests, which is also the name of a file.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Point::$point => $name,)*
                }
            }
        }
    };
}

points! {
    /// A transaction of the database begins.
    DatabaseBegin = "database-begin",
    /// All writes of a transaction are made, and it is to be committed.
    DatabaseCommit = "database-commit",
    /// A transaction is committed, and nobody has been told. Cannot fail.
    DatabaseCommitted = "database-committed",
    /// The schema is brought up to date.
    DatabaseMigrate = "database-migrate",

    /// The folder of a bucket is there, its row is not.
    BucketRow = "bucket-row",
    /// The row of a bucket is gone, its folder is not. Cannot fail.
    BucketRemove = "bucket-remove",
    /// The file of a new object, part or join is made.
    ObjectCreate = "object-create",
    /// Bytes are written to it. May be short.
    ObjectWrite = "object-write",
    /// Parts are joined to an object. May be short.
    ObjectJoin = "object-join",
    /// The file is whole and is forced to the disk.
    ObjectSync = "object-sync",
    /// The file is renamed to its place.
    ObjectRename = "object-rename",
    /// It has its place, or a bucket its folder; the folder above is forced to the disk.
    ObjectFolderSync = "object-folder-sync",
    /// The file is in its place and durable; its row is written next. Cannot fail.
    ObjectRow = "object-row",
    /// The row names the new version; the one before it and the parts are still there. Cannot fail.
    ObjectReplaced = "object-replaced",
    /// The rows of deleted objects are gone, their files are not. Cannot fail.
    ObjectRemove = "object-remove",
    /// A part is durable; its row is written next. Cannot fail.
    PartRow = "part-row",
    /// An upload is given up; the files of its parts are still there. Cannot fail.
    UploadRemove = "upload-remove",
    /// A remote bucket has acknowledged a write, a part or a deletion; what is kept of it here is written next. Cannot fail.
    RemoteWritten = "remote-written",
    /// An object becomes a file of a channel.
    ObjectExport = "object-export",

    /// Events are appended to a log. May be short.
    LogAppend = "log-append",
    /// Events that a client put are brought to the disk.
    LogAppendSync = "log-append-sync",
    /// A group or stream is deleted; its files are still there. Cannot fail.
    LogRemove = "log-remove",
    /// Events that are older than their group keeps them are to be removed.
    LogTrim = "log-trim",

    /// A journal of metrics is made.
    MetricJournalCreate = "metric-journal-create",
    /// Samples are written to the journal. May be short.
    MetricJournalWrite = "metric-journal-write",
    /// They are forced to the disk.
    MetricJournalSync = "metric-journal-sync",
    /// The name of a journal or segment, or that one is gone, is forced to the disk.
    MetricFolderSync = "metric-folder-sync",
    /// A torn end of a journal is cut off.
    MetricJournalCut = "metric-journal-cut",
    /// A segment is whole and is forced to the disk.
    MetricSegmentSync = "metric-segment-sync",
    /// A segment gets its name.
    MetricSegmentRename = "metric-segment-rename",
    /// All segments of a journal are there; it is removed.
    MetricJournalRemove = "metric-journal-remove",
    /// A merged segment is there, and so are those that it replaces. Cannot fail.
    MetricMerged = "metric-merged",

    /// The server writes down what a supervisor is to run.
    WorkloadAssignment = "workload-assignment",
    /// The server writes down the task of a sandbox that waits for one.
    WorkloadTask = "workload-task",
    /// The server lets a held workload go.
    WorkloadGo = "workload-go",
    /// The assignment is there; the supervisor is started.
    SupervisorStart = "supervisor-start",
    /// The supervisor runs; the server has not heard of it. Cannot fail.
    SupervisorStarted = "supervisor-started",
    /// A supervisor writes down that it has begun.
    WorkloadAttempt = "workload-attempt",
    /// That is forced to the disk.
    WorkloadAttemptSync = "workload-attempt-sync",
    /// The names in a workload's directory are forced to the disk.
    WorkloadFolderSync = "workload-folder-sync",
    /// A supervisor writes down which process the job is.
    WorkloadRunning = "workload-running",
    /// A supervisor writes down how the job is kept in.
    WorkloadContainment = "workload-containment",
    /// A supervisor writes down the job's control group.
    WorkloadControlGroup = "workload-control-group",
    /// The wish to end a workload is written down.
    WorkloadEndRequest = "workload-end-request",
    /// The report of a workload's end is written.
    WorkloadExit = "workload-exit",
    /// The report is there, the supervisor still holds its lock. Cannot fail.
    WorkloadExitWritten = "workload-exit-written",
    /// A workload's directory is put out of sight; it is removed.
    WorkloadRemove = "workload-remove",
    /// A job's output goes to its log. May be short.
    JobLogWrite = "job-log-write",
    /// The log of an ended job is forced to the disk.
    JobLogSync = "job-log-sync",
    /// A sample of use is written. May be short.
    UsageWrite = "usage-write",
    /// The samples of use begin a new file.
    UsageRotate = "usage-rotate",
    /// It is noted that there may be a container.
    ContainerNote = "container-note",
    /// An environment is built; its mark is written.
    EnvironmentMark = "environment-mark",
    /// The mark is whole; it gets its name.
    EnvironmentMarked = "environment-marked",
    /// The scripts that jobs share are written; their folder gets its name.
    EnvironmentScripts = "environment-scripts",
    /// An environment that nobody uses has lost its mark; its files are removed. Cannot fail.
    EnvironmentRemove = "environment-remove",

    /// A job is to be restored its checkpoints.
    CheckpointRestore = "checkpoint-restore",
    /// A file of a running job is stored, and that is not noted. Cannot fail.
    CheckpointStored = "checkpoint-stored",
    /// A job's outputs are packed; they are to be stored.
    OutputPacked = "output-packed",
    /// A job's outputs are stored; its record does not say so. Cannot fail.
    OutputStored = "output-stored",
    /// The list of a transform job's objects is whole; it gets its name.
    TransformList = "transform-list",
    /// The output of an object grows. May be short.
    TransformWrite = "transform-write",
    /// What has grown is on the disk; the journal is to say so.
    TransformCommit = "transform-commit",
    /// The output of an object is stored; the job does not know. Cannot fail.
    TransformStored = "transform-stored",
    /// What became of an object is to be written down.
    TransformOutcome = "transform-outcome",

    /// The answer or failure of an asynchronous request is an object; the request is still in its line. Cannot fail.
    AsyncStored = "async-stored",
    /// A job's end is known, and is to be recorded.
    JobFinish = "job-finish",
    /// A job's end is recorded; its folders are still there. Cannot fail.
    JobCleanUp = "job-clean-up",
    /// Values from a log are stored; the place in the log is not noted.
    CurveNoted = "curve-noted",

    /// The requests of an endpoint or inference component go where the next step of its deployment has them; the step is not written
    /// down. Cannot fail.
    DeploymentMoved = "deployment-moved",

    /// The spool of an endpoint's capture is made; what it is for is written down.
    CaptureBegin = "capture-begin",
    /// Captured invocations are written to the spool. May be short.
    CaptureWrite = "capture-write",
    /// They are forced to the disk.
    CaptureSync = "capture-sync",
    /// Captured data is stored; the spool still has it. Cannot fail.
    CaptureStored = "capture-stored",

    /// A private file of the data directory is forced to the disk.
    PrivateFileSync = "private-file-sync",
    /// It gets its name.
    PrivateFileRename = "private-file-rename",
    /// A file of the model host gets its name.
    ModelHostFile = "model-host-file",
    /// The unpacked model of a serverless variant gets its name.
    UnpackedModel = "unpacked-model",
    /// A file of the import hook gets its name.
    HookFile = "hook-file",
    /// The disk is probed before a job.
    InfraCheckSync = "infra-check-sync",
}
