//! What XGBoost's objectives make of the sum of the leaves, and of the base score before it.

use crate::engine::refusal::Refusal;

/// How margins become predictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Objective {
    /// They are the predictions.
    Identity,
    Logistic,
    Hinge,
    Exponential,
    /// The number of the class with the highest margin.
    Softmax,
    /// The probabilities of all classes.
    Softprob,
}

impl Objective {
    /// By its name in a model file.
    pub(crate) fn named(name: &str) -> Result<Self, Refusal> {
        Ok(match name {
            "binary:logitraw"
            | "reg:squarederror"
            | "reg:linear"
            | "reg:squaredlogerror"
            | "reg:pseudohubererror"
            | "reg:absoluteerror"
            | "reg:quantileerror"
            | "rank:pairwise"
            | "rank:ndcg"
            | "rank:map" => Self::Identity,
            "binary:logistic" | "reg:logistic" => Self::Logistic,
            "binary:hinge" => Self::Hinge,
            "count:poisson" | "reg:gamma" | "reg:tweedie" => Self::Exponential,
            "multi:softmax" => Self::Softmax,
            "multi:softprob" => Self::Softprob,
            other => {
                return Err(Refusal::Unsupported(format!(
                    "its objective {other} is not one that the native engine computes"
                )));
            }
        })
    }

    /// The margin that the base score of a model file stands for.
    pub(crate) fn margin_of(self, base_score: f32) -> Result<f32, Refusal> {
        let margin = match self {
            Self::Logistic => -(1.0 / base_score - 1.0).ln(),
            Self::Exponential => base_score.ln(),
            Self::Identity | Self::Hinge | Self::Softmax | Self::Softprob => base_score,
        };
        if margin.is_finite() {
            Ok(margin)
        } else {
            Err(Refusal::Damaged(format!("its base score {base_score} is out of the range of its objective")))
        }
    }

    /// Turns the margins of one row, one for each class or target, into predictions in place, and says how many there are.
    pub(crate) fn transform(self, margins: &mut [f32]) -> usize {
        match self {
            Self::Identity => {}
            Self::Logistic => margins.iter_mut().for_each(|margin| *margin = sigmoid(*margin)),
            Self::Hinge => {
                margins.iter_mut().for_each(|margin| *margin = f32::from(u8::from(*margin > 0.0)));
            }
            Self::Exponential => margins.iter_mut().for_each(|margin| *margin = margin.exp()),
            Self::Softprob => softmax(margins),
            Self::Softmax => {
                let mut best = 0;
                for (class, margin) in margins.iter().enumerate() {
                    if *margin > margins[best] {
                        best = class;
                    }
                }
                if let Some(first) = margins.first_mut() {
                    *first = best as f32;
                }
                return 1;
            }
        }
        margins.len()
    }
}

/// As the library writes it, down to the constants, so that the last bit is the same.
fn sigmoid(margin: f32) -> f32 {
    const SMALLEST: f32 = 1e-16;
    let power = (-margin).min(88.7);
    1.0 / (power.exp() + 1.0 + SMALLEST)
}

fn softmax(margins: &mut [f32]) {
    let highest = margins.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0_f64;
    for margin in margins.iter_mut() {
        *margin = (*margin - highest).exp();
        sum += f64::from(*margin);
    }
    margins.iter_mut().for_each(|margin| *margin /= sum as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, margins: &[f32]) -> Vec<f32> {
        let mut values = margins.to_vec();
        let count = Objective::named(name).unwrap().transform(&mut values);
        values.truncate(count);
        values
    }

    #[test]
    fn each_family_has_its_transform() {
        assert_eq!(of("reg:squarederror", &[-2.0]), [-2.0]);
        assert_eq!(of("binary:logistic", &[0.0]), [0.5]);
        assert_eq!(of("binary:logistic", &[-1e9, 1e9]), [1.0 / (88.7_f32.exp() + 1.0), 1.0]);
        assert_eq!(of("binary:hinge", &[-0.1, 0.0, 0.1]), [0.0, 0.0, 1.0]);
        assert_eq!(of("count:poisson", &[0.0]), [1.0]);
        assert_eq!(of("multi:softmax", &[1.0, 3.0, 3.0, 2.0]), [1.0]);
        assert_eq!(of("multi:softprob", &[5.0, 5.0]), [0.5, 0.5]);
        for name in ["survival:cox", "survival:aft", "my:own", ""] {
            assert!(Objective::named(name).is_err(), "{name}");
        }
    }

    #[test]
    fn base_scores_become_margins() {
        let margin = |name: &str, score| Objective::named(name).unwrap().margin_of(score);
        assert_eq!(margin("binary:logistic", 0.5), Ok(-0.0));
        assert_eq!(margin("reg:squarederror", 3.0), Ok(3.0));
        assert_eq!(margin("count:poisson", 1.0), Ok(0.0));
        for wrong in [0.0, 1.0, -1.0, 2.0, f32::NAN] {
            assert!(margin("binary:logistic", wrong).is_err(), "{wrong}");
        }
    }
}
