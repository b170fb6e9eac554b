CREATE TABLE buckets (
    name TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE objects (
    bucket TEXT NOT NULL REFERENCES buckets (name),
    key BLOB NOT NULL,
    path TEXT NOT NULL,
    size BIGINT NOT NULL,
    etag TEXT NOT NULL,
    parts BIGINT,
    attributes TEXT NOT NULL,
    modified_at BIGINT NOT NULL,
    PRIMARY KEY (bucket, key)
);

CREATE INDEX objects_by_path ON objects (path);

CREATE TABLE uploads (
    id TEXT PRIMARY KEY,
    bucket TEXT NOT NULL REFERENCES buckets (name),
    key BLOB NOT NULL,
    attributes TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX uploads_by_key ON uploads (bucket, key, id);

CREATE TABLE upload_parts (
    upload TEXT NOT NULL REFERENCES uploads (id),
    number BIGINT NOT NULL,
    path TEXT NOT NULL,
    size BIGINT NOT NULL,
    etag TEXT NOT NULL,
    checksums TEXT NOT NULL,
    modified_at BIGINT NOT NULL,
    PRIMARY KEY (upload, number)
);
