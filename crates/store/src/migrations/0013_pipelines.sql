CREATE TABLE pipeline_versions (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    version BIGINT NOT NULL,
    definition TEXT NOT NULL,
    document TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (account, region, pipeline, version)
);

CREATE TABLE pipeline_executions (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    execution TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (account, region, execution)
);
CREATE INDEX pipeline_executions_by_created
    ON pipeline_executions (account, region, pipeline, created_at, execution);

CREATE TABLE pipeline_steps (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    execution TEXT NOT NULL,
    step TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (account, region, execution, step)
);

CREATE TABLE pipeline_callbacks (
    token TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    execution TEXT NOT NULL,
    step TEXT NOT NULL,
    answer TEXT
);

CREATE TABLE pipeline_results (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    step TEXT NOT NULL,
    execution TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    facts TEXT NOT NULL,
    ended_at BIGINT NOT NULL,
    PRIMARY KEY (account, region, pipeline, step, execution)
);
CREATE INDEX pipeline_results_by_age ON pipeline_results (account, region, pipeline, step, ended_at);

CREATE TABLE pipeline_requests (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    operation TEXT NOT NULL,
    token TEXT NOT NULL,
    subject TEXT NOT NULL,
    answer TEXT NOT NULL,
    PRIMARY KEY (account, region, operation, token)
);
