//! The statistics that verdicts about models and endpoints need.

mod normal;
mod paired;
mod rates;
mod samples;

pub use paired::{Mean, paired_chance};
pub use rates::{Rates, rate_interval, rates};
pub use samples::{Weighted, count, kolmogorov_smirnov, mann_whitney, moments, quantile, weighted};
