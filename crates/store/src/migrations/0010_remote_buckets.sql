CREATE TABLE bucket_remotes (
    bucket TEXT PRIMARY KEY REFERENCES buckets (name),
    place TEXT NOT NULL,
    credentials BLOB NOT NULL
);

ALTER TABLE uploads ADD COLUMN remote_id TEXT;

CREATE TABLE remote_transfers (
    remote_id TEXT PRIMARY KEY,
    bucket TEXT NOT NULL REFERENCES buckets (name),
    key BLOB NOT NULL
);
