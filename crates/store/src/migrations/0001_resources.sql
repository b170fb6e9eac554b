CREATE TABLE resources (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    arn TEXT NOT NULL,
    status TEXT NOT NULL,
    spec TEXT NOT NULL,
    document TEXT NOT NULL,
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    modified_at BIGINT NOT NULL,
    PRIMARY KEY (account, region, kind, name)
);
CREATE UNIQUE INDEX resources_by_arn ON resources (arn);
CREATE INDEX resources_by_created ON resources (account, region, kind, created_at, name);
CREATE INDEX resources_by_modified ON resources (account, region, kind, modified_at, name);
CREATE INDEX resources_by_status ON resources (account, region, kind, status, name);

CREATE TABLE tags (
    arn TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (arn, key)
);

CREATE TABLE events (
    sequence INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    what TEXT NOT NULL,
    detail TEXT NOT NULL,
    at BIGINT NOT NULL
);
CREATE INDEX events_by_resource ON events (account, region, kind, name, sequence);

CREATE TABLE work (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    stop_wanted BIGINT NOT NULL,
    lease_owner TEXT,
    enqueued_at BIGINT NOT NULL,
    PRIMARY KEY (account, region, kind, name)
);
CREATE INDEX work_by_age ON work (kind, enqueued_at);
