//! The jobs that wait, in lines of jobs that are alike: only the head of a line can be next, so a decision looks at as many jobs as
//! there are kinds, however many wait.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use store::resources::ResourceKey;

use super::ledger::Claim;

/// What the jobs of a line have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    account: String,
    queue: String,
    priority: i32,
    spot: bool,
    /// Instance types with their meaning, as text.
    hosts: String,
}

impl Kind {
    fn of(claim: &Claim) -> Kind {
        Kind {
            account: claim.key.account.clone(),
            queue: claim.queue.clone(),
            priority: claim.priority,
            spot: claim.spot,
            hosts: format!("{:?}", claim.hosts),
        }
    }
}

/// Who comes before whom in a line: the oldest, then by name.
type Turn = (i64, ResourceKey);

/// All lines.
#[derive(Debug, Default)]
pub struct Lines {
    lines: BTreeMap<Kind, BTreeMap<Turn, Claim>>,
    places: HashMap<ResourceKey, (Kind, i64)>,
}

impl Lines {
    /// Puts a job in its line; one that waits already changes places.
    pub fn insert(&mut self, claim: Claim) {
        self.remove(&claim.key);
        let kind = Kind::of(&claim);
        self.places.insert(claim.key.clone(), (kind.clone(), claim.enqueued_at));
        self.lines.entry(kind).or_default().insert((claim.enqueued_at, claim.key.clone()), claim);
    }

    /// Takes a job out of its line.
    pub fn remove(&mut self, key: &ResourceKey) -> Option<Claim> {
        let (kind, enqueued_at) = self.places.remove(key)?;
        let line = self.lines.get_mut(&kind)?;
        let claim = line.remove(&(enqueued_at, key.clone()));
        if line.is_empty() {
            self.lines.remove(&kind);
        }
        claim
    }

    /// A job that waits.
    pub fn get(&self, key: &ResourceKey) -> Option<&Claim> {
        let (kind, enqueued_at) = self.places.get(key)?;
        self.lines.get(kind)?.get(&(*enqueued_at, key.clone()))
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// The first job of each line.
    pub fn heads(&self) -> impl Iterator<Item = &Claim> {
        self.lines.values().filter_map(|line| line.values().next())
    }

    /// The jobs of the line that `head` is the first of, in their order.
    pub fn line_of(&self, head: &Claim) -> impl Iterator<Item = &Claim> {
        self.lines.get(&Kind::of(head)).into_iter().flat_map(BTreeMap::values)
    }

    /// How many jobs are served before `claim`, where `compare` orders lines by their heads.
    pub fn before(&self, claim: &Claim, compare: impl Fn(&Claim, &Claim) -> Ordering) -> usize {
        let turn = (claim.enqueued_at, claim.key.clone());
        let in_line =
            |line: &BTreeMap<Turn, Claim>| match line.values().next().map(|head| compare(head, claim)) {
                Some(Ordering::Less) => line.len(),
                Some(Ordering::Equal) => line.range(..&turn).count(),
                Some(Ordering::Greater) | None => 0,
            };
        self.lines.values().map(in_line).sum()
    }
}
