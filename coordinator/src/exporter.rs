//! Serves a node's metrics to Prometheus.

use std::net::SocketAddr;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use thiserror::Error;

/// The steps of the histograms, in seconds: from one quorum write on a fast disk to the longest voting phase.
const SECONDS: [f64; 15] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
];

/// The metrics cannot be served.
#[derive(Debug, Error)]
#[error("cannot serve metrics on {address} (configuration key metrics_address): {source}")]
pub struct ExportError {
    /// Where they were to be served.
    pub address: SocketAddr,
    /// Why not.
    pub source: BuildError,
}

/// Collects what this process counts from now on, and serves it to Prometheus at `http://address/metrics`. For a whole
/// process, once, before its node starts, and on the runtime that serves.
///
/// # Errors
///
/// [`ExportError`], for example if another process listens there. Nothing was started.
pub fn export_metrics(address: SocketAddr) -> Result<(), ExportError> {
    PrometheusBuilder::new()
        .with_http_listener(address)
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .and_then(PrometheusBuilder::install)
        .map_err(|source| ExportError { address, source })
}
