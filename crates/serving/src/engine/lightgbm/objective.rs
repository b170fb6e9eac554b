//! What LightGBM's objectives make of the sum of the leaves.

use crate::engine::refusal::Refusal;

/// How sums become predictions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Objective {
    /// They are the predictions.
    Identity,
    /// The square, with the sign kept: the target was its root.
    Square,
    Exponential,
    /// With the factor of the exponent.
    Sigmoid(f64),
    Softmax,
    /// The logarithm of one and the exponential.
    SoftPlus,
}

impl Objective {
    /// By the words of a model file: a name, and parameters such as `sigmoid:1`.
    pub(crate) fn named(words: &str) -> Result<Self, Refusal> {
        let mut words = words.split_ascii_whitespace();
        let name = words.next().unwrap_or_default();
        let parameters: Vec<&str> = words.collect();
        let sigmoid = || {
            let text = parameters.iter().find_map(|word| word.strip_prefix("sigmoid:"));
            let factor = text.map_or(Ok(1.0), str::parse);
            factor.map(Self::Sigmoid).map_err(|_| Refusal::Damaged("its sigmoid is not a number".into()))
        };
        Ok(match name {
            "regression" | "regression_l2" if parameters.contains(&"sqrt") => Self::Square,
            "" | "regression" | "regression_l2" | "regression_l1" | "huber" | "fair" | "quantile"
            | "mape" | "lambdarank" | "rank_xendcg" | "custom" => Self::Identity,
            "poisson" | "gamma" | "tweedie" => Self::Exponential,
            "binary" | "multiclassova" => sigmoid()?,
            "cross_entropy" => Self::Sigmoid(1.0),
            "cross_entropy_lambda" => Self::SoftPlus,
            "multiclass" => Self::Softmax,
            other => {
                return Err(Refusal::Unsupported(format!(
                    "its objective {other} is not one that the native engine computes"
                )));
            }
        })
    }

    /// Turns the sums of a row into predictions, in place.
    pub(crate) fn transform(self, sums: &mut [f64]) {
        let each = |sums: &mut [f64], change: &dyn Fn(f64) -> f64| {
            sums.iter_mut().for_each(|sum| *sum = change(*sum));
        };
        match self {
            Self::Identity => {}
            Self::Square => each(sums, &|sum| sum.signum() * sum * sum),
            Self::Exponential => each(sums, &f64::exp),
            Self::Sigmoid(factor) => each(sums, &|sum| 1.0 / (1.0 + (-factor * sum).exp())),
            Self::SoftPlus => each(sums, &|sum| sum.exp().ln_1p()),
            Self::Softmax => softmax(sums),
        }
    }
}

fn softmax(sums: &mut [f64]) {
    let highest = sums.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut total = 0.0;
    for sum in sums.iter_mut() {
        *sum = (*sum - highest).exp();
        total += *sum;
    }
    sums.iter_mut().for_each(|sum| *sum /= total);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &str, sums: &[f64]) -> Vec<f64> {
        let mut sums = sums.to_vec();
        Objective::named(words).unwrap().transform(&mut sums);
        sums
    }

    #[test]
    fn each_family_has_its_transform() {
        assert_eq!(of("regression", &[-2.0]), [-2.0]);
        assert_eq!(of("regression sqrt", &[-2.0, 3.0]), [-4.0, 9.0]);
        assert_eq!(of("poisson", &[0.0]), [1.0]);
        assert_eq!(of("binary sigmoid:2", &[0.5]), [1.0 / (1.0 + (-1.0_f64).exp())]);
        assert_eq!(of("multiclass num_class:2", &[7.0, 7.0]), [0.5, 0.5]);
        assert_eq!(of("multiclassova num_class:2 sigmoid:1", &[0.0, 0.0]), [0.5, 0.5]);
        assert_eq!(of("cross_entropy_lambda", &[0.0]), [2.0_f64.ln()]);
        assert!(Objective::named("my_own").is_err() && Objective::named("binary sigmoid:x").is_err());
    }
}
