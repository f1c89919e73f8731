//! What a bank may meet.

use thiserror::Error;
use unanimo_participant::ResourceError;
use unanimo_table::TableError;

/// Why a bank cannot go on, or was asked for something that it does not do.
#[derive(Debug, Error)]
pub enum BankError {
    /// The table failed. Whether the last change is there is not known.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The table holds something that no bank has written.
    #[error("the accounts are damaged: {what}")]
    Damaged {
        /// What was found.
        what: String,
    },
    /// A transaction would do again what it has done, or take an account where it cannot go: the accounts do not
    /// fit the participant's journal.
    #[error("the accounts and the participant's journal do not fit: {what}; restore both from the same copy")]
    Mismatch {
        /// What does not fit.
        what: String,
    },
    /// The call cannot be carried out; nothing was changed.
    #[error("{what}")]
    Refused {
        /// Why.
        what: String,
    },
}

impl From<BankError> for ResourceError {
    /// None of them goes away by asking again.
    fn from(error: BankError) -> Self {
        Self::failed(error)
    }
}
