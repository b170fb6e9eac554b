//! Points of the metrics that clients log: series of (time, step, value) with running statistics.
//!
//! A series is one row with its statistics and its newest points; whenever these are enough for a block, they become one. So a
//! put reads and writes one small row for each series, a summary reads no points, and a hundred million points are two million rows.

use rusqlite::{OptionalExtension, params};

use crate::database::Session;
use crate::error::Result;

/// Bytes of a point: time, value, step.
const POINT_BYTES: usize = 20;

/// Points of a block. A block is about as large as the rows of a page may be without spilling over.
const BLOCK_POINTS: usize = 50;

/// Owner of series whose points are still to be removed.
const NOBODY: &str = "";

/// One value of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Milliseconds since 1970.
    pub at: i64,
    /// Iteration, from 0, where the client counts them.
    pub step: Option<i32>,
    /// The value; finite.
    pub value: f64,
}

/// The statistics of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct PointSummary {
    /// Name of the metric.
    pub name: String,
    /// Number of points.
    pub count: i64,
    /// Smallest value.
    pub minimum: f64,
    /// Greatest value.
    pub maximum: f64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation of the population.
    pub deviation: f64,
    /// Value of the newest time.
    pub last: f64,
    /// The newest time, milliseconds since 1970.
    pub last_at: i64,
}

struct Series {
    id: i64,
    count: i64,
    minimum: f64,
    maximum: f64,
    mean: f64,
    squares: f64,
    last: f64,
    last_at: i64,
    blocks: i64,
    newest: Vec<u8>,
}

impl Session<'_> {
    /// Appends points to the series of an owner.
    pub fn put_points(&self, owner: &str, name: &str, points: &[Point]) -> Result<()> {
        let Some(first) = points.first() else { return Ok(()) };
        let found = self.find_point_series(owner, name)?;
        let is_new = found.is_none();
        let mut series = found.unwrap_or(Series {
            id: 0,
            count: 0,
            minimum: first.value,
            maximum: first.value,
            mean: 0.0,
            squares: 0.0,
            last: first.value,
            last_at: first.at,
            blocks: 0,
            newest: Vec::new(),
        });
        if is_new {
            self.connection
                .prepare_cached(
                    "INSERT INTO point_series (owner, name, count, minimum, maximum, mean, squares, last, last_at, blocks, newest)
                     VALUES (?1, ?2, 0, 0, 0, 0, 0, 0, 0, 0, ?3)",
                )?
                .execute(params![owner, name, series.newest])?;
            series.id = self.connection.last_insert_rowid();
        }
        for point in points {
            series.add(point);
            if series.newest.len() >= BLOCK_POINTS * POINT_BYTES {
                self.connection
                    .prepare_cached(
                        "INSERT INTO point_blocks (series, position, points) VALUES (?1, ?2, ?3)",
                    )?
                    .execute(params![series.id, series.blocks, series.newest])?;
                series.blocks += 1;
                series.newest.clear();
            }
        }
        self.connection
            .prepare_cached(
                "UPDATE point_series SET count = ?2, minimum = ?3, maximum = ?4, mean = ?5, squares = ?6, last = ?7,
                    last_at = ?8, blocks = ?9, newest = ?10 WHERE id = ?1",
            )?
            .execute(params![
                series.id,
                series.count,
                series.minimum,
                series.maximum,
                series.mean,
                series.squares,
                series.last,
                series.last_at,
                series.blocks,
                series.newest
            ])?;
        Ok(())
    }

    fn find_point_series(&self, owner: &str, name: &str) -> Result<Option<Series>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT id, count, minimum, maximum, mean, squares, last, last_at, blocks, newest FROM point_series
             WHERE owner = ?1 AND name = ?2",
        )?;
        let found = statement.query_row(params![owner, name], |row| {
            Ok(Series {
                id: row.get(0)?,
                count: row.get(1)?,
                minimum: row.get(2)?,
                maximum: row.get(3)?,
                mean: row.get(4)?,
                squares: row.get(5)?,
                last: row.get(6)?,
                last_at: row.get(7)?,
                blocks: row.get(8)?,
                newest: row.get(9)?,
            })
        });
        Ok(found.optional()?)
    }

    /// Number of series of an owner.
    pub fn count_point_series(&self, owner: &str) -> Result<i64> {
        let mut statement =
            self.connection.prepare_cached("SELECT count(*) FROM point_series WHERE owner = ?1")?;
        Ok(statement.query_row(params![owner], |row| row.get(0))?)
    }

    /// Whether an owner has a series of this name.
    pub fn has_point_series(&self, owner: &str, name: &str) -> Result<bool> {
        let mut statement =
            self.connection.prepare_cached("SELECT 1 FROM point_series WHERE owner = ?1 AND name = ?2")?;
        Ok(statement.exists(params![owner, name])?)
    }

    /// The statistics of all series of an owner, by name.
    pub fn point_summaries(&self, owner: &str) -> Result<Vec<PointSummary>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT name, count, minimum, maximum, mean, squares, last, last_at FROM point_series
             WHERE owner = ?1 ORDER BY name",
        )?;
        let rows = statement.query_map(params![owner], |row| {
            let (count, squares): (i64, f64) = (row.get(1)?, row.get(5)?);
            Ok(PointSummary {
                name: row.get(0)?,
                count,
                minimum: row.get(2)?,
                maximum: row.get(3)?,
                mean: row.get(4)?,
                deviation: (squares / count.max(1) as f64).max(0.0).sqrt(),
                last: row.get(6)?,
                last_at: row.get(7)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Shows `each` the points of a series in the order they were put; whether there is such a series.
    pub fn each_point(&self, owner: &str, name: &str, mut each: impl FnMut(Point)) -> Result<bool> {
        let Some(series) = self.find_point_series(owner, name)? else { return Ok(false) };
        let mut statement = self
            .connection
            .prepare_cached("SELECT points FROM point_blocks WHERE series = ?1 ORDER BY position")?;
        let mut rows = statement.query(params![series.id])?;
        while let Some(row) = rows.next()? {
            let block = row.get_ref(0)?.as_blob().unwrap_or_default();
            block.chunks_exact(POINT_BYTES).for_each(|bytes| each(decode(bytes)));
        }
        series.newest.chunks_exact(POINT_BYTES).for_each(|bytes| each(decode(bytes)));
        Ok(true)
    }

    /// Takes all series from their owner. Their points go with [`Session::purge_points`].
    pub fn disown_points(&self, owner: &str) -> Result<()> {
        self.connection
            .prepare_cached("UPDATE point_series SET owner = ?2, name = id || '' WHERE owner = ?1")?
            .execute(params![owner, NOBODY])?;
        Ok(())
    }

    /// Removes some of the points that nobody owns; whether there may be more. One call is short, however many there are.
    pub fn purge_points(&self, blocks: usize) -> Result<bool> {
        let mut statement =
            self.connection.prepare_cached("SELECT id, blocks FROM point_series WHERE owner = ?1 LIMIT 1")?;
        let found =
            statement.query_row(params![NOBODY], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
        let Some((id, left)) = found.optional()? else { return Ok(false) };
        let kept = left.saturating_sub(blocks as i64).max(0);
        self.connection
            .prepare_cached("DELETE FROM point_blocks WHERE series = ?1 AND position >= ?2")?
            .execute(params![id, kept])?;
        if kept == 0 {
            self.connection.prepare_cached("DELETE FROM point_series WHERE id = ?1")?.execute(params![id])?;
        } else {
            self.connection
                .prepare_cached("UPDATE point_series SET blocks = ?2 WHERE id = ?1")?
                .execute(params![id, kept])?;
        }
        Ok(true)
    }
}

impl Series {
    /// Welford's update of mean and sum of squared differences: no cancellation, however many points there are.
    fn add(&mut self, point: &Point) {
        self.count += 1;
        let before = point.value - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (point.value - self.mean);
        self.minimum = self.minimum.min(point.value);
        self.maximum = self.maximum.max(point.value);
        if point.at >= self.last_at {
            (self.last, self.last_at) = (point.value, point.at);
        }
        self.newest.extend_from_slice(&point.at.to_le_bytes());
        self.newest.extend_from_slice(&point.value.to_le_bytes());
        self.newest.extend_from_slice(&point.step.unwrap_or(-1).to_le_bytes());
    }
}

fn decode(bytes: &[u8]) -> Point {
    let (at, rest) = bytes.split_at(8);
    let (value, step) = rest.split_at(8);
    let step = i32::from_le_bytes(step.try_into().expect("a chunk has 20 bytes"));
    Point {
        at: i64::from_le_bytes(at.try_into().expect("8 bytes were split off")),
        value: f64::from_le_bytes(value.try_into().expect("8 bytes were split off")),
        step: (step >= 0).then_some(step),
    }
}
