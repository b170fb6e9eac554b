CREATE TABLE warm_pools (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    matching TEXT NOT NULL,
    available_at BIGINT,
    ends_at BIGINT,
    ended_at BIGINT,
    reused_by TEXT,
    PRIMARY KEY (account, region, kind, name)
);
CREATE INDEX warm_pools_by_status ON warm_pools (status, account, region, kind);
