//! What a test counts.

use std::collections::BTreeMap;

use metrics_util::MetricKind;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

/// Collects what the code of one test counts. The test and everything it starts run on one thread, so other tests do
/// not disturb it.
pub(crate) struct Counted {
    snapshotter: Snapshotter,
    /// Gone with the test.
    _here: metrics::LocalRecorderGuard<'static>,
}

impl Counted {
    /// Collects from here on, on this thread.
    pub(crate) fn start() -> Self {
        let recorder = Box::leak(Box::new(DebuggingRecorder::new()));
        Self {
            snapshotter: recorder.snapshotter(),
            _here: metrics::set_default_local_recorder(recorder),
        }
    }

    /// The counters that have risen since this was last called, as `name{label=value,…}`, and by how much.
    pub(crate) fn risen(&self) -> BTreeMap<String, u64> {
        let all = self.snapshotter.snapshot().into_vec().into_iter();
        all.filter_map(|(key, _, _, value)| match value {
            DebugValue::Counter(count) if count > 0 => Some((text(key.key()), count)),
            _ => None,
        })
        .collect()
    }

    /// What the gauges say that were set since anything was last looked at.
    pub(crate) fn gauges(&self) -> BTreeMap<String, f64> {
        let all = self.snapshotter.snapshot().into_vec().into_iter();
        all.filter_map(|(key, _, _, value)| match (key.kind(), value) {
            (MetricKind::Gauge, DebugValue::Gauge(value)) => Some((text(key.key()), value.0)),
            _ => None,
        })
        .collect()
    }

    /// What the histograms took in since anything was last looked at.
    pub(crate) fn histograms(&self) -> BTreeMap<String, Vec<f64>> {
        let all = self.snapshotter.snapshot().into_vec().into_iter();
        all.filter_map(|(key, _, _, value)| match value {
            DebugValue::Histogram(values) => {
                Some((text(key.key()), values.into_iter().map(|value| value.0).collect()))
            }
            _ => None,
        })
        .collect()
    }
}

/// The name without what all names begin with, and the labels in order.
fn text(key: &metrics::Key) -> String {
    let mut labels: Vec<String> = key
        .labels()
        .map(|label| format!("{}={}", label.key(), label.value()))
        .collect();
    labels.sort();
    let name = key.name().trim_start_matches("unanimo_coordinator_");
    format!("{name}{{{}}}", labels.join(","))
}

/// What is expected to have risen, each by one.
pub(crate) fn once(names: &[&str]) -> BTreeMap<String, u64> {
    names.iter().map(|name| ((*name).to_owned(), 1)).collect()
}
