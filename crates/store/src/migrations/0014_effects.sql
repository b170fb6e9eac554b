CREATE TABLE effects (
    id TEXT PRIMARY KEY,
    instance TEXT,
    ends_at BIGINT,
    answer TEXT
);
