-- What was done, and what was not, to the capacity of something that scales by itself. A row without `ended_at` is still going on.
CREATE TABLE scaling_activities (
    sequence INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    resource TEXT NOT NULL,
    dimension TEXT NOT NULL,
    description TEXT NOT NULL,
    cause TEXT NOT NULL,
    status TEXT NOT NULL,
    message TEXT,
    details TEXT,
    refusals TEXT,
    capacity_before BIGINT,
    capacity_after BIGINT,
    started_at BIGINT NOT NULL,
    ended_at BIGINT
);
CREATE INDEX scaling_activities_by_resource ON scaling_activities (account, region, resource, dimension, sequence);
CREATE INDEX scaling_activities_by_time ON scaling_activities (started_at);
CREATE INDEX scaling_activities_open ON scaling_activities (sequence) WHERE ended_at IS NULL;
