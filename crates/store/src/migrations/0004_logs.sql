CREATE TABLE log_groups (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (account, region, name)
);

-- Events are in files. disorder_ms bounds how far an event may be older than one before it in the file;
-- oldest_at and newest_at keep the extremes of what was written out of order.
CREATE TABLE log_streams (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    group_name TEXT NOT NULL,
    name TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    disorder_ms BIGINT NOT NULL,
    oldest_at BIGINT,
    newest_at BIGINT,
    PRIMARY KEY (account, region, group_name, name),
    FOREIGN KEY (account, region, group_name) REFERENCES log_groups (account, region, name) ON DELETE CASCADE
);
