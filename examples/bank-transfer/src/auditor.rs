//! The auditor: asks for the sum of all accounts again and again while transfers run, each time as a transaction.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use unanimo_client::Client;
use unanimo_core::{Operation as BranchOperation, ParticipantId, TransactionId};
use unanimo_proto::transport::{Clock as _, SystemClock};

use crate::BankName;
use crate::asked::Asked;
use crate::load::{Told, submit};
use crate::progress::Progress;

/// How far ahead an audit's cut is: about as long as the request for it takes to reach the banks.
const CUT_AHEAD: Duration = Duration::from_millis(15);

/// An audit that was submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubmittedAudit {
    /// Its transaction.
    pub transaction: TransactionId,
    /// What came back. The sums are with the banks.
    pub told: Told,
}

/// Audits until the load is over. One that is refused because too much was going on is not repeated: the next one comes
/// soon.
pub(crate) async fn audit_again_and_again(
    client: Client,
    every: Duration,
    patience: Duration,
    progress: &Progress,
) -> Vec<SubmittedAudit> {
    let mut reached = progress.reached();
    let mut audits = Vec::new();
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Both only wait.
        tokio::select! {
            _ = reached.wait_for(|reached| reached.over) => return audits,
            _ = ticks.tick() => {}
        }
        let transaction = client.new_transaction();
        let told = submit(&client, transaction, branches(), patience).await;
        audits.push(SubmittedAudit { transaction, told });
    }
}

fn branches() -> Vec<(ParticipantId, BranchOperation)> {
    let cut = SystemClock.now().after(CUT_AHEAD);
    let branch = |bank: BankName| {
        let operation = BranchOperation::new(Asked::Audit { cut }.encode());
        (bank.participant(), operation)
    };
    BankName::ALL.into_iter().map(branch).collect()
}
