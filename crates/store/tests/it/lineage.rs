//! Edges page in any order, and vertices are found by the beginnings of a URI.

use serde_json::json;
use store::Database;
use store::lineage::{Edge, EdgeOrder, EdgeQuery, EndType};

fn edge(source: &str, destination: &str, created_at: i64) -> Edge {
    Edge {
        source: source.into(),
        destination: destination.into(),
        kind: Some("Produced".into()),
        source_type: "DataSet".into(),
        destination_type: "Model".into(),
        created_by: json!({}),
        created_at,
    }
}

#[tokio::test]
async fn edges_page_without_gaps() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("db")).unwrap();
    let edges: Vec<Edge> = (0..25)
        .map(|number| {
            edge(&format!("arn:x:artifact/{}", number % 5), &format!("arn:x:action/{number}"), number / 4)
        })
        .collect();
    let added = edges.clone();
    database
        .write(move |session| {
            added.iter().try_for_each(|edge| session.add_edge("1", "r", edge).map(|is_new| assert!(is_new)))
        })
        .await
        .unwrap();
    let again = database
        .write(|session| session.add_edge("1", "r", &edge("arn:x:artifact/0", "arn:x:action/0", 9)))
        .await;
    assert!(!again.unwrap());
    for order in [EdgeOrder::CreatedAt, EdgeOrder::Source, EdgeOrder::Destination, EdgeOrder::SourceType] {
        for descending in [false, true] {
            let mut query = EdgeQuery { order, descending, limit: 4, ..Default::default() };
            let mut seen = Vec::new();
            loop {
                let asked = query.clone();
                let (page, token) =
                    database.read(move |session| session.list_edges("1", "r", &asked)).await.unwrap();
                seen.extend(page.into_iter().map(|edge| edge.destination));
                query.next_token = token;
                if query.next_token.is_none() {
                    break;
                }
            }
            seen.sort();
            seen.dedup();
            assert_eq!(seen.len(), 25, "{order:?} {descending}");
        }
    }
    let only = EdgeQuery {
        source: Some("arn:x:artifact/0".into()),
        destination_type: Some(EndType::ArnPart(":action/")),
        limit: 50,
        ..Default::default()
    };
    assert_eq!(database.read(move |session| session.list_edges("1", "r", &only)).await.unwrap().0.len(), 5);
}

#[tokio::test]
async fn a_uri_is_covered_by_its_beginnings() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("db")).unwrap();
    database
        .write(|session| {
            session.put_lineage_uri("1", "r", "s3://b/data/", "prefix")?;
            session.put_lineage_uri("1", "r", "s3://b/data/ä.csv", "object")?;
            session.put_lineage_uri("1", "r", "s3://b/data/x", "other")?;
            session.put_lineage_uri("2", "r", "s3://b/data/", "of another account")
        })
        .await
        .unwrap();
    let found =
        database.read(|session| session.vertices_that_cover("1", "r", "s3://b/data/ä.csv")).await.unwrap();
    assert_eq!(found, ["object", "prefix"]);
}
