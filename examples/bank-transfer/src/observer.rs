//! Asks the processes how they are.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;
use unanimo_proto::transport::{BadAddress, Connector as _, MAX_MESSAGE_BYTES, TcpConnector};
use unanimo_proto::v1::{GetStatusReply, GetStatusRequest, admin_client::AdminClient, get_status_reply};

use crate::BankName;
use crate::cluster::{Addresses, NODES, Role};
use crate::wire::{GetStatisticsReply, GetStatisticsRequest, bank_client::BankClient};

/// How long one question waits. A process that is being killed does not answer.
const PATIENCE: Duration = Duration::from_millis(300);
/// How often a question is repeated while something is waited for.
pub(crate) const POLL_EVERY: Duration = Duration::from_millis(20);

/// Asks the processes how they are. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Observer {
    coordinators: BTreeMap<u64, AdminClient<Channel>>,
    banks: BTreeMap<BankName, BankClient<Channel>>,
}

/// How everybody is, once nothing is going on any more or while it still is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing is in flight or in doubt anywhere, and everybody answers.
    Reached,
    /// What is not at rest yet, for people.
    NotYet(String),
}

impl Observer {
    /// An observer of the processes at these addresses.
    pub fn new(addresses: &Addresses) -> Result<Self, BadAddress> {
        let connector = TcpConnector::default();
        let coordinator = |node| {
            let channel = connector.channel(addresses.of(Role::Coordinator(node)))?;
            Ok((node, AdminClient::new(channel)))
        };
        let bank = |bank| {
            let client = BankClient::new(connector.channel(addresses.of(Role::Bank(bank)))?);
            let client = client.max_decoding_message_size(MAX_MESSAGE_BYTES);
            Ok((bank, client.max_encoding_message_size(MAX_MESSAGE_BYTES)))
        };
        Ok(Self {
            coordinators: (1..=NODES).map(coordinator).collect::<Result<_, BadAddress>>()?,
            banks: BankName::ALL
                .into_iter()
                .map(bank)
                .collect::<Result<_, BadAddress>>()?,
        })
    }

    /// The bank's own service.
    pub fn bank(&self, bank: BankName) -> BankClient<Channel> {
        self.banks[&bank].clone()
    }

    /// The node that leads and takes transactions, if one says so.
    pub async fn leader(&self) -> Option<GetStatusReply> {
        let statuses: FuturesUnordered<_> = self.coordinators.keys().map(|&node| self.status(node)).collect();
        let leading = statuses.filter_map(async |status| {
            status.filter(|status| status.role() == get_status_reply::Role::Leader && status.ready)
        });
        // The first that says so is enough: whoever is away need not be waited for.
        std::pin::pin!(leading).next().await
    }

    /// How long it takes, from `since` on, until a node leads. None if it takes longer than this.
    pub async fn until_leader(&self, since: Instant, longest: Duration) -> Option<Duration> {
        while since.elapsed() < longest {
            if self.leader().await.is_some() {
                return Some(since.elapsed());
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
        None
    }

    /// Whether a leader is there that knows where both banks are.
    pub async fn is_ready(&self) -> bool {
        let Some(leader) = self.leader().await else {
            return false;
        };
        let registered = |bank: &BankName| {
            leader
                .participants
                .iter()
                .any(|known| known.participant == bank.to_string())
        };
        BankName::ALL.iter().all(registered)
    }

    /// Whether every coordinator has what was decided up to now, so that one can be spared.
    pub async fn all_coordinators_caught_up(&self) -> bool {
        let Some(leader) = self.leader().await else {
            return false;
        };
        // Asked after the leader: by now they know of more.
        for &node in self.coordinators.keys() {
            let caught_up = self.status(node).await.is_some_and(|status| {
                status.leader == leader.node && status.last_log_index >= leader.applied_index
            });
            if !caught_up {
                return false;
            }
        }
        true
    }

    /// Whether anything is still going on.
    pub async fn rest(&self) -> Rest {
        for &node in self.coordinators.keys() {
            if self.status(node).await.is_none() {
                return Rest::NotYet(format!("{} does not answer", Role::Coordinator(node)));
            }
        }
        match self.leader().await {
            Some(leader) if leader.in_flight + leader.completing > 0 => {
                return Rest::NotYet(format!(
                    "the leader has {} in flight and {} to deliver",
                    leader.in_flight, leader.completing
                ));
            }
            Some(_) => {}
            None => return Rest::NotYet("there is no leader".to_owned()),
        }
        for &bank in self.banks.keys() {
            match self.statistics(bank).await {
                Some(statistics) if statistics.in_flight + statistics.in_doubt > 0 => {
                    return Rest::NotYet(format!(
                        "{bank} has {} branches in flight, {} in doubt",
                        statistics.in_flight, statistics.in_doubt
                    ));
                }
                Some(_) => {}
                None => return Rest::NotYet(format!("{bank} does not answer")),
            }
        }
        Rest::Reached
    }

    /// What a bank has counted since it started, if it answers.
    pub async fn statistics(&self, bank: BankName) -> Option<GetStatisticsReply> {
        let mut client = self.bank(bank);
        let reply = timeout(PATIENCE, client.get_statistics(GetStatisticsRequest {})).await;
        Some(reply.ok()?.ok()?.into_inner())
    }

    /// What a node knows of itself, if it answers.
    async fn status(&self, node: u64) -> Option<GetStatusReply> {
        let mut client = self.coordinators[&node].clone();
        let reply = timeout(PATIENCE, client.get_status(GetStatusRequest::default())).await;
        Some(reply.ok()?.ok()?.into_inner())
    }
}
