-- What lists leave out by is in the indexes of their order: a row is read only when it is on the page.
DROP INDEX resources_by_created;
DROP INDEX resources_by_modified;
CREATE INDEX resources_by_created ON resources (account, region, kind, created_at, name, modified_at, status, arn);
CREATE INDEX resources_by_modified ON resources (account, region, kind, modified_at, name, created_at, status, arn);
