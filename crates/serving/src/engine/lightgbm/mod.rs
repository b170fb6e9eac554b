//! LightGBM models in the library's text format.

mod objective;
mod text;

use self::objective::Objective;
use self::text::{Header, Section};
use super::forest::{CATEGORICAL, DEFAULT_LEFT, FLAG_A, FLAG_B, Forest, Found};
use super::refusal::Refusal;

pub(crate) use self::text::is_model;

/// A missing value is a zero.
const MISSING_IS_ZERO: u32 = FLAG_A;
/// A missing value is not a number.
const MISSING_IS_NAN: u32 = FLAG_B;
/// What counts as zero, as the library has it.
const SMALLEST: f64 = 1e-35_f32 as f64;

/// A model, ready to predict.
#[derive(Debug)]
pub(crate) struct LightgbmModel {
    forest: Forest<f64>,
    objective: Objective,
    objective_name: String,
    features: usize,
    /// Trees of an iteration: one for each class.
    groups: usize,
    /// Divides the sums, where trees are averaged.
    iterations: Option<f64>,
}

impl LightgbmModel {
    /// Reads a model file.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(bytes).map_err(|_| Refusal::Damaged("it is not UTF-8".into()))?;
        let (header, sections) = text::split(text)?;
        Self::of(&header, &sections)
    }

    /// The memory that it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.forest.memory_bytes() + self.objective_name.capacity()
    }

    fn of(header: &Header<'_>, sections: &[Section<'_>]) -> Result<Self, Refusal> {
        let groups = header.number("num_tree_per_iteration")?;
        let features = header.number("max_feature_idx")?.saturating_add(1);
        if groups == 0 || groups > super::MOST_OUTPUTS {
            return Err(Refusal::Unsupported(format!("it has {groups} trees in an iteration")));
        }
        let objective_name = header.text("objective").unwrap_or_default();
        let objective = Objective::named(objective_name)?;
        let mut forest = Forest::new(features)?;
        for section in sections {
            add_tree(&mut forest, section)?;
        }
        let iterations = (sections.len() / groups).max(1) as f64;
        Ok(Self {
            forest: forest.finished(),
            objective,
            objective_name: objective_name.split(' ').next().unwrap_or_default().to_owned(),
            features,
            groups,
            iterations: header.has_line("average_output").then_some(iterations),
        })
    }

    /// How many features its rows have.
    pub(crate) fn features(&self) -> usize {
        self.features
    }

    /// How many numbers a prediction has, if it is a list.
    pub(crate) fn list_length(&self) -> Option<usize> {
        (self.groups > 1).then_some(self.groups)
    }

    /// The name of its objective.
    pub(crate) fn objective(&self) -> &str {
        &self.objective_name
    }

    /// What it is, for people.
    pub(crate) fn description(&self) -> String {
        let objective =
            if self.objective_name.is_empty() { "none that is named" } else { &self.objective_name };
        format!(
            "a LightGBM model of {} trees over {} features, objective {objective}",
            self.forest.trees(),
            self.features
        )
    }

    /// About how many nodes a row passes.
    pub(crate) fn steps_per_row(&self) -> usize {
        super::steps(self.forest.trees(), self.forest.count)
    }

    /// Predicts rows that lie one after the other, and adds the predictions to `outputs`.
    pub(crate) fn predict(&self, rows: &[f64], outputs: &mut Vec<f64>) {
        let zeros_are_gaps = self.forest.flags & MISSING_IS_ZERO != 0;
        let has_gaps = |row: &[f64]| zeros_are_gaps || row.iter().any(|value| value.is_nan());
        let rows: Vec<(&[f64], bool)> =
            rows.chunks_exact(self.features).map(|row| (row, has_gaps(row))).collect();
        let start = outputs.len();
        outputs.resize(start + rows.len() * self.groups, 0.0);
        let sums = &mut outputs[start..];
        for trees in super::chunks(self.forest.trees()) {
            for ((row, has_gaps), sums) in rows.iter().zip(sums.chunks_exact_mut(self.groups)) {
                let add = |tree: usize, leaf: f64| sums[tree % self.groups] += leaf;
                let trees = trees.clone();
                if self.forest.flags & CATEGORICAL != 0 {
                    let is_right = |limit, flags, value| is_right_of_any(&self.forest, limit, flags, value);
                    self.forest.leaves_one_by_one(trees, row, is_right, add);
                } else if *has_gaps {
                    self.forest.leaves(trees, row, is_right, add);
                } else {
                    self.forest.leaves(trees, row, |limit, _, value| value > limit, add);
                }
            }
        }
        for sums in sums.chunks_exact_mut(self.groups) {
            if let Some(iterations) = self.iterations {
                sums.iter_mut().for_each(|sum| *sum /= iterations);
            }
            self.objective.transform(sums);
        }
    }
}

fn is_right(limit: f64, flags: u32, value: f64) -> bool {
    let value = if value.is_nan() & (flags & MISSING_IS_NAN == 0) { 0.0 } else { value };
    let is_missing = ((flags & MISSING_IS_ZERO != 0) & (value.abs() <= SMALLEST)) | value.is_nan();
    if is_missing { flags & DEFAULT_LEFT == 0 } else { value > limit }
}

fn is_right_of_any(forest: &Forest<f64>, limit: f64, flags: u32, value: f64) -> bool {
    if flags & CATEGORICAL == 0 {
        return is_right(limit, flags, value);
    }
    // Whatever is no category of the set goes to the right; negative numbers and what is missing are none.
    !(value > -1.0 && forest.contains(limit as usize, value as usize))
}

fn add_tree(forest: &mut Forest<f64>, section: &Section<'_>) -> Result<(), Refusal> {
    if section.optional_number("is_linear")?.unwrap_or(0) != 0 {
        return Err(Refusal::Unsupported("its trees have linear models as leaves (linear_tree)".into()));
    }
    let leaves = section.number("num_leaves")?;
    let values = section.numbers::<f64>("leaf_value")?;
    if leaves == 0 || values.len() != leaves {
        return Err(section.damaged("leaf_value does not have a value for each leaf"));
    }
    if leaves == 1 {
        return forest.add_tree(1, |_| Ok(Found::Leaf(values[0])));
    }
    let splits = leaves - 1;
    let features = section.numbers::<usize>("split_feature")?;
    let thresholds = section.numbers::<f64>("threshold")?;
    let kinds = section.numbers::<u8>("decision_type")?;
    let lefts = section.numbers::<i64>("left_child")?;
    let rights = section.numbers::<i64>("right_child")?;
    let lengths = [features.len(), thresholds.len(), kinds.len(), lefts.len(), rights.len()];
    if lengths.iter().any(|length| *length != splits) {
        return Err(section.damaged("its parts differ in length"));
    }
    let first_set = add_sets(forest, section)?;
    let last_set = forest.sets();
    // Leaves stand behind the splits; the file counts them downwards from -1.
    let index = |child: i64| match usize::try_from(child) {
        Ok(split) => {
            if split < splits {
                split
            } else {
                usize::MAX
            }
        }
        Err(_) => usize::try_from(!child).map_or(usize::MAX, |leaf| splits.saturating_add(leaf)),
    };
    forest.add_tree(splits + leaves, |node| {
        if node >= splits {
            return Ok(Found::Leaf(values[node - splits]));
        }
        let kind = kinds[node];
        let mut flags = if kind & 2 != 0 { DEFAULT_LEFT } else { 0 };
        let mut value = thresholds[node];
        if kind & 1 != 0 {
            flags |= CATEGORICAL;
            let set = if (0.0..MOST_SETS).contains(&value) { first_set + value as usize } else { usize::MAX };
            if set >= last_set {
                return Err(section.damaged("a split by category has no categories"));
            }
            value = set as f64;
        } else {
            flags |= match kind >> 2 & 3 {
                0 => 0,
                1 => MISSING_IS_ZERO,
                2 => MISSING_IS_NAN,
                _ => return Err(section.damaged("decision_type is not known")),
            };
        }
        Ok(Found::Split {
            value,
            feature: features[node],
            flags,
            left: index(lefts[node]),
            right: index(rights[node]),
        })
    })
}

/// Far more sets of categories than a file can have.
const MOST_SETS: f64 = 1e9;

/// Keeps the sets of categories of a tree and gives the number of the first.
fn add_sets(forest: &mut Forest<f64>, section: &Section<'_>) -> Result<usize, Refusal> {
    let first = forest.sets();
    if section.optional_number("num_cat")?.unwrap_or(0) == 0 {
        return Ok(first);
    }
    let boundaries = section.numbers::<usize>("cat_boundaries")?;
    let words = section.numbers::<u32>("cat_threshold")?;
    for pair in boundaries.windows(2) {
        let set = words.get(pair[0]..pair[1].max(pair[0]));
        let set = set.ok_or_else(|| section.damaged("cat_boundaries point beyond cat_threshold"))?;
        forest.add_set(set.iter().copied())?;
    }
    Ok(first)
}
