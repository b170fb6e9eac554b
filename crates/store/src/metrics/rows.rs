//! The rows of series: their numbers, and what ListMetrics asks for.

use rusqlite::types::Value as SqlValue;
use rusqlite::{params, params_from_iter};

use super::head::SeriesId;
use super::sample::SeriesKey;
use crate::database::Session;
use crate::error::Result;

/// A metric as a list shows it: all its units together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Metric {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Name and value of each dimension, sorted by name.
    pub dimensions: Vec<(String, String)>,
}

/// Which metrics to list.
#[derive(Debug, Clone, Default)]
pub struct MetricList {
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only of this name.
    pub name: Option<String>,
    /// Only those that have all of these dimensions, with the value where there is one.
    pub dimensions: Vec<(String, Option<String>)>,
    /// Only those with a sample of this second or later.
    pub active_since_seconds: i64,
    /// Only those after this one.
    pub after: Option<Metric>,
    /// Most metrics.
    pub limit: usize,
}

fn dimensions_text(dimensions: &[(String, String)]) -> String {
    serde_json::to_string(dimensions).expect("pairs of texts always serialize")
}

impl Session<'_> {
    /// Number of a series, which is added if it is new; its newest sample is at least of `last_at`.
    pub(super) fn ensure_series(&self, key: &SeriesKey, last_at: i64) -> Result<SeriesId> {
        let id = self
            .connection
            .prepare_cached(
                "INSERT INTO metric_series (account, region, namespace, name, dimensions, unit, last_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (account, region, namespace, name, dimensions, unit) DO UPDATE SET last_at =
                 CASE WHEN excluded.last_at > metric_series.last_at THEN excluded.last_at ELSE metric_series.last_at END
                 RETURNING id",
            )?
            .query_row(
                params![
                    key.account,
                    key.region,
                    key.namespace,
                    key.name,
                    dimensions_text(&key.dimensions),
                    key.unit,
                    last_at
                ],
                |row| row.get(0),
            )?;
        Ok(id)
    }

    /// Units and numbers of the series of a metric.
    pub(super) fn series_of(
        &self,
        account: &str,
        region: &str,
        metric: &Metric,
    ) -> Result<Vec<(String, SeriesId)>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT unit, id FROM metric_series
             WHERE account = ?1 AND region = ?2 AND namespace = ?3 AND name = ?4 AND dimensions = ?5 ORDER BY unit",
        )?;
        let dimensions = dimensions_text(&metric.dimensions);
        let rows = statement
            .query_map(params![account, region, metric.namespace, metric.name, dimensions], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What names a series; `None` for one that is gone.
    pub(super) fn series_key(&self, id: SeriesId) -> Result<Option<SeriesKey>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT account, region, namespace, name, dimensions, unit FROM metric_series WHERE id = ?1",
        )?;
        let mut rows = statement.query(params![id])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        Ok(Some(SeriesKey {
            account: row.get(0)?,
            region: row.get(1)?,
            namespace: row.get(2)?,
            name: row.get(3)?,
            dimensions: serde_json::from_str(&row.get::<_, String>(4)?)?,
            unit: row.get(5)?,
        }))
    }

    /// Lists metrics by namespace, name and dimensions.
    pub(super) fn list_metrics(&self, account: &str, region: &str, list: &MetricList) -> Result<Vec<Metric>> {
        let mut sql = String::from(
            "SELECT namespace, name, dimensions FROM metric_series WHERE account = ? AND region = ? AND last_at >= ?",
        );
        let mut values: Vec<SqlValue> =
            vec![account.to_owned().into(), region.to_owned().into(), list.active_since_seconds.into()];
        for (column, wanted) in [(" AND namespace = ?", &list.namespace), (" AND name = ?", &list.name)] {
            if let Some(wanted) = wanted {
                sql.push_str(column);
                values.push(wanted.clone().into());
            }
        }
        if let Some(after) = &list.after {
            sql.push_str(" AND (namespace, name, dimensions) > (?, ?, ?)");
            values.push(after.namespace.clone().into());
            values.push(after.name.clone().into());
            values.push(dimensions_text(&after.dimensions).into());
        }
        sql.push_str(" GROUP BY namespace, name, dimensions ORDER BY namespace, name, dimensions");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut metrics = Vec::new();
        // Rows come one by one, so that a page ends where it is full.
        while let Some(row) = rows.next()? {
            if metrics.len() == list.limit {
                break;
            }
            let dimensions: Vec<(String, String)> = serde_json::from_str(&row.get::<_, String>(2)?)?;
            let has = |(name, value): &(String, Option<String>)| {
                dimensions
                    .iter()
                    .any(|(own, at)| own == name && value.as_ref().is_none_or(|value| value == at))
            };
            if list.dimensions.iter().all(has) {
                metrics.push(Metric { namespace: row.get(0)?, name: row.get(1)?, dimensions });
            }
        }
        Ok(metrics)
    }

    /// Removes series without a sample since `before_seconds`; returns how many.
    pub(super) fn delete_old_series(&self, before_seconds: i64) -> Result<usize> {
        let deleted = self
            .connection
            .prepare_cached("DELETE FROM metric_series WHERE last_at < ?1")?
            .execute(params![before_seconds])?;
        Ok(deleted)
    }

    /// How many series there are.
    pub(super) fn count_series(&self) -> Result<i64> {
        Ok(self.connection.query_row("SELECT count(*) FROM metric_series", [], |row| row.get(0))?)
    }
}
