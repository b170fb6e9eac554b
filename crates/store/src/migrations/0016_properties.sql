-- What users name themselves in a resource, and what executions of pipelines belong to: one row for each property. A row without text and number
-- has a value that is neither; a text that is a number has both. Long texts are cut.
CREATE TABLE properties (
    arn TEXT NOT NULL,
    path TEXT NOT NULL,
    text TEXT,
    number DOUBLE PRECISION,
    PRIMARY KEY (arn, path)
);
CREATE INDEX properties_by_text ON properties (path, text, number, arn);
CREATE INDEX properties_by_number ON properties (path, number, arn);
CREATE INDEX point_series_by_name ON point_series (name, last, maximum, minimum, mean, count, owner);

-- Texts of what is there already get no number: that only makes a search by them look at more rows.
INSERT INTO properties (arn, path, text, number)
SELECT resources.arn, 'Parameters.' || entry.key, substr(json_extract(entry.value, '$.StringValue'), 1, 200),
       json_extract(entry.value, '$.NumberValue')
FROM resources, json_each(resources.spec, '$.Parameters') entry
WHERE resources.kind = 'experiment-trial-component' AND entry.key IS NOT NULL AND entry.type = 'object';
INSERT INTO properties (arn, path, text, number)
SELECT resources.arn, 'HyperParameters.' || entry.key, substr(entry.value, 1, 200), NULL
FROM resources, json_each(resources.spec, '$.HyperParameters') entry
WHERE resources.kind = 'training-job' AND entry.key IS NOT NULL;
INSERT INTO properties (arn, path, text, number)
SELECT resources.arn, 'Metrics.' || json_extract(entry.value, '$.name'), NULL, json_extract(entry.value, '$.value')
FROM resources, json_each(resources.document, '$.final_metrics') entry
WHERE resources.kind = 'training-job' AND entry.type = 'object' AND json_extract(entry.value, '$.name') IS NOT NULL
ON CONFLICT (arn, path) DO NOTHING;
INSERT INTO properties (arn, path, text, number)
SELECT arn, 'PipelineArn', substr(json_extract(spec, '$.pipeline_arn'), 1, 200), NULL
FROM resources WHERE kind = 'pipeline-execution'
UNION ALL
SELECT arn, 'PipelineExecutionDisplayName', substr(json_extract(spec, '$.display_name'), 1, 200), NULL
FROM resources WHERE kind = 'pipeline-execution';
