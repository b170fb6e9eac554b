-- Samples are in files; a series gets its number here. last_at is the time of its newest sample in seconds since 1970, and may
-- be some minutes behind.
CREATE TABLE metric_series (
    id INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    dimensions TEXT NOT NULL,
    unit TEXT NOT NULL,
    last_at BIGINT NOT NULL,
    UNIQUE (account, region, namespace, name, dimensions, unit)
);
CREATE INDEX metric_series_by_age ON metric_series (last_at);

-- How far the logs of a training job have been read for metrics. The row without a stream stands for the job itself: it is
-- there until all of its logs have been read.
CREATE TABLE metric_cursors (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    job TEXT NOT NULL,
    stream TEXT NOT NULL,
    cursor TEXT NOT NULL,
    PRIMARY KEY (account, region, job, stream)
);
