//! Trees as one array of nodes, checked when they are built, so that walking them needs no further check. Those that are nearly full are
//! kept without links: where a node lies says where its children do.

use std::collections::VecDeque;
use std::ops::Range;

use super::refusal::Refusal;

/// A split sends a row without a value for its feature to the left.
pub(crate) const DEFAULT_LEFT: u32 = 1 << 31;
/// A split asks whether the row's category is in a set.
pub(crate) const CATEGORICAL: u32 = 1 << 30;
/// A split's own flag, whose meaning its library decides.
pub(crate) const FLAG_A: u32 = 1 << 29;
/// Another one.
pub(crate) const FLAG_B: u32 = 1 << 28;
/// The bits that say which feature a split looks at.
const FEATURE: u32 = FLAG_B - 1;

/// Words of bits that all sets of categories may have, so that a small file cannot fill the memory.
const MOST_WORDS: usize = 1 << 26;

/// Trees that a row goes through at once.
pub(crate) const LANES: usize = 16;
/// Where trees are deeper, most ways end long before the longest.
const MOST_LEVELS_TOGETHER: u32 = 20;

/// A split or a leaf. Both are small and lie together: a walk touches one cache line for each level.
#[derive(Clone, Copy, Debug)]
struct Node<T> {
    /// The threshold of a split, or the number of its set of categories; what a leaf adds.
    value: T,
    /// The feature of a split with its flags.
    feature: u32,
    /// The left child; the right one follows it. A leaf has 0, which is a root and nobody's child.
    left: u32,
}

/// A node as a model file has it.
pub(crate) enum Found<T> {
    Leaf(T),
    Split { value: T, feature: usize, flags: u32, left: usize, right: usize },
}

/// A split whose children lie at twice its own place and beside that.
#[derive(Clone, Copy, Debug)]
struct Split<T> {
    value: T,
    feature: u32,
}

/// Trees that are padded until all their leaves are equally deep.
#[derive(Debug)]
struct FullTrees<T> {
    levels: u32,
    /// As many for each tree as it has leaves; the root is at 1, and at 0 there is nothing.
    splits: Vec<Split<T>>,
    leaves: Vec<T>,
}

/// All trees of a model.
#[derive(Debug)]
pub(crate) struct Forest<T> {
    /// None where the trees are `full`.
    nodes: Vec<Node<T>>,
    full: Option<Box<FullTrees<T>>>,
    /// Splits and leaves as the model file has them.
    pub(crate) count: usize,
    roots: Vec<u32>,
    /// How many splits the longest way through each tree has.
    depths: Vec<u32>,
    /// Bits of the sets of categories, one set after the other.
    bits: Vec<u32>,
    /// Where each set begins and ends in `bits`.
    sets: Vec<(usize, usize)>,
    /// The flags that any split has.
    pub(crate) flags: u32,
    features: usize,
}

impl<T: Copy> Forest<T> {
    /// A forest over rows of that many features.
    pub(crate) fn new(features: usize) -> Result<Self, Refusal> {
        if features > super::MOST_FEATURES {
            return Err(Refusal::Unsupported(format!(
                "it has {features} features, and the native engine takes up to {}",
                super::MOST_FEATURES
            )));
        }
        Ok(Self {
            nodes: Vec::new(),
            full: None,
            count: 0,
            roots: Vec::new(),
            depths: Vec::new(),
            bits: Vec::new(),
            sets: Vec::new(),
            flags: 0,
            features,
        })
    }

    /// The memory that it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let full = self.full.as_ref().map_or(0, |full| {
            full.splits.capacity() * size_of::<Split<T>>() + full.leaves.capacity() * size_of::<T>()
        });
        full + self.nodes.capacity() * size_of::<Node<T>>()
            + (self.roots.capacity() + self.depths.capacity() + self.bits.capacity()) * size_of::<u32>()
            + self.sets.capacity() * size_of::<(usize, usize)>()
    }

    /// Adds a tree of `count` nodes, of which the first is the root. What `find` says is not trusted: children must exist, and no
    /// node may have two parents.
    pub(crate) fn add_tree(
        &mut self,
        count: usize,
        find: impl Fn(usize) -> Result<Found<T>, Refusal>,
    ) -> Result<(), Refusal> {
        let start = self.nodes.len();
        let mut waiting = VecDeque::from([(0_usize, start, 0_u32)]);
        let mut deepest = 0;
        let mut placed = 1;
        let number = self.roots.len();
        let broken = |what: &str| Refusal::Damaged(format!("tree {number} {what}"));
        let mut nodes: Vec<Option<Node<T>>> = vec![None];
        while let Some((index, place, depth)) = waiting.pop_front() {
            deepest = depth;
            let node = match find(index)? {
                Found::Leaf(value) => Node { value, feature: 0, left: 0 },
                Found::Split { value, feature, flags, left, right } => {
                    if feature >= self.features {
                        return Err(broken(&format!("splits on feature {feature} of {}", self.features)));
                    }
                    if left >= count || right >= count {
                        return Err(broken("has a child that does not exist"));
                    }
                    placed += 2;
                    if placed > count {
                        return Err(broken("runs in a circle"));
                    }
                    let next = start + nodes.len();
                    nodes.extend([None, None]);
                    waiting.extend([(left, next, depth + 1), (right, next + 1, depth + 1)]);
                    self.flags |= flags;
                    Node { value, feature: feature as u32 | flags, left: as_index(next)? }
                }
            };
            nodes[place - start] = Some(node);
        }
        self.nodes.extend(nodes.into_iter().flatten());
        self.count = self.nodes.len();
        self.roots.push(as_index(start)?);
        self.depths.push(deepest);
        Ok(())
    }

    /// The forest with all its trees, in the form that is quickest to walk and takes no more memory than another.
    pub(crate) fn finished(mut self) -> Self {
        self.full = self.filled_up().map(Box::new);
        if self.full.is_some() {
            self.nodes = Vec::new();
        }
        self
    }

    /// `None` where that would take more memory than links do, or where splits by category want a walk of their own.
    fn filled_up(&self) -> Option<FullTrees<T>> {
        let levels = self.depths.iter().copied().max()?;
        let places = self.roots.len().checked_mul(1_usize.checked_shl(levels)?)?;
        let bytes = places.checked_mul(size_of::<Split<T>>() + size_of::<T>())?;
        if bytes > self.nodes.len() * size_of::<Node<T>>() || self.flags & CATEGORICAL != 0 {
            return None;
        }
        let width = 1 << levels;
        let first = self.nodes.first()?.value;
        let mut full = FullTrees {
            levels,
            splits: vec![Split { value: first, feature: 0 }; places],
            leaves: vec![first; places],
        };
        for (tree, root) in self.roots.iter().enumerate() {
            let start = tree * width;
            let mut waiting = vec![(*root, 1)];
            while let Some((index, place)) = waiting.pop() {
                let node = &self.nodes[index as usize];
                if place >= width {
                    full.leaves[start + place - width] = node.value;
                    continue;
                }
                // Both ways from a split that is padding lead to copies of the leaf above.
                let (left, right) = if node.left == 0 { (index, index) } else { (node.left, node.left + 1) };
                full.splits[start + place] = Split { value: node.value, feature: node.feature };
                waiting.extend([(left, 2 * place), (right, 2 * place + 1)]);
            }
        }
        Some(full)
    }

    /// How many trees there are.
    pub(crate) fn trees(&self) -> usize {
        self.roots.len()
    }

    /// Calls `take` with the number and the leaf of each tree, in their order; `is_right` decides at a split by its value, its flags and
    /// the row's value.
    pub(crate) fn leaves_one_by_one(
        &self,
        trees: Range<usize>,
        row: &[T],
        is_right: impl Fn(T, u32, T) -> bool,
        mut take: impl FnMut(usize, T),
    ) {
        for tree in trees {
            let mut node = &self.nodes[self.roots[tree] as usize];
            while node.left != 0 {
                let value = row[(node.feature & FEATURE) as usize];
                let is_right = is_right(node.value, node.feature, value);
                node = &self.nodes[node.left as usize + usize::from(is_right)];
            }
            take(tree, node.value);
        }
    }

    /// The same for up to [`LANES`] trees, whose ways are gone together: the processor need not wait for one before it begins the next.
    /// `is_right` is also asked at leaves, for nothing, and should have no branches.
    pub(crate) fn leaves(
        &self,
        trees: Range<usize>,
        row: &[T],
        is_right: impl Fn(T, u32, T) -> bool,
        mut take: impl FnMut(usize, T),
    ) {
        if let Some(full) = &self.full {
            return full.leaves(trees, row, is_right, take);
        }
        let depth = self.depths[trees.clone()].iter().copied().max().unwrap_or(0);
        if depth > MOST_LEVELS_TOGETHER || trees.len() > LANES {
            return self.leaves_one_by_one(trees, row, is_right, take);
        }
        let mut places = [0; LANES];
        places[..trees.len()].copy_from_slice(&self.roots[trees.clone()]);
        for _ in 0..depth {
            for place in &mut places {
                let node = &self.nodes[*place as usize];
                let value = row[(node.feature & FEATURE) as usize];
                let next = node.left + u32::from(is_right(node.value, node.feature, value));
                *place = if node.left == 0 { *place } else { next };
            }
        }
        for (tree, place) in trees.zip(places) {
            take(tree, self.nodes[place as usize].value);
        }
    }

    /// Keeps a set of categories and gives its number.
    pub(crate) fn add_set(&mut self, words: impl IntoIterator<Item = u32>) -> Result<usize, Refusal> {
        let start = self.bits.len();
        self.bits.extend(words);
        if self.bits.len() > MOST_WORDS {
            return Err(Refusal::Unsupported(
                "its splits by category name more than the native engine keeps".into(),
            ));
        }
        self.sets.push((start, self.bits.len()));
        Ok(self.sets.len() - 1)
    }

    /// How many sets there are.
    pub(crate) fn sets(&self) -> usize {
        self.sets.len()
    }

    /// Whether a set has a category.
    pub(crate) fn contains(&self, set: usize, category: usize) -> bool {
        let Some(&(start, end)) = self.sets.get(set) else { return false };
        self.bits[start..end].get(category / 32).is_some_and(|word| word >> (category % 32) & 1 == 1)
    }
}

impl<T: Copy> FullTrees<T> {
    /// As [`Forest::leaves`], for up to [`LANES`] trees.
    fn leaves(
        &self,
        trees: Range<usize>,
        row: &[T],
        is_right: impl Fn(T, u32, T) -> bool,
        mut take: impl FnMut(usize, T),
    ) {
        let width = 1 << self.levels;
        let mut places = [1; LANES];
        let places = &mut places[..trees.len()];
        let splits = &self.splits[trees.start * width..trees.end * width];
        for _ in 0..self.levels {
            for (place, splits) in places.iter_mut().zip(splits.chunks_exact(width)) {
                let split = &splits[*place];
                let value = row[(split.feature & FEATURE) as usize];
                *place = 2 * *place + usize::from(is_right(split.value, split.feature, value));
            }
        }
        for (tree, place) in trees.zip(places) {
            take(tree, self.leaves[tree * width + *place - width]);
        }
    }
}

fn as_index(place: usize) -> Result<u32, Refusal> {
    u32::try_from(place).map_err(|_| Refusal::Unsupported("it has more than 4 billion nodes".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(left: usize, right: usize) -> Found<f32> {
        Found::Split { value: 0.5, feature: 0, flags: 0, left, right }
    }

    #[test]
    fn children_lie_side_by_side() {
        let mut forest = Forest::new(1).unwrap();
        let find = |index| {
            Ok(match index {
                0 => split(4, 1),
                1 => split(2, 3),
                other => Found::Leaf(other as f32),
            })
        };
        forest.add_tree(5, find).unwrap();
        let left: Vec<u32> = forest.nodes.iter().map(|node| node.left).collect();
        assert_eq!(left, [1, 0, 3, 0, 0]);
        assert_eq!([1, 3, 4].map(|index| forest.nodes[index].value), [4.0, 2.0, 3.0]);
        // A second one begins behind the first.
        forest.add_tree(1, |_| Ok(Found::Leaf(7.0))).unwrap();
        assert_eq!((forest.roots, forest.nodes.len()), (vec![0, 5], 6));
    }

    /// Splits on the feature of each level down to the depth that a tree has at a place.
    fn grown(depth_at: impl Fn(usize) -> u32) -> Forest<f64> {
        let mut forest = Forest::new(4).unwrap();
        for tree in 0..3 {
            // Places as a full tree has them, of which the file names those that there are.
            let level = |place: usize| (place + 1).ilog2();
            let find = |place: usize| {
                Ok(if level(place) == depth_at(place).min(4) {
                    Found::Leaf((100 * tree + place) as f64)
                } else {
                    let flags = if place.is_multiple_of(2) { DEFAULT_LEFT } else { 0 };
                    let value = (place * 7 % 5) as f64 - 2.0;
                    Found::Split {
                        value,
                        feature: level(place) as usize,
                        flags,
                        left: 2 * place + 1,
                        right: 2 * place + 2,
                    }
                })
            };
            forest.add_tree(31, find).unwrap();
        }
        forest
    }

    #[test]
    fn full_trees_lead_to_the_same_leaves_without_links() {
        let is_right = |limit: f64, flags: u32, value: f64| {
            !((value < limit) | (value.is_nan() & (flags & DEFAULT_LEFT != 0)))
        };
        let leaves = |forest: &Forest<f64>, row: &[f64]| {
            let mut found = Vec::new();
            forest.leaves(0..3, row, is_right, |tree, leaf| found.push((tree, leaf)));
            found
        };
        // Of a tree that is nearly full one way ends earlier; where only one is long, links take less.
        let nearly_full = || grown(|place| if place == 4 { 2 } else { 4 });
        let (linked, full) = (nearly_full(), nearly_full().finished());
        let thin = || grown(|place| if (place + 1).is_power_of_two() { 4 } else { (place + 1).ilog2() });
        assert!(full.full.is_some() && full.nodes.is_empty() && thin().finished().full.is_none());
        assert!(full.memory_bytes() <= linked.memory_bytes());
        assert_eq!((full.count, full.trees()), (linked.count, 3));
        for number in 0..6_u32.pow(4) {
            let digit = |place: u32| number / 6_u32.pow(place) % 6;
            let row = [0, 1, 2, 3].map(|place| match digit(place) {
                5 => f64::NAN,
                digit => digit as f64 - 2.0,
            });
            let mut one_by_one = Vec::new();
            linked.leaves_one_by_one(0..3, &row, is_right, |tree, leaf| one_by_one.push((tree, leaf)));
            assert_eq!(one_by_one, leaves(&linked, &row), "{row:?}");
            assert_eq!(one_by_one, leaves(&full, &row), "{row:?}");
        }
    }

    #[test]
    fn circles_and_loose_ends_are_refused() {
        let add = |count, find: &dyn Fn(usize) -> Found<f32>| {
            let added = Forest::new(2).unwrap().add_tree(count, |index| Ok(find(index)));
            added.unwrap_err().to_string()
        };
        assert!(add(3, &|_| split(0, 1)).contains("runs in a circle"));
        assert!(add(3, &|_| split(1, 3)).contains("child that does not exist"));
        assert!(add(3, &|_| split(usize::MAX, 1)).contains("child that does not exist"));
        // Two parents of one node would make a tree of any size from a small file.
        assert!(
            add(4, &|index| if index < 3 { split(index + 1, index + 1) } else { Found::Leaf(0.0) })
                .contains("circle")
        );
        let wide = |_| Found::Split { value: 0.0, feature: 2, flags: 0, left: 1, right: 2 };
        assert!(add(3, &wide).contains("splits on feature 2 of 2"));
        assert!(Forest::<f32>::new(usize::MAX).is_err());
    }

    #[test]
    fn sets_have_what_they_were_given() {
        let mut forest = Forest::<f64>::new(1).unwrap();
        assert_eq!((forest.add_set([0b101, 1]), forest.add_set([])), (Ok(0), Ok(1)));
        let members: Vec<usize> = (0..100).filter(|category| forest.contains(0, *category)).collect();
        assert_eq!(members, [0, 2, 32]);
        assert!(!forest.contains(1, 0) && !forest.contains(2, 0) && !forest.contains(0, usize::MAX));
    }
}
