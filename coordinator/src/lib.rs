//! The coordinator of Unanimo: runs transactions, and replicates every decision before anybody hears it.
//!
//! * `raft` replicates the decision table: openraft on our journal and tables. Nothing outside it knows openraft.
//! * `driver` runs transactions on the leader, and makes a new leader go on where the old one left.
//! * `service` translates between gRPC messages and the driver.
//! * `forming` brings new nodes together, and keeps out those that forgot.
//! * `metrics` names everything that is counted, `observer` looks at the rest, `exporter` serves it to Prometheus.
//! * `node` puts it together; `config` says how.
//!
//! The `unanimo` binary is a thin shell around [`run`] and [`Operator`].

mod config;
mod driver;
mod exporter;
mod forming;
mod metrics;
#[cfg(feature = "mutants")]
#[doc(hidden)]
pub mod mutants;
mod node;
mod observer;
mod operator;
mod raft;
mod service;
mod signals;

pub use config::{Config, ConfigError, LimitsConfig, RaftConfig};
pub use exporter::{ExportError, export_metrics};
pub use forming::FormingError;
pub use node::{IdSource, Parts, RandomIds, RunError, run, run_with};
pub use operator::{Operator, OperatorError};
#[cfg(feature = "simulation")]
pub use raft::seed_raft;
pub use raft::{Background, NodeId, StartError};
pub use signals::until_terminated;
