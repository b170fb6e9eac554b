CREATE TABLE async_requests (
    sequence INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    inference_id TEXT,
    digest TEXT NOT NULL,
    document TEXT NOT NULL,
    body BLOB,
    state TEXT NOT NULL,
    owner TEXT,
    losses BIGINT NOT NULL,
    accepted_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    started_at BIGINT,
    ended_at BIGINT
);
CREATE INDEX async_requests_by_state ON async_requests (account, region, endpoint, state, sequence);
CREATE INDEX async_requests_by_expiry ON async_requests (account, region, endpoint, state, expires_at);
CREATE INDEX async_requests_by_inference_id ON async_requests (account, region, endpoint, inference_id);
CREATE INDEX async_requests_by_end ON async_requests (ended_at);
