//! The normal distribution.

/// How many standard errors are to each side of a mean in an interval of 95 %.
pub const Z_95: f64 = 1.959_963_984_540_054;

/// The probability that a standard normal variable is above `z`; right within 1e-7.
pub fn above_normal(z: f64) -> f64 {
    // Of the complementary error function, in the rational form of Numerical Recipes' Chebyshev fit.
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * x);
    let series = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let exponent = series.iter().rev().fold(0.0, |sum, coefficient| sum * t + coefficient);
    let upper = 0.5 * t * (-x * x + exponent).exp();
    if z >= 0.0 { upper } else { 1.0 - upper }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_distribution_is_right() {
        for (z, expected) in
            [(0.0, 0.5), (1.0, 0.158_655_3), (1.96, 0.024_997_9), (-1.0, 0.841_344_7), (4.0, 3.167e-5)]
        {
            assert!((above_normal(z) - expected).abs() < 2e-7, "{z}");
        }
    }
}
