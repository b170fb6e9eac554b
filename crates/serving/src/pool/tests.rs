//! Which replica gets a request, who waits, and that nobody waits for ever.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;

use tokio::sync::mpsc;

use super::*;
use crate::http::HttpReplica;

/// A replica, and places for that many requests in it, offered to the pool.
fn replica(pool: &Arc<Pool>, name: &str, places: usize) -> Arc<ReplicaLink> {
    let link = ReplicaLink::new(name.to_owned(), mpsc::unbounded_channel().0);
    let container = Arc::new(HttpReplica::new(PathBuf::new(), 8080, "x-"));
    for _ in 0..places {
        pool.offer(Connection::place(Arc::clone(&container), Arc::clone(&link)));
    }
    link
}

fn lease(pool: &Arc<Pool>) -> Lease {
    match pool.acquire() {
        Acquire::Ready(lease) => lease,
        other => panic!("no connection is free: {other:?}"),
    }
}

fn name(lease: &mut Lease) -> String {
    lease.connection().link.id.clone()
}

#[test]
fn the_replica_with_the_fewest_requests_is_next() {
    let pool = Pool::new(10, RoutingStrategy::LeastOutstandingRequests);
    let (one, two) = (replica(&pool, "one", 4), replica(&pool, "two", 4));
    let mut leases: Vec<Lease> = Vec::new();
    for _ in 0..4 {
        leases.push(lease(&pool));
        leases.push(lease(&pool));
        assert_eq!(one.outstanding(), two.outstanding());
    }
    // All of one replica's are done: it gets the next ones.
    for mut lease in std::mem::take(&mut leases) {
        if name(&mut lease) == "one" { lease.give_back() } else { leases.push(lease) }
    }
    for _ in 0..4 {
        let mut next = lease(&pool);
        assert_eq!(name(&mut next), "one");
        leases.push(next);
    }
}

#[test]
fn chance_gives_each_replica_its_share_and_passes_by_those_that_are_busy() {
    let pool = Pool::new(10, RoutingStrategy::Random);
    // Workers do not count: an instance is chosen, not a worker.
    replica(&pool, "one", 1);
    replica(&pool, "two", 9);
    let mut counts = BTreeMap::new();
    for _ in 0..2000 {
        let mut lease = lease(&pool);
        *counts.entry(name(&mut lease)).or_insert(0) += 1;
        lease.give_back();
    }
    // 1000 expected; six standard deviations are 134.
    assert!((866..=1134).contains(&counts["one"]), "{counts:?}");
    let held: Vec<Lease> = (0..10).map(|_| lease(&pool)).collect();
    assert!(matches!(pool.acquire(), Acquire::Wait(_)));
    drop(held);
}

#[tokio::test]
async fn those_who_wait_come_first_and_in_order() {
    let pool = Pool::new(2, RoutingStrategy::Random);
    replica(&pool, "one", 1);
    let held = lease(&pool);
    let (Acquire::Wait(first), Acquire::Wait(second)) = (pool.acquire(), pool.acquire()) else {
        panic!("there is a line")
    };
    assert!(matches!(pool.acquire(), Acquire::Full));
    // One that has given up makes room.
    drop(second);
    let Acquire::Wait(third) = pool.acquire() else { panic!("there is room") };
    held.give_back();
    let first = first.await.unwrap();
    assert!(matches!(pool.acquire(), Acquire::Wait(_)), "nobody overtakes the line");
    first.give_back();
    third.await.unwrap().give_back();
    assert!(matches!(pool.acquire(), Acquire::Ready(_)));
}

#[tokio::test]
async fn a_retired_replica_gets_nothing() {
    let pool = Pool::new(10, RoutingStrategy::Random);
    let (one, _two) = (replica(&pool, "one", 2), replica(&pool, "two", 1));
    let held: Vec<Lease> = (0..3).map(|_| lease(&pool)).collect();
    one.retired.store(true, Ordering::Release);
    held.into_iter().for_each(Lease::give_back);
    pool.forget(&one);
    let mut only = lease(&pool);
    assert_eq!(name(&mut only), "two");
    assert!(matches!(pool.acquire(), Acquire::Wait(_)));
}

#[tokio::test]
async fn a_drain_waits_for_what_was_accepted_and_takes_no_more() {
    let pool = Pool::new(10, RoutingStrategy::Random);
    replica(&pool, "one", 1);
    let held = lease(&pool);
    let Acquire::Wait(waiting) = pool.acquire() else { panic!("there is a line") };
    let draining = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move { pool.drain(Duration::from_secs(60)).await }
    });
    while !pool.draining.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    assert!(matches!(pool.acquire(), Acquire::Draining));
    held.give_back();
    let accepted = waiting.await.unwrap();
    assert!(!draining.is_finished());
    accepted.give_back();
    draining.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_is_forgotten_in_a_crowd() {
    let pool = Pool::new(1000, RoutingStrategy::LeastOutstandingRequests);
    replica(&pool, "one", 2);
    replica(&pool, "two", 1);
    let (in_use, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut crowd = tokio::task::JoinSet::new();
    for caller in 0..32 {
        let (pool, in_use, most) = (Arc::clone(&pool), Arc::clone(&in_use), Arc::clone(&most));
        crowd.spawn(async move {
            for turn in 0..300 {
                let lease = match pool.acquire() {
                    Acquire::Ready(lease) => lease,
                    Acquire::Wait(receiver) if (caller + turn) % 17 == 0 => {
                        drop(receiver); // it gives up, perhaps just when its turn comes
                        continue;
                    }
                    Acquire::Wait(receiver) => receiver.await.unwrap(),
                    other => panic!("{other:?}"),
                };
                most.fetch_max(in_use.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                in_use.fetch_sub(1, Ordering::SeqCst);
                lease.give_back();
            }
        });
    }
    let done = async { while crowd.join_next().await.transpose().unwrap().is_some() {} };
    tokio::time::timeout(Duration::from_secs(60), done).await.expect("somebody waits for ever");
    assert!(most.load(Ordering::SeqCst) <= 3);
    assert_eq!(pool.leased.load(Ordering::SeqCst), 0);
    // Nothing was lost on the way.
    let all: Vec<Lease> = (0..3).map(|_| lease(&pool)).collect();
    drop(all);
}
