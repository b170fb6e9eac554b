//! XGBoost models: trees, with and without dropout, and linear ones, computed as the library computes them.

mod document;
mod objective;
mod ubj;

use std::collections::BTreeMap;

use self::document::{BoosterModel, Document, Tree};
use self::objective::Objective;
use super::forest::{CATEGORICAL, DEFAULT_LEFT, Forest, Found};
use super::refusal::Refusal;

pub(crate) use self::document::is_model;

/// Beyond this number a category is none.
const MOST_CATEGORIES: f32 = 16_777_216.0;
/// Sets of categories are counted in a `f32`, which is exact up to here.
const MOST_SETS: usize = 1 << 24;

/// A model, ready to predict.
#[derive(Debug)]
pub(crate) struct XgboostModel {
    booster: Booster,
    objective: Objective,
    objective_name: String,
    features: usize,
    /// Classes or targets: sums that each row has.
    groups: usize,
    classes: usize,
    base_margins: Vec<f32>,
    /// Whether each prediction is a list even if it has one element.
    predicts_lists: bool,
}

#[derive(Debug)]
enum Booster {
    Trees {
        forest: Forest<f32>,
        groups: Vec<usize>,
        weights: Option<Vec<f32>>,
    },
    /// Weights by feature and group; the last row is the bias.
    Linear(Vec<f32>),
}

impl XgboostModel {
    /// Reads a model file.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        Self::of(document::read(bytes)?)
    }

    fn of(document: Document) -> Result<Self, Refusal> {
        let release = document.version.first().copied().unwrap_or_default();
        let learner = document.learner;
        let parameters = &learner.learner_model_param;
        let features = number(&parameters.num_feature, "num_feature")?;
        if features == 0 {
            return Err(Refusal::Damaged("it has no features".into()));
        }
        let classes = optional_number(parameters.num_class.as_deref(), "num_class")?.unwrap_or(0);
        let targets = optional_number(parameters.num_target.as_deref(), "num_target")?.unwrap_or(1);
        let groups = classes.max(targets).max(1);
        if groups > super::MOST_OUTPUTS {
            return Err(Refusal::Unsupported(format!("it has {groups} outputs")));
        }
        let objective = Objective::named(&learner.objective.name)?;
        if learner.objective.name == "binary:logitraw" && release < 2 {
            return Err(Refusal::Unsupported(
                "releases of XGBoost before 2.0 add the base score of binary:logitraw differently".into(),
            ));
        }
        let base_margins = base_margins(&parameters.base_score, objective, groups)?;
        let best = match learner.attributes.get("best_iteration") {
            Some(text) => Some(number(text, "best_iteration")?),
            None => None,
        };
        let booster = learner.gradient_booster;
        let missing = || Refusal::Damaged("it has no booster".into());
        let booster = match booster.name.as_str() {
            "gbtree" => trees(booster.model.ok_or_else(missing)?, None, features, groups, best)?,
            "dart" => {
                let model = booster.gbtree.map(|inner| inner.model).ok_or_else(missing)?;
                trees(model, Some(booster.weight_drop), features, groups, best)?
            }
            "gblinear" if base_margins.iter().any(|margin| *margin != base_margins[0]) => {
                return Err(Refusal::Unsupported(
                    "its linear booster has several base scores, which releases of XGBoost add differently"
                        .into(),
                ));
            }
            "gblinear" => linear(booster.model.ok_or_else(missing)?, features, groups)?,
            other => {
                return Err(Refusal::Unsupported(format!(
                    "its booster {other} is not one that the native engine computes"
                )));
            }
        };
        Ok(Self {
            booster,
            objective,
            objective_name: learner.objective.name,
            features,
            groups,
            classes,
            base_margins,
            predicts_lists: groups > 1 && objective != Objective::Softmax,
        })
    }

    /// How many features its rows have.
    pub(crate) fn features(&self) -> usize {
        self.features
    }

    /// How many numbers a prediction has, if it is a list.
    pub(crate) fn list_length(&self) -> Option<usize> {
        self.predicts_lists.then_some(self.groups)
    }

    /// The name of its objective.
    pub(crate) fn objective(&self) -> &str {
        &self.objective_name
    }

    /// Classes, where the objective has them.
    pub(crate) fn classes(&self) -> usize {
        self.classes
    }

    /// What it is, for people.
    pub(crate) fn description(&self) -> String {
        let booster = match &self.booster {
            Booster::Trees { forest, weights: None, .. } => format!("{} trees", forest.trees()),
            Booster::Trees { forest, .. } => format!("{} trees with dropout", forest.trees()),
            Booster::Linear(_) => "a linear booster".to_owned(),
        };
        format!(
            "an XGBoost model of {booster} over {} features, objective {}",
            self.features, self.objective_name
        )
    }

    /// About how many nodes a row passes.
    pub(crate) fn steps_per_row(&self) -> usize {
        match &self.booster {
            Booster::Trees { forest, .. } => super::steps(forest.trees(), forest.count),
            Booster::Linear(weights) => weights.len(),
        }
    }

    /// The memory that it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let booster = match &self.booster {
            Booster::Trees { forest, groups, weights } => {
                let weights = weights.as_ref().map_or(0, Vec::capacity);
                forest.memory_bytes() + groups.capacity() * size_of::<usize>() + weights * size_of::<f32>()
            }
            Booster::Linear(weights) => weights.capacity() * size_of::<f32>(),
        };
        size_of::<Self>()
            + booster
            + self.base_margins.capacity() * size_of::<f32>()
            + self.objective_name.capacity()
    }

    /// Predicts rows that lie one after the other, and adds the predictions to `outputs`.
    pub(crate) fn predict(&self, rows: &[f64], outputs: &mut Vec<f64>) {
        // The library keeps rows in this precision, too.
        let rows: Vec<f32> = rows.iter().map(|value| *value as f32).collect();
        let rows: Vec<(&[f32], bool)> =
            rows.chunks_exact(self.features).map(|row| (row, has_gaps(row))).collect();
        let mut margins = self.base_margins.repeat(rows.len());
        match &self.booster {
            Booster::Trees { forest, groups, weights } => {
                for trees in super::chunks(groups.len()) {
                    for ((row, has_gaps), sums) in rows.iter().zip(margins.chunks_exact_mut(self.groups)) {
                        let add = |tree: usize, leaf: f32| {
                            sums[groups[tree]] += match weights {
                                Some(weights) => weights[tree] * leaf,
                                None => leaf,
                            };
                        };
                        let trees = trees.clone();
                        if forest.flags & CATEGORICAL != 0 {
                            let is_right = |limit, flags, value| is_right_of_any(forest, limit, flags, value);
                            forest.leaves_one_by_one(trees, row, is_right, add);
                        } else if *has_gaps {
                            forest.leaves(trees, row, is_right, add);
                        } else {
                            forest.leaves(trees, row, |limit, _, value| is_right(limit, 0, value), add);
                        }
                    }
                }
            }
            Booster::Linear(weights) => {
                for ((row, _), sums) in rows.iter().zip(margins.chunks_exact_mut(self.groups)) {
                    add_linear(weights, row, sums);
                }
            }
        }
        for sums in margins.chunks_exact_mut(self.groups) {
            let count = self.objective.transform(sums);
            outputs.extend(sums[..count].iter().map(|value| f64::from(*value)));
        }
    }
}

/// Whether values are missing.
fn has_gaps(row: &[f32]) -> bool {
    row.iter().any(|value| value.is_nan())
}

/// Without a value every comparison is false, which leads to the right unless the split says otherwise.
fn is_right(limit: f32, flags: u32, value: f32) -> bool {
    !((value < limit) | (value.is_nan() & (flags & DEFAULT_LEFT != 0)))
}

fn is_right_of_any(forest: &Forest<f32>, limit: f32, flags: u32, value: f32) -> bool {
    if flags & CATEGORICAL == 0 || value.is_nan() {
        return is_right(limit, flags, value);
    }
    // What is no category goes to the left, like a category that no set names.
    (0.0..MOST_CATEGORIES).contains(&value) && forest.contains(limit as usize, value as usize)
}

fn add_linear(weights: &[f32], row: &[f32], sums: &mut [f32]) {
    let groups = sums.len();
    let bias = &weights[row.len() * groups..];
    for (group, sum) in sums.iter_mut().enumerate() {
        *sum += bias[group];
        for (feature, value) in row.iter().enumerate().filter(|(_, value)| !value.is_nan()) {
            *sum += value * weights[feature * groups + group];
        }
    }
}

fn trees(
    model: BoosterModel,
    weights: Option<Vec<f32>>,
    features: usize,
    groups: usize,
    best_iteration: Option<usize>,
) -> Result<Booster, Refusal> {
    let count = model.trees.len();
    if model.tree_info.len() != count || weights.as_ref().is_some_and(|weights| weights.len() != count) {
        return Err(Refusal::Damaged(format!("it has {count} trees, but says something else of them")));
    }
    let parallel = model.gbtree_model_param.and_then(|parameters| parameters.num_parallel_tree);
    let parallel = optional_number(parallel.as_deref(), "num_parallel_tree")?.unwrap_or(1).max(1);
    // As the service's container does with a model that was stopped early.
    let used = best_iteration.map_or(count, |best| {
        best.saturating_add(1).saturating_mul(parallel).saturating_mul(groups).min(count)
    });
    let mut forest = Forest::new(features)?;
    let mut tree_groups = Vec::with_capacity(used);
    for (tree, group) in model.trees.iter().zip(&model.tree_info).take(used) {
        let group = usize::try_from(*group).ok().filter(|group| *group < groups);
        tree_groups
            .push(group.ok_or_else(|| Refusal::Damaged("a tree is of a class that does not exist".into()))?);
        add_tree(&mut forest, tree)?;
    }
    Ok(Booster::Trees { forest: forest.finished(), groups: tree_groups, weights })
}

fn add_tree(forest: &mut Forest<f32>, tree: &Tree) -> Result<(), Refusal> {
    let count = tree.left_children.len();
    let lengths = [
        tree.right_children.len(),
        tree.split_indices.len(),
        tree.split_conditions.len(),
        tree.default_left.len(),
    ];
    if lengths.iter().any(|length| *length != count)
        || !(tree.split_type.is_empty() || tree.split_type.len() == count)
    {
        return Err(Refusal::Damaged("the parts of a tree differ in length".into()));
    }
    let leaf_size = tree.tree_param.as_ref().and_then(|parameters| parameters.size_leaf_vector.as_deref());
    if optional_number(leaf_size, "size_leaf_vector")?.is_some_and(|size| size > 1) {
        return Err(Refusal::Unsupported(
            "its trees have leaves of several outputs (multi_strategy multi_output_tree)".into(),
        ));
    }
    if count == 0 {
        return Err(Refusal::Damaged("a tree is empty".into()));
    }
    let sets = add_sets(forest, tree)?;
    forest.add_tree(count, |node| {
        let value = tree.split_conditions[node];
        if tree.left_children[node] == -1 {
            return Ok(Found::Leaf(value));
        }
        let index = |number: i64| usize::try_from(number).unwrap_or(usize::MAX);
        let is_categorical = tree.split_type.get(node).is_some_and(|kind| *kind == 1);
        let mut flags = if tree.default_left[node].0 { DEFAULT_LEFT } else { 0 };
        let value = if is_categorical {
            flags |= CATEGORICAL;
            let set = sets.get(&node);
            *set.ok_or_else(|| Refusal::Damaged("a split by category has no categories".into()))? as f32
        } else {
            value
        };
        Ok(Found::Split {
            value,
            feature: index(tree.split_indices[node]),
            flags,
            left: index(tree.left_children[node]),
            right: index(tree.right_children[node]),
        })
    })
}

/// The sets of categories that a tree's splits send to the right, by node.
fn add_sets(forest: &mut Forest<f32>, tree: &Tree) -> Result<BTreeMap<usize, usize>, Refusal> {
    let broken = || Refusal::Damaged("the categories of a tree do not fit together".into());
    let count = tree.categories_nodes.len();
    if tree.categories_segments.len() != count || tree.categories_sizes.len() != count {
        return Err(broken());
    }
    let mut sets = BTreeMap::new();
    for ((node, segment), size) in
        tree.categories_nodes.iter().zip(&tree.categories_segments).zip(&tree.categories_sizes)
    {
        let index = |number: &i64| usize::try_from(*number).map_err(|_| broken());
        let start = index(segment)?;
        let end = start.checked_add(index(size)?).ok_or_else(broken)?;
        let categories = tree.categories.get(start..end).ok_or_else(broken)?;
        let mut words = Vec::new();
        for category in categories {
            let category = index(category)?;
            if category >= MOST_CATEGORIES as usize {
                return Err(broken());
            }
            words.resize(words.len().max(category / 32 + 1), 0_u32);
            words[category / 32] |= 1 << (category % 32);
        }
        if forest.sets() >= MOST_SETS {
            return Err(Refusal::Unsupported("it has more than 16 million splits by category".into()));
        }
        sets.insert(index(node)?, forest.add_set(words)?);
    }
    Ok(sets)
}

fn linear(model: BoosterModel, features: usize, groups: usize) -> Result<Booster, Refusal> {
    if features > super::MOST_FEATURES {
        return Err(Refusal::Unsupported(format!("it has {features} features")));
    }
    let wanted = (features + 1) * groups;
    if model.weights.len() == wanted {
        Ok(Booster::Linear(model.weights))
    } else {
        Err(Refusal::Damaged(format!("it has {} weights and should have {wanted}", model.weights.len())))
    }
}

/// One base score for all groups, or a list with one for each.
fn base_margins(text: &str, objective: Objective, groups: usize) -> Result<Vec<f32>, Refusal> {
    let list = text.trim().trim_start_matches('[').trim_end_matches(']');
    let wrong = || Refusal::Damaged(format!("base_score {text:?} is not a number"));
    let mut margins = Vec::new();
    for part in list.split(',') {
        let score: f32 = part.trim().parse().map_err(|_| wrong())?;
        margins.push(objective.margin_of(score)?);
    }
    match margins.len() {
        1 => Ok(margins.repeat(groups)),
        count if count == groups => Ok(margins),
        count => Err(Refusal::Damaged(format!("it has {count} base scores for {groups} outputs"))),
    }
}

fn number(text: &str, name: &str) -> Result<usize, Refusal> {
    text.trim().parse().map_err(|_| Refusal::Damaged(format!("{name} {text:?} is not a number")))
}

fn optional_number(text: Option<&str>, name: &str) -> Result<Option<usize>, Refusal> {
    text.map(|text| number(text, name)).transpose()
}
