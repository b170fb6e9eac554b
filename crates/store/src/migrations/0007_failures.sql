CREATE TABLE failures (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    kind TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    at BIGINT NOT NULL,
    name TEXT NOT NULL,
    cause TEXT NOT NULL,
    PRIMARY KEY (account, region, kind, fingerprint, at, name)
);
