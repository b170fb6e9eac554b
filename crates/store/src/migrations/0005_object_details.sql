ALTER TABLE uploads ADD COLUMN checksum TEXT;

CREATE TABLE bucket_documents (
    bucket TEXT NOT NULL REFERENCES buckets (name),
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (bucket, kind)
);
