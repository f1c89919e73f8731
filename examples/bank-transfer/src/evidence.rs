//! Collects what everybody says, over the wire.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use thiserror::Error;
use tokio::time::timeout;
use tonic::{Response, Status};
use unanimo_client::{CallError, Client, Decision, TransactionId};

use crate::audit::Evidence;
use crate::auditor::SubmittedAudit;
use crate::cluster::{Cluster, ClusterError, Role};
use crate::faults::Injected;
use crate::load::Submitted;
use crate::observer::Observer;
use crate::{
    AccountId, BankFiles, BankFilesError, BankName, Cents, MAX_PAGE, Operation, opening_balances, wire,
};

/// How long one question waits; a page of a ledger takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// Outcomes asked for at once.
const CONCURRENT: usize = 64;

/// Why there is no evidence. Nothing may be concluded about any transfer.
#[derive(Debug, Error)]
pub enum EvidenceError {
    /// A bank does not answer.
    #[error("{bank} does not answer: {problem}")]
    Bank {
        /// Which one.
        bank: BankName,
        /// What it met.
        problem: String,
    },
    /// A bank cannot be ended.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// What a bank leaves behind cannot be read.
    #[error("the files of {bank}: {source}")]
    Files {
        /// Which one.
        bank: BankName,
        /// What was met.
        source: BankFilesError,
    },
    /// The coordinators do not answer.
    #[error("the coordinators do not tell the outcome of transaction {transaction}: {source}")]
    Coordinators {
        /// What was asked about.
        transaction: TransactionId,
        /// What it met.
        source: CallError,
    },
}

/// Opens the accounts of both banks.
pub(crate) async fn load_accounts(observer: &Observer) -> Result<(), EvidenceError> {
    for bank in BankName::ALL {
        let account = |(account, balance): (AccountId, Cents)| wire::Account {
            account: account.to_string(),
            balance_cents: balance.get(),
        };
        let request = wire::LoadAccountsRequest {
            accounts: opening_balances(bank).map(account).collect(),
        };
        let mut client = observer.bank(bank);
        ask(bank, client.load_accounts(request)).await?;
    }
    Ok(())
}

/// Asks everybody, once nothing is going on any more.
pub(crate) async fn collect(
    observer: &Observer,
    client: &Client,
    submitted: Vec<Submitted>,
    audits: Vec<SubmittedAudit>,
    injected: &Injected,
) -> Result<Evidence, EvidenceError> {
    let transfers = submitted.iter().map(|submitted| submitted.transaction);
    let all = transfers
        .chain(audits.iter().map(|audit| audit.transaction))
        .collect();
    let mut evidence = Evidence {
        opening: BankName::ALL.into_iter().flat_map(opening_balances).collect(),
        recorded: recorded(client, all).await?,
        submitted,
        audits,
        ..Evidence::default()
    };
    for bank in BankName::ALL {
        evidence.closing.extend(accounts(observer, bank).await?);
        evidence.ledgers.insert(bank, ledger(observer, bank).await?);
        evidence.sums.insert(bank, sums(observer, bank).await?);
        let mut client = observer.bank(bank);
        let statistics = ask(bank, client.get_statistics(wire::GetStatisticsRequest {})).await?;
        let refused_before = injected.refused_messages.get(&bank).copied().unwrap_or(0);
        evidence
            .refused_messages
            .insert(bank, refused_before + statistics.violations);
    }
    Ok(evidence)
}

async fn recorded(
    client: &Client,
    transactions: Vec<TransactionId>,
) -> Result<BTreeMap<TransactionId, Decision>, EvidenceError> {
    let asked = transactions.into_iter().map(|transaction| async move {
        let outcome = client.outcome(transaction, PATIENCE).await;
        let decision = outcome.map_err(|source| EvidenceError::Coordinators { transaction, source })?;
        Ok(decision.map(|decision| (transaction, decision)))
    });
    let decided = stream::iter(asked).buffer_unordered(CONCURRENT);
    decided
        .try_filter_map(async |decided| Ok(decided))
        .try_collect()
        .await
}

async fn accounts(observer: &Observer, bank: BankName) -> Result<BTreeMap<AccountId, Cents>, EvidenceError> {
    let mut client = observer.bank(bank);
    let mut accounts = BTreeMap::new();
    let mut after = String::new();
    loop {
        let request = wire::ListAccountsRequest {
            after,
            limit: MAX_PAGE as u32,
        };
        let page = ask(bank, client.list_accounts(request)).await?.accounts;
        let Some(last) = page.last() else {
            return Ok(accounts);
        };
        after = last.account.clone();
        for entry in page {
            let account = entry.account.parse().map_err(|error| unreadable(bank, error))?;
            let balance =
                Cents::new(entry.balance_cents).ok_or_else(|| unreadable(bank, "a balance is too large"))?;
            accounts.insert(account, balance);
        }
    }
}

async fn ledger(
    observer: &Observer,
    bank: BankName,
) -> Result<BTreeMap<TransactionId, Operation>, EvidenceError> {
    let mut client = observer.bank(bank);
    let mut ledger = BTreeMap::new();
    let mut after = String::new();
    loop {
        let request = wire::ListLedgerRequest {
            after,
            limit: MAX_PAGE as u32,
        };
        let page = ask(bank, client.list_ledger(request)).await?.entries;
        let Some(last) = page.last() else {
            return Ok(ledger);
        };
        after = last.transaction.clone();
        for entry in page {
            let transaction = entry
                .transaction
                .parse()
                .map_err(|error| unreadable(bank, error))?;
            let operation = entry
                .operation
                .ok_or_else(|| unreadable(bank, "an entry has no operation"))?;
            ledger.insert(
                transaction,
                Operation::from_wire(&operation).map_err(|error| unreadable(bank, error))?,
            );
        }
    }
}

async fn sums(observer: &Observer, bank: BankName) -> Result<BTreeMap<TransactionId, u64>, EvidenceError> {
    let mut client = observer.bank(bank);
    let mut sums = BTreeMap::new();
    let mut after = String::new();
    loop {
        let request = wire::ListAuditsRequest {
            after,
            limit: MAX_PAGE as u32,
        };
        let page = ask(bank, client.list_audits(request)).await?.entries;
        let Some(last) = page.last() else { return Ok(sums) };
        after = last.transaction.clone();
        for entry in page {
            let transaction = entry.transaction.parse();
            let transaction = transaction.map_err(|error| unreadable(bank, error))?;
            sums.insert(transaction, entry.total_cents);
        }
    }
}

/// Ends the banks and reads what they leave behind: their own word on what they promised, and when they heard how it
/// ended.
pub(crate) async fn read_bank_files(
    cluster: &mut Cluster,
) -> Result<BTreeMap<BankName, BankFiles>, EvidenceError> {
    let mut files = BTreeMap::new();
    for bank in BankName::ALL {
        let role = Role::Bank(bank);
        cluster.kill(role)?;
        let folder = cluster.data(role);
        // It may be many megabytes.
        let read = tokio::task::spawn_blocking(move || BankFiles::read(&folder)).await;
        let read = match read {
            Ok(read) => read.map_err(|source| EvidenceError::Files { bank, source })?,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        files.insert(bank, read);
    }
    Ok(files)
}

async fn ask<A>(
    bank: BankName,
    call: impl Future<Output = Result<Response<A>, Status>>,
) -> Result<A, EvidenceError> {
    match timeout(PATIENCE, call).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => Err(unreadable(bank, status.message())),
        Err(_) => Err(unreadable(bank, format!("no answer within {PATIENCE:?}"))),
    }
}

fn unreadable(bank: BankName, problem: impl ToString) -> EvidenceError {
    EvidenceError::Bank {
        bank,
        problem: problem.to_string(),
    }
}
