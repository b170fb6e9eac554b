//! The graph of what came from what: edges between resources by ARN, and the URIs that vertices stand for.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rusqlite::types::Value as SqlValue;
use rusqlite::{Row, params, params_from_iter};
use serde_json::Value;

use crate::database::Session;
use crate::error::{Error, Result};

/// An edge.
#[derive(Debug, Clone, PartialEq)]
pub struct Edge {
    /// ARN where it begins.
    pub source: String,
    /// ARN where it ends.
    pub destination: String,
    /// What it means, for example `Produced`.
    pub kind: Option<String>,
    /// Type of the source.
    pub source_type: String,
    /// Type of the destination.
    pub destination_type: String,
    /// Who made it.
    pub created_by: Value,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

/// Column that edges are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EdgeOrder {
    /// By creation time.
    #[default]
    CreatedAt,
    /// By ARN of the source.
    Source,
    /// By ARN of the destination.
    Destination,
    /// By type of the source.
    SourceType,
    /// By type of the destination.
    DestinationType,
}

/// A condition on the type of an end: the type itself, or the part of an ARN that all vertices of a sort share.
#[derive(Debug, Clone)]
pub enum EndType {
    /// This type.
    Type(String),
    /// An ARN with this text in it, for example `:artifact/`.
    ArnPart(&'static str),
}

/// What a list of edges asks for; all given conditions must hold.
#[derive(Debug, Clone, Default)]
pub struct EdgeQuery {
    /// ARN of the source.
    pub source: Option<String>,
    /// ARN of the destination.
    pub destination: Option<String>,
    /// Type of the source.
    pub source_type: Option<EndType>,
    /// Type of the destination.
    pub destination_type: Option<EndType>,
    /// Kind of the edge.
    pub kind: Option<String>,
    /// Made strictly after, milliseconds since 1970.
    pub created_after: Option<i64>,
    /// Made strictly before.
    pub created_before: Option<i64>,
    /// Sort column; both ARNs break ties.
    pub order: EdgeOrder,
    /// Whether the greatest comes first.
    pub descending: bool,
    /// Most rows on a page.
    pub limit: usize,
    /// Token of the page before.
    pub next_token: Option<String>,
}

const COLUMNS: &str = "source, destination, kind, source_type, destination_type, created_by, created_at";

impl Session<'_> {
    /// Adds an edge; whether it was not there.
    pub fn add_edge(&self, account: &str, region: &str, edge: &Edge) -> Result<bool> {
        let added = self
            .connection
            .prepare_cached(
                "INSERT INTO lineage_edges
                    (source, destination, account, region, kind, source_type, destination_type, created_by, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING",
            )?
            .execute(params![
                edge.source,
                edge.destination,
                account,
                region,
                edge.kind,
                edge.source_type,
                edge.destination_type,
                edge.created_by.to_string(),
                edge.created_at
            ])?;
        Ok(added > 0)
    }

    /// Removes an edge; whether there was one.
    pub fn delete_edge(&self, source: &str, destination: &str) -> Result<bool> {
        let removed = self
            .connection
            .prepare_cached("DELETE FROM lineage_edges WHERE source = ?1 AND destination = ?2")?
            .execute(params![source, destination])?;
        Ok(removed > 0)
    }

    /// Removes all edges of a vertex.
    pub fn delete_edges_of(&self, arn: &str) -> Result<()> {
        for sql in [
            "DELETE FROM lineage_edges WHERE source = ?1",
            "DELETE FROM lineage_edges WHERE destination = ?1",
        ] {
            self.connection.prepare_cached(sql)?.execute(params![arn])?;
        }
        Ok(())
    }

    /// The edges that begin at a vertex, in the order of where they end.
    pub fn edges_from(&self, arn: &str) -> Result<Vec<Edge>> {
        self.edges_where("source = ?1 ORDER BY destination", arn)
    }

    /// The edges that end at a vertex, in the order of where they begin.
    pub fn edges_to(&self, arn: &str) -> Result<Vec<Edge>> {
        self.edges_where("destination = ?1 ORDER BY source", arn)
    }

    fn edges_where(&self, condition: &str, arn: &str) -> Result<Vec<Edge>> {
        let sql = format!("SELECT {COLUMNS} FROM lineage_edges WHERE {condition}");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map(params![arn], |row| Ok(edge_row(row)))?;
        rows.map(|row| row?).collect()
    }

    /// A page of the edges of one account and region, and the token of the next.
    ///
    /// # Errors
    /// [`Error::BadToken`] for a token that does not belong to this query.
    pub fn list_edges(
        &self,
        account: &str,
        region: &str,
        query: &EdgeQuery,
    ) -> Result<(Vec<Edge>, Option<String>)> {
        let column = match query.order {
            EdgeOrder::CreatedAt => "created_at",
            EdgeOrder::Source => "source",
            EdgeOrder::Destination => "destination",
            EdgeOrder::SourceType => "source_type",
            EdgeOrder::DestinationType => "destination_type",
        };
        let (direction, beyond) = if query.descending { ("DESC", "<") } else { ("ASC", ">") };
        let mut sql = format!("SELECT {COLUMNS} FROM lineage_edges WHERE account = ? AND region = ?");
        let mut values: Vec<SqlValue> = vec![account.to_owned().into(), region.to_owned().into()];
        for (condition, value) in [
            ("source = ?", &query.source),
            ("destination = ?", &query.destination),
            ("kind = ?", &query.kind),
        ] {
            if let Some(value) = value {
                sql.push_str(" AND ");
                sql.push_str(condition);
                values.push(value.clone().into());
            }
        }
        for (end, wanted) in [("source", &query.source_type), ("destination", &query.destination_type)] {
            match wanted {
                None => {}
                Some(EndType::Type(name)) => {
                    sql.push_str(&format!(" AND {end}_type = ?"));
                    values.push(name.clone().into());
                }
                Some(EndType::ArnPart(part)) => {
                    sql.push_str(&format!(" AND {end} LIKE ?"));
                    values.push(format!("arn:%{part}%").into());
                }
            }
        }
        for (condition, bound) in
            [("created_at > ?", query.created_after), ("created_at < ?", query.created_before)]
        {
            if let Some(bound) = bound {
                sql.push_str(" AND ");
                sql.push_str(condition);
                values.push(bound.into());
            }
        }
        if let Some(token) = &query.next_token {
            sql.push_str(&format!(" AND ({column}, source, destination) {beyond} (?, ?, ?)"));
            values.extend(decode_token(token, column, query.descending)?);
        }
        sql.push_str(&format!(
            " ORDER BY {column} {direction}, source {direction}, destination {direction} LIMIT ?"
        ));
        values.push(i64::try_from(query.limit.saturating_add(1)).unwrap_or(i64::MAX).into());
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map(params_from_iter(values), |row| Ok(edge_row(row)))?;
        let mut edges: Vec<Edge> = rows.map(|row| row?).collect::<Result<_>>()?;
        let more = edges.len() > query.limit;
        edges.truncate(query.limit);
        let token = edges
            .last()
            .filter(|_| more)
            .map(|last| encode_token(last, query.order, column, query.descending));
        Ok((edges, token))
    }

    /// Notes that a vertex stands for a URI.
    pub fn put_lineage_uri(&self, account: &str, region: &str, uri: &str, arn: &str) -> Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO lineage_uris (account, region, uri, arn) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            )?
            .execute(params![account, region, uri, arn])?;
        Ok(())
    }

    /// Forgets what a vertex stands for.
    pub fn delete_lineage_uris(&self, arn: &str) -> Result<()> {
        self.connection.prepare_cached("DELETE FROM lineage_uris WHERE arn = ?1")?.execute(params![arn])?;
        Ok(())
    }

    /// ARNs of the vertices whose URI is `uri` or the beginning of it, the longest URI first.
    pub fn vertices_that_cover(&self, account: &str, region: &str, uri: &str) -> Result<Vec<String>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT arn FROM lineage_uris WHERE account = ?1 AND region = ?2 AND uri = ?3 ORDER BY arn",
        )?;
        let mut found = Vec::new();
        // One look into the index for each beginning: as many as an URI has characters, however many vertices there are.
        let ends = uri.char_indices().map(|(at, _)| at).skip(1).chain([uri.len()]).collect::<Vec<_>>();
        for end in ends.into_iter().rev() {
            let rows =
                statement.query_map(params![account, region, &uri[..end]], |row| row.get::<_, String>(0))?;
            for arn in rows {
                found.push(arn?);
            }
        }
        Ok(found)
    }
}

fn edge_row(row: &Row<'_>) -> Result<Edge> {
    Ok(Edge {
        source: row.get(0)?,
        destination: row.get(1)?,
        kind: row.get(2)?,
        source_type: row.get(3)?,
        destination_type: row.get(4)?,
        created_by: serde_json::from_str(&row.get::<_, String>(5)?)?,
        created_at: row.get(6)?,
    })
}

fn encode_token(last: &Edge, order: EdgeOrder, column: &str, descending: bool) -> String {
    let position = match order {
        EdgeOrder::CreatedAt => Value::from(last.created_at),
        EdgeOrder::Source => Value::from(last.source.as_str()),
        EdgeOrder::Destination => Value::from(last.destination.as_str()),
        EdgeOrder::SourceType => Value::from(last.source_type.as_str()),
        EdgeOrder::DestinationType => Value::from(last.destination_type.as_str()),
    };
    let token = serde_json::json!([column, descending, position, last.source, last.destination]);
    URL_SAFE_NO_PAD.encode(token.to_string())
}

fn decode_token(token: &str, column: &str, descending: bool) -> Result<[SqlValue; 3]> {
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Error::BadToken)?;
    let (token_column, token_descending, position, source, destination): (
        String,
        bool,
        Value,
        String,
        String,
    ) = serde_json::from_slice(&bytes).map_err(|_| Error::BadToken)?;
    if token_column != column || token_descending != descending {
        return Err(Error::BadToken);
    }
    let position = match (column, position) {
        ("created_at", Value::Number(number)) => number.as_i64().map(SqlValue::from),
        ("created_at", _) => None,
        (_, Value::String(text)) => Some(SqlValue::from(text)),
        _ => None,
    };
    Ok([position.ok_or(Error::BadToken)?, source.into(), destination.into()])
}
