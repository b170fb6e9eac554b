CREATE TABLE queues (
    id INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    arn TEXT NOT NULL,
    settings TEXT NOT NULL,
    last_sequence BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    modified_at BIGINT NOT NULL,
    purged_at BIGINT,
    UNIQUE (account, region, name)
);
CREATE UNIQUE INDEX queues_by_arn ON queues (arn);

CREATE TABLE queue_messages (
    queue BIGINT NOT NULL REFERENCES queues (id),
    sequence BIGINT NOT NULL,
    id TEXT NOT NULL,
    body TEXT NOT NULL,
    attributes TEXT NOT NULL,
    message_group TEXT,
    deduplication_id TEXT,
    sender TEXT NOT NULL,
    sent_at BIGINT NOT NULL,
    visible_at BIGINT NOT NULL,
    receipt TEXT,
    received_at BIGINT,
    first_received_at BIGINT,
    receive_count BIGINT NOT NULL,
    dead_letter_source TEXT,
    PRIMARY KEY (queue, sequence)
);
CREATE INDEX queue_messages_by_visibility ON queue_messages (queue, visible_at);
CREATE INDEX queue_messages_by_age ON queue_messages (queue, sent_at);
CREATE INDEX queue_messages_by_group ON queue_messages (queue, message_group, visible_at);

CREATE TABLE queue_deduplications (
    queue BIGINT NOT NULL REFERENCES queues (id),
    message_group TEXT NOT NULL,
    deduplication_id TEXT NOT NULL,
    message TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (queue, message_group, deduplication_id)
);
CREATE INDEX queue_deduplications_by_end ON queue_deduplications (queue, expires_at);

CREATE TABLE function_packages (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (account, region, name)
);

CREATE TABLE deliveries (
    id TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    origin TEXT NOT NULL,
    target TEXT NOT NULL,
    payload TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    most_attempts BIGINT NOT NULL,
    enqueued_at BIGINT NOT NULL,
    next_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    dead_letter TEXT
);
CREATE INDEX deliveries_by_time ON deliveries (next_at);

CREATE TABLE timers (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    tick_at BIGINT NOT NULL,
    fires_at BIGINT NOT NULL,
    PRIMARY KEY (account, region, kind, name)
);
CREATE INDEX timers_by_time ON timers (fires_at);

CREATE TABLE event_cursors (
    name TEXT PRIMARY KEY,
    position BIGINT NOT NULL
);
