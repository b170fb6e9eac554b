-- Pairs of resources of one account and region, by name. A relation says what the kinds of both are.
CREATE TABLE resource_links (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    relation TEXT NOT NULL,
    source TEXT NOT NULL,
    target TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (account, region, relation, source, target)
);
CREATE INDEX resource_links_by_target ON resource_links (account, region, relation, target, source);

-- Edges of the graph of what came from what, by ARN. The types are those of the ends when the edge was made.
CREATE TABLE lineage_edges (
    source TEXT NOT NULL,
    destination TEXT NOT NULL,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    kind TEXT,
    source_type TEXT NOT NULL,
    destination_type TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (source, destination)
);
CREATE INDEX lineage_edges_by_destination ON lineage_edges (destination, source);
CREATE INDEX lineage_edges_by_age ON lineage_edges (account, region, created_at, source, destination);

-- Which vertices stand for a URI.
CREATE TABLE lineage_uris (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    uri TEXT NOT NULL,
    arn TEXT NOT NULL,
    PRIMARY KEY (account, region, uri, arn)
);
CREATE INDEX lineage_uris_by_arn ON lineage_uris (arn);

-- Points of metrics that clients log. A series holds its statistics and its newest points; older ones are in blocks.
CREATE TABLE point_series (
    id INTEGER PRIMARY KEY,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    count BIGINT NOT NULL,
    minimum DOUBLE PRECISION NOT NULL,
    maximum DOUBLE PRECISION NOT NULL,
    mean DOUBLE PRECISION NOT NULL,
    squares DOUBLE PRECISION NOT NULL,
    last DOUBLE PRECISION NOT NULL,
    last_at BIGINT NOT NULL,
    blocks BIGINT NOT NULL,
    newest BLOB NOT NULL,
    UNIQUE (owner, name)
);

CREATE TABLE point_blocks (
    series BIGINT NOT NULL,
    position BIGINT NOT NULL,
    points BLOB NOT NULL,
    PRIMARY KEY (series, position)
);

CREATE INDEX tags_by_value ON tags (key, value, arn);
