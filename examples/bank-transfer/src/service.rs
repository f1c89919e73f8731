//! The bank's own gRPC service: translations.

use tonic::{Request, Response, Status};
use unanimo_participant::Participant;

use crate::wire::{self, bank_server};
use crate::{AccountId, Bank, BankError, Cents, MAX_PAGE};

/// Serves `bank.v1.Bank`.
pub struct BankService {
    /// The bank.
    pub bank: Bank,
    /// The participant that it is embedded with.
    pub participant: Participant,
}

impl From<BankError> for Status {
    fn from(error: BankError) -> Self {
        match error {
            BankError::Refused { what } => Self::failed_precondition(what),
            BankError::Table(_) | BankError::Damaged { .. } | BankError::Mismatch { .. } => {
                Self::internal(error.to_string())
            }
        }
    }
}

#[tonic::async_trait]
impl bank_server::Bank for BankService {
    async fn load_accounts(
        &self,
        request: Request<wire::LoadAccountsRequest>,
    ) -> Result<Response<wire::LoadAccountsReply>, Status> {
        let accounts: Result<Vec<_>, Status> =
            request.into_inner().accounts.into_iter().map(account).collect();
        self.bank.load(&accounts?).await?;
        Ok(Response::new(wire::LoadAccountsReply {}))
    }

    async fn get_totals(
        &self,
        _: Request<wire::GetTotalsRequest>,
    ) -> Result<Response<wire::GetTotalsReply>, Status> {
        let totals = self.bank.totals()?;
        Ok(Response::new(wire::GetTotalsReply {
            accounts: totals.accounts,
            balance_cents: u64::try_from(totals.balance)
                .map_err(|_| Status::out_of_range(format!("the sum is {} cents", totals.balance)))?,
            ledger_entries: totals.ledger_entries,
        }))
    }

    async fn list_accounts(
        &self,
        request: Request<wire::ListAccountsRequest>,
    ) -> Result<Response<wire::ListAccountsReply>, Status> {
        let request = request.into_inner();
        let after = page_after::<AccountId, _>(&request.after)?;
        let accounts = self.bank.accounts(after, page_limit(request.limit))?;
        let account = |(account, balance): (AccountId, Cents)| wire::Account {
            account: account.to_string(),
            balance_cents: balance.get(),
        };
        Ok(Response::new(wire::ListAccountsReply {
            accounts: accounts.into_iter().map(account).collect(),
        }))
    }

    async fn list_ledger(
        &self,
        request: Request<wire::ListLedgerRequest>,
    ) -> Result<Response<wire::ListLedgerReply>, Status> {
        let request = request.into_inner();
        let after = page_after(&request.after)?;
        let entries = self.bank.ledger(after, page_limit(request.limit))?;
        let entry =
            |(transaction, operation): (unanimo_core::TransactionId, crate::Operation)| wire::LedgerEntry {
                transaction: transaction.to_string(),
                operation: Some(operation.to_wire()),
            };
        Ok(Response::new(wire::ListLedgerReply {
            entries: entries.into_iter().map(entry).collect(),
        }))
    }

    async fn list_audits(
        &self,
        request: Request<wire::ListAuditsRequest>,
    ) -> Result<Response<wire::ListAuditsReply>, Status> {
        let request = request.into_inner();
        let after = page_after(&request.after)?;
        let audits = self.bank.audits(after, page_limit(request.limit))?;
        let entry = |(transaction, total_cents): (unanimo_core::TransactionId, u64)| wire::AuditEntry {
            transaction: transaction.to_string(),
            total_cents,
        };
        Ok(Response::new(wire::ListAuditsReply {
            entries: audits.into_iter().map(entry).collect(),
        }))
    }

    async fn get_statistics(
        &self,
        _: Request<wire::GetStatisticsRequest>,
    ) -> Result<Response<wire::GetStatisticsReply>, Status> {
        let statistics = self.participant.statistics();
        let count = |(time, branches): (std::time::Duration, u64)| wire::InDoubtCount {
            milliseconds: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            branches,
        };
        Ok(Response::new(wire::GetStatisticsReply {
            in_flight: statistics.in_flight as u64,
            in_doubt: statistics.in_doubt as u64,
            violations: statistics.violations,
            committed: statistics.committed,
            aborted: statistics.aborted,
            in_doubt_times: statistics
                .in_doubt_times
                .counts()
                .into_iter()
                .map(count)
                .collect(),
        }))
    }
}

fn account(message: wire::Account) -> Result<(AccountId, Cents), Status> {
    let account = message.account.parse().map_err(|error| {
        let shortened: String = message.account.chars().take(40).collect();
        Status::invalid_argument(format!("account {shortened:?} {error}"))
    })?;
    let balance = Cents::new(message.balance_cents).ok_or_else(|| {
        Status::invalid_argument(format!(
            "a balance of {} cents is too large",
            message.balance_cents
        ))
    })?;
    Ok((account, balance))
}

/// Where a page begins; empty means at the beginning.
fn page_after<T, E>(after: &str) -> Result<Option<T>, Status>
where
    T: std::str::FromStr<Err = E>,
    E: std::fmt::Display,
{
    if after.is_empty() {
        return Ok(None);
    }
    after
        .parse()
        .map(Some)
        .map_err(|error: E| Status::invalid_argument(format!("field after: {error}")))
}

fn page_limit(limit: u32) -> usize {
    if limit == 0 {
        MAX_PAGE
    } else {
        MAX_PAGE.min(limit as usize)
    }
}
