-- Days that the events of a group are kept; without a number, as long as the group.
ALTER TABLE log_groups ADD COLUMN retention_days BIGINT;

-- For what removes old rows.
CREATE INDEX events_by_time ON events (at, sequence);
CREATE INDEX pipeline_requests_by_subject ON pipeline_requests (account, region, subject);
CREATE INDEX pipeline_requests_by_answer ON pipeline_requests (account, region, answer);
CREATE INDEX pipeline_callbacks_by_execution ON pipeline_callbacks (account, region, execution);
