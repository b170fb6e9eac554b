CREATE TABLE encryption_keys (
    id TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    state TEXT NOT NULL,
    is_managed BOOLEAN NOT NULL,
    description TEXT NOT NULL,
    policy TEXT NOT NULL,
    material BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    deletion_at BIGINT
);
CREATE INDEX encryption_keys_by_account ON encryption_keys (account, region, id);

CREATE TABLE key_aliases (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    key TEXT NOT NULL REFERENCES encryption_keys (id),
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (account, region, name)
);
CREATE INDEX key_aliases_by_key ON key_aliases (key);

CREATE TABLE bucket_folders (
    bucket TEXT PRIMARY KEY REFERENCES buckets (name),
    path TEXT NOT NULL,
    is_read_only BOOLEAN NOT NULL
);

CREATE TABLE folder_files (
    bucket TEXT NOT NULL REFERENCES buckets (name),
    key BLOB NOT NULL,
    identity TEXT NOT NULL,
    etag TEXT NOT NULL,
    parts BIGINT,
    attributes TEXT NOT NULL,
    PRIMARY KEY (bucket, key)
);
