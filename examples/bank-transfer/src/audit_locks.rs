//! Shared locks on a whole bank: while an audit reads, no transfer begins.
//!
//! # Why an audit that commits has seen a consistent cut
//!
//! It is strict two-phase locking with one lock for each bank. A transfer shares a bank with other transfers, from its
//! promise until it is applied or aborted there; an audit shares it with other audits, from its reading until it is
//! decided. The two never have it together. An audit that commits held *both* banks from its later reading on until it
//! was decided, because each vote Yes comes after the lock and the decision after both votes.
//!
//! Take a transfer that one bank had applied before the audit read there. It had committed, so both banks had promised it
//! earlier. The promise at the other bank cannot have come after the audit's lock there: that lock is let go only after
//! the audit's decision, which comes after both readings, and so after the commit that needed the promise. So the promise came first, and the audit
//! waited there until the transfer was applied. Nothing is ever seen by halves.
//!
//! # Why it does not get stuck
//!
//! A transfer may have promised at one bank and arrive at the other after the audit has locked it: each waits for the
//! other. So an audit waits for a limited time, then votes No and is tried again; and a transfer does too. To make that
//! rare, an audit names a moment in the near future, its cut: transfers begun before the cut still pass at both banks,
//! those begun later wait at both, and the lock is taken once the cut is past. Clocks that differ make it less rare, and
//! nothing wrong.

use std::collections::BTreeMap;

use unanimo_core::{Timestamp, TransactionId};

/// Audits at once, at most. One is usual; each holds the transfers up, so more would only be a mistake or an attack.
const MAX_AUDITS: usize = 8;

/// The audits that are under way at one bank.
#[derive(Debug, Default)]
pub(crate) struct AuditLocks {
    audits: BTreeMap<TransactionId, AuditLock>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AuditLock {
    /// It waits for the transfers that were begun before its cut.
    Announced { cut: Timestamp },
    /// It has read, and no transfer may begin.
    Held,
}

impl AuditLocks {
    /// Keeps out what begins after the cut from now on. False if too many audits are under way.
    pub(crate) fn announce(&mut self, audit: TransactionId, cut: Timestamp) -> bool {
        if self.audits.len() >= MAX_AUDITS && !self.audits.contains_key(&audit) {
            return false;
        }
        self.audits.insert(audit, AuditLock::Announced { cut });
        true
    }

    /// Keeps everybody out from now on.
    pub(crate) fn hold(&mut self, audit: TransactionId) {
        self.audits.insert(audit, AuditLock::Held);
    }

    /// Lets go of what the audit has, if anything.
    pub(crate) fn release(&mut self, audit: TransactionId) {
        self.audits.remove(&audit);
    }

    /// Whether a transfer has to wait.
    pub(crate) fn keep_out(&self, transfer: TransactionId) -> bool {
        self.audits.values().any(|lock| match *lock {
            AuditLock::Announced { cut } => transfer.timestamp() >= cut,
            AuditLock::Held => true,
        })
    }
}
