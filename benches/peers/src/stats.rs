//! Medians, and how sure they are.

use std::fmt;

/// A median with its 95 % interval by order statistics: no assumption about how the noise is distributed.
#[derive(Clone, Copy, Debug)]
pub struct Estimate {
    /// The median.
    pub median: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end of the interval.
    pub high: f64,
}

impl Estimate {
    /// Of at least 30 values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let count = values.len();
        // The number of values below the true median is binomial: n/2 +- 1.96 * sqrt(n)/2 holds 95 % of it.
        #[expect(clippy::cast_precision_loss, reason = "there are not that many rounds")]
        let half = (count as f64).sqrt() * 0.98;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number")]
        let half = half.ceil() as usize;
        let rank = (count / 2).saturating_sub(half + 1);
        Self { median: middle(&values), low: values[rank], high: values[count - 1 - rank] }
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} [{:.2}, {:.2}]", self.median, self.low, self.high)
    }
}

/// Of values in any order.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    middle(&values)
}

fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) }
}
