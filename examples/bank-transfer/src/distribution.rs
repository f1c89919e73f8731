//! How times are spread.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Some of a distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// Half are not above this.
    pub p50: f64,
    /// 99 of 100 are not above this.
    pub p99: f64,
    /// None is above this.
    pub max: f64,
}

impl Quantiles {
    /// Of a histogram whose values are so many for one of what is told.
    pub(crate) fn of(histogram: &Histogram<u64>, unit: f64) -> Self {
        let at = |share| histogram.value_at_quantile(share) as f64 / unit;
        Self {
            p50: at(0.5),
            p99: at(0.99),
            max: histogram.max() as f64 / unit,
        }
    }
}

/// For microseconds up to ten minutes, or milliseconds up to a week, to three digits.
pub(crate) fn new_histogram() -> Histogram<u64> {
    match Histogram::new_with_bounds(1, 600_000_000, 3) {
        Ok(histogram) => histogram,
        Err(error) => unreachable!("the bounds are constants: {error}"),
    }
}
