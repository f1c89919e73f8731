//! Books many journeys, waits until nothing is going on any more, and collects what the services say.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use futures::StreamExt as _;
use thiserror::Error;
use tokio::time::{Instant, sleep};
use tonic::Status;
use tonic::transport::Channel;
use unanimo_client::{Client, ClientError};
use unanimo_core::IdError;
use unanimo_proto::transport::{BadAddress, Connector as _, TcpConnector};

use crate::Trade;
use crate::audit::{Ledgers, Violation, audit};
use crate::cluster::{Addresses, CLUSTER, Cluster, ClusterError};
use crate::journey::{Agency, Order, Outcome};
use crate::wire::ledger_client::LedgerClient;
use crate::wire::{GetStatusReply, GetStatusRequest, ListRequest};

/// Cards among which travellers share. With a few hundred journeys some of them reach their limit.
const CARDS: usize = 50;
/// How often a service is asked how it is.
const POLL_EVERY: Duration = Duration::from_millis(50);
/// How long the processes may take to find each other, and to come to rest.
const WAIT: Duration = Duration::from_secs(60);
/// How long one question may take.
const CALL: Duration = Duration::from_secs(2);

/// Why a run came to no audit.
#[derive(Debug, Error)]
pub enum RunError {
    /// The processes do not run.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The cluster has no name.
    #[error(transparent)]
    Name(#[from] IdError),
    /// There is no client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// An address is not one.
    #[error(transparent)]
    Address(#[from] BadAddress),
    /// A service does not tell what it has.
    #[error("{trade} does not tell what it has: {source}")]
    Silent {
        /// Which one.
        trade: Trade,
        /// What was heard instead.
        source: Status,
    },
    /// Something that has to happen does not.
    #[error("waited {WAIT:?} in vain until {what}")]
    TimedOut {
        /// What did not happen.
        what: String,
    },
}

/// Talks to the processes of a run.
#[derive(Clone)]
pub struct Travel {
    agency: Agency,
    ledgers: BTreeMap<Trade, LedgerClient<Channel>>,
}

impl Travel {
    /// Knows where everybody serves.
    pub fn new(addresses: &Addresses) -> Result<Self, RunError> {
        let client = Client::connect(CLUSTER.parse()?, addresses.coordinators().iter().cloned())?;
        let mut ledgers = BTreeMap::new();
        for trade in Trade::ALL {
            let channel = TcpConnector::default().channel(addresses.service(trade))?;
            ledgers.insert(trade, LedgerClient::new(channel));
        }
        Ok(Self {
            agency: Agency::new(client, addresses)?,
            ledgers,
        })
    }

    /// Returns when every service serves and is known to the cluster.
    pub async fn until_ready(&self, cluster: &mut Cluster) -> Result<(), RunError> {
        let ready = |status: &GetStatusReply| status.registered;
        self.until("every service serves and is registered", cluster, ready)
            .await
    }

    /// Returns when no service holds anything any more.
    pub async fn until_at_rest(&self, cluster: &mut Cluster) -> Result<(), RunError> {
        let at_rest = |status: &GetStatusReply| status.registered && status.holding + status.in_flight == 0;
        self.until("nothing is held any more", cluster, at_rest).await
    }

    async fn until(
        &self,
        what: &str,
        cluster: &mut Cluster,
        holds: impl Fn(&GetStatusReply) -> bool,
    ) -> Result<(), RunError> {
        let started = Instant::now();
        loop {
            let mut statuses = Vec::new();
            for trade in Trade::ALL {
                statuses.push(self.status(trade).await);
            }
            let all = statuses.iter().all(|status| status.as_ref().is_ok_and(&holds));
            if all {
                return Ok(());
            }
            cluster.check()?;
            if started.elapsed() > WAIT {
                let what = format!("{what} ({statuses:?})");
                return Err(RunError::TimedOut { what });
            }
            sleep(POLL_EVERY).await;
        }
    }

    /// How a service is.
    pub async fn status(&self, trade: Trade) -> Result<GetStatusReply, Status> {
        let mut request = tonic::Request::new(GetStatusRequest {});
        request.set_timeout(CALL);
        Ok(self.ledgers[&trade]
            .clone()
            .get_status(request)
            .await?
            .into_inner())
    }

    /// Books journeys, so many at once.
    pub async fn book(&self, orders: Vec<Order>, at_once: usize) -> Vec<Outcome> {
        let book = |order: Order| async move { self.agency.book(&order).await };
        futures::stream::iter(orders)
            .map(book)
            .buffer_unordered(at_once)
            .collect()
            .await
    }

    /// Everything that the services have committed.
    pub async fn ledgers(&self) -> Result<Ledgers, RunError> {
        let mut ledgers = Ledgers::new();
        for trade in Trade::ALL {
            let silent = |source| RunError::Silent { trade, source };
            let ledger = ledgers.entry(trade).or_default();
            let mut after = String::new();
            loop {
                let request = ListRequest {
                    after: std::mem::take(&mut after),
                };
                let page = self.ledgers[&trade].clone().list(request).await.map_err(silent)?;
                for entry in page.into_inner().entries {
                    after.clone_from(&entry.transaction);
                    let transaction = entry.transaction.parse()?;
                    ledger.insert(transaction, entry.claim.unwrap_or_default());
                }
                if after.is_empty() {
                    break;
                }
            }
        }
        Ok(ledgers)
    }
}

/// Orders of travellers who share some cards.
pub fn orders(count: usize) -> Vec<Order> {
    let order = |number: usize| Order {
        traveller: format!("traveller-{number}"),
        card: format!("card-{}", number % CARDS + 1),
    };
    (1..=count).map(order).collect()
}

/// Books journeys and audits what is left.
pub async fn run(cluster: &mut Cluster, journeys: usize, at_once: usize) -> Result<Report, RunError> {
    let travel = Travel::new(cluster.addresses())?;
    travel.until_ready(cluster).await?;
    let started = Instant::now();
    let outcomes = travel.book(orders(journeys), at_once).await;
    let took = started.elapsed();
    travel.until_at_rest(cluster).await?;
    let ledgers = travel.ledgers().await?;
    Ok(Report {
        violations: audit(&outcomes, &ledgers),
        outcomes,
        ledgers,
        took,
    })
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What every traveller was told.
    pub outcomes: Vec<Outcome>,
    /// What every service has.
    pub ledgers: Ledgers,
    /// What is wrong. Empty is right.
    pub violations: Vec<Violation>,
    /// How long the journeys took together.
    pub took: Duration,
}

impl Report {
    /// Whether the audit holds, and shows something: in a run in which nothing was booked, nothing could go wrong.
    pub fn holds(&self) -> bool {
        self.violations.is_empty() && self.booked() > 0
    }

    fn booked(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Booked(_)))
    }

    /// How many outcomes are like this.
    pub fn count(&self, like: impl Fn(&Outcome) -> bool) -> usize {
        self.outcomes.iter().filter(|outcome| like(outcome)).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        writeln!(f, "{} journeys in {seconds:.1} s", self.outcomes.len())?;
        writeln!(f, "  booked               {:>6}", self.booked())?;
        for trade in Trade::ALL {
            let refused = self.count(|outcome| matches!(outcome, Outcome::Refused(_, by) if *by == trade));
            writeln!(f, "  refused by {:<9} {refused:>6}", trade.as_str())?;
        }
        let failed = self.count(|outcome| matches!(outcome, Outcome::Failed(..)));
        writeln!(f, "  failed               {failed:>6}")?;
        let unknown = self.count(|outcome| matches!(outcome, Outcome::Unknown(..)));
        writeln!(f, "  unknown              {unknown:>6}")?;
        writeln!(f, "in the ledgers")?;
        for (trade, ledger) in &self.ledgers {
            writeln!(f, "  {:<20} {:>6}", trade.as_str(), ledger.len())?;
        }
        writeln!(f, "violations             {:>6}", self.violations.len())?;
        for violation in self.violations.iter().take(20) {
            writeln!(f, "  {violation}")?;
        }
        let verdict = match (self.holds(), self.violations.is_empty()) {
            (true, _) => "every journey has its seat, its room and its payment, or none of them",
            (false, true) => "no journey was booked, so this run shows nothing",
            (false, false) => "the audit does not hold",
        };
        f.write_str(verdict)
    }
}

#[cfg(test)]
mod tests {
    use unanimo_core::{Timestamp, TransactionId};

    use super::*;

    #[test]
    fn a_run_in_which_nothing_was_booked_shows_nothing() {
        let id = TransactionId::new(Timestamp::from_unix_ms(1), 0);
        let refused = Report {
            outcomes: vec![Outcome::Refused(id, Trade::Payment)],
            ..Report::default()
        };
        assert!(!refused.holds() && refused.to_string().contains("shows nothing"));
        let booked = Report {
            outcomes: vec![Outcome::Booked(id)],
            ..Report::default()
        };
        assert!(booked.holds());
        let wrong = Report {
            violations: vec![Violation::Lost(id)],
            ..booked
        };
        assert!(!wrong.holds() && wrong.to_string().contains("does not hold"));
    }
}
