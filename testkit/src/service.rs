//! What a service author brings.

use std::error::Error;
use std::future::Future;

use unanimo_participant::{Bytes, ResourceManager};

use crate::Storage;

/// Why a service does not open.
pub type OpenError = Box<dyn Error + Send + Sync>;

/// A service under test. The kit makes one with fresh data for every run, and opens it again after each crash.
///
/// What is durable lives in the value itself or in the [`Storage`]; what is in memory lives in the
/// [`Manager`](Self::Manager), which a crash takes away.
pub trait Service: Send + Sync + 'static {
    /// Its resource manager.
    type Manager: ResourceManager;

    /// Opens the data, at the first start as well as after a crash.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from opening. While the kit cuts the power it is tried again after the next start.
    fn open(&self, storage: &Storage) -> impl Future<Output = Result<Self::Manager, OpenError>> + Send;

    /// What has happened to the data for good, as text: balances, stock, bookings. Holds are not part of it. The same
    /// effects give the same text.
    fn effects(&self, manager: &Self::Manager) -> impl Future<Output = String> + Send;

    /// What the kit may ask for.
    fn operations(&self) -> Operations;
}

/// The operations that a service is tested with. All of them are possible with fresh data unless they say otherwise.
#[derive(Clone, Debug)]
pub struct Operations {
    /// Changes something, and can be committed.
    pub operation: Bytes,
    /// Can be committed, but not while `operation` is held: it wants the same seat, or the rest of the same money.
    pub rival: Bytes,
    /// Is always refused. None if there is no such operation.
    pub refused: Option<Bytes>,
    /// Only reads. None if there is no such operation.
    pub read: Option<Bytes>,
}
