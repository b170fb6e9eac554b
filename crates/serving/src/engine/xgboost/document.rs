//! The parts of an XGBoost model file that predictions need. What is left out here is skipped while it is read.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use super::ubj;
use crate::engine::refusal::Refusal;

#[derive(Deserialize)]
pub(crate) struct Document {
    /// Of the library that wrote it.
    #[serde(default)]
    pub(crate) version: Vec<i64>,
    pub(crate) learner: Learner,
}

#[derive(Deserialize)]
pub(crate) struct Learner {
    #[serde(default)]
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) gradient_booster: GradientBooster,
    pub(crate) learner_model_param: LearnerParameters,
    pub(crate) objective: ObjectiveName,
}

/// Numbers, written as texts.
#[derive(Deserialize)]
pub(crate) struct LearnerParameters {
    pub(crate) base_score: String,
    pub(crate) num_feature: String,
    #[serde(default)]
    pub(crate) num_class: Option<String>,
    #[serde(default)]
    pub(crate) num_target: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct ObjectiveName {
    pub(crate) name: String,
}

#[derive(Deserialize)]
pub(crate) struct GradientBooster {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) model: Option<BoosterModel>,
    /// The trees of a booster with dropout, and their weights.
    #[serde(default)]
    pub(crate) gbtree: Option<Inner>,
    #[serde(default)]
    pub(crate) weight_drop: Vec<f32>,
}

#[derive(Deserialize)]
pub(crate) struct Inner {
    pub(crate) model: BoosterModel,
}

#[derive(Deserialize)]
pub(crate) struct BoosterModel {
    #[serde(default)]
    pub(crate) gbtree_model_param: Option<TreeModelParameters>,
    #[serde(default)]
    pub(crate) tree_info: Vec<i64>,
    #[serde(default)]
    pub(crate) trees: Vec<Tree>,
    /// Of a linear booster.
    #[serde(default)]
    pub(crate) weights: Vec<f32>,
}

#[derive(Deserialize)]
pub(crate) struct TreeModelParameters {
    #[serde(default)]
    pub(crate) num_parallel_tree: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Tree {
    pub(crate) left_children: Vec<i64>,
    pub(crate) right_children: Vec<i64>,
    pub(crate) split_indices: Vec<i64>,
    pub(crate) split_conditions: Vec<f32>,
    pub(crate) default_left: Vec<Flag>,
    #[serde(default)]
    pub(crate) split_type: Vec<i64>,
    #[serde(default)]
    pub(crate) categories: Vec<i64>,
    #[serde(default)]
    pub(crate) categories_nodes: Vec<i64>,
    #[serde(default)]
    pub(crate) categories_segments: Vec<i64>,
    #[serde(default)]
    pub(crate) categories_sizes: Vec<i64>,
    #[serde(default)]
    pub(crate) tree_param: Option<TreeParameters>,
}

#[derive(Deserialize)]
pub(crate) struct TreeParameters {
    #[serde(default)]
    pub(crate) size_leaf_vector: Option<String>,
}

/// A truth, which some releases write as a number.
#[derive(Clone, Copy)]
pub(crate) struct Flag(pub(crate) bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FlagVisitor)
    }
}

struct FlagVisitor;

impl Visitor<'_> for FlagVisitor {
    type Value = Flag;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("true, false, 0 or 1")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Flag, E> {
        Ok(Flag(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Flag, E> {
        Ok(Flag(value != 0))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Flag, E> {
        Ok(Flag(value != 0))
    }
}

/// Whether the bytes begin like a model in JSON or in its binary form.
pub(crate) fn is_model(bytes: &[u8]) -> bool {
    bytes.first() == Some(&b'{')
}

/// Reads a model in JSON or in its binary form.
pub(crate) fn read(bytes: &[u8]) -> Result<Document, Refusal> {
    // In JSON a quote follows the brace; in the binary form the length of a key does.
    let second = bytes.iter().skip(1).find(|byte| !byte.is_ascii_whitespace());
    if matches!(second, Some(b'"' | b'}')) {
        serde_json::from_slice(bytes)
            .map_err(|error| Refusal::Damaged(format!("it is no XGBoost model in JSON ({error})")))
    } else {
        ubj::read(bytes)
            .map_err(|error| Refusal::Damaged(format!("it is no XGBoost model in UBJSON ({error})")))
    }
}
