-- What happened to alarms; it outlives them.
CREATE TABLE alarm_history (
    sequence INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    alarm TEXT NOT NULL,
    alarm_type TEXT NOT NULL,
    kind TEXT NOT NULL,
    summary TEXT NOT NULL,
    data TEXT NOT NULL,
    at BIGINT NOT NULL
);
CREATE INDEX alarm_history_by_alarm ON alarm_history (account, region, alarm, at, sequence);
CREATE INDEX alarm_history_by_time ON alarm_history (account, region, at, sequence);
CREATE INDEX alarm_history_by_age ON alarm_history (at);

-- One row: when alarms were last known to be looked at. While nobody looked, nobody could put metrics either.
CREATE TABLE alarm_watch (
    id INTEGER PRIMARY KEY,
    alive_at BIGINT NOT NULL
);
