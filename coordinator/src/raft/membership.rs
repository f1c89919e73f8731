//! Forming a cluster, changing its members, and handing the leadership over.
//!
//! One change ends before the next begins, and a change that has begun goes on even if nobody waits for it any
//! more: it has two steps, and a cluster should not be left between them. If it is all the same, because the
//! leader died, the next change first finishes that one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::errors::{ClientWriteError, InitializeError, RaftError};
use openraft::{BasicNode, ChangeMembers, LogIdOptionExt as _};

use super::replica::{Metrics, Replica, leads};
use super::type_config::TypeConfig;
use super::{MembershipError, NodeId};

/// How long one change is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// A new node votes once it is this close to the leader, in entries: what it lacks then is sent within moments.
const CLOSE: u64 = 1000;

type Changes = ChangeMembers<u64, BasicNode>;

impl Replica {
    /// Forms a new cluster of these members, this node among them. To be called on one of them only; if it is
    /// called on several, then with the same members.
    ///
    /// # Errors
    ///
    /// [`MembershipError::Formed`] if this node belongs to a cluster already, [`MembershipError::NotAMember`].
    pub(crate) async fn form(&self, members: BTreeMap<NodeId, String>) -> Result<(), MembershipError> {
        let nodes: BTreeMap<u64, BasicNode> = members
            .into_iter()
            .map(|(id, address)| (id.0, BasicNode::new(address)))
            .collect();
        match self.shared.raft.initialize(nodes).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Err(MembershipError::Formed),
            Err(RaftError::APIError(InitializeError::NotInMembers(_))) => Err(MembershipError::NotAMember {
                node: self.shared.options.node,
            }),
            Err(RaftError::Fatal(fatal)) => Err(MembershipError::Failed(fatal.to_string())),
        }
    }

    /// Adds an empty node to the cluster: it follows first, and votes once it has caught up. Ends with the node
    /// as a voter. Called again for a node that follows already, it goes on from there.
    ///
    /// # Errors
    ///
    /// [`MembershipError::UsedBefore`] for an id that was ever given out, as far as this cluster knows.
    pub(crate) async fn add_node(
        &self,
        node: NodeId,
        address: impl Into<String>,
    ) -> Result<(), MembershipError> {
        let address = address.into();
        self.change(move |replica| async move { replica.carry_out_add(node, address).await })
            .await
    }

    /// Removes a node from the cluster, for ever. A leader that removes itself hands the leadership over.
    ///
    /// # Errors
    ///
    /// [`MembershipError::NoMember`], and [`MembershipError::LastVoter`] for the only voter.
    pub(crate) async fn remove_node(&self, node: NodeId) -> Result<(), MembershipError> {
        self.change(move |replica| async move { replica.carry_out_remove(node).await })
            .await
    }

    /// Hands the leadership to another voter, and returns once it leads.
    ///
    /// # Errors
    ///
    /// [`MembershipError::Unknown`] if it does not lead soon. Nothing is lost by that: this node goes on leading,
    /// or whoever is elected does.
    pub(crate) async fn transfer_leader(&self, to: NodeId) -> Result<(), MembershipError> {
        let metrics = self.leading()?;
        if !metrics.membership_config.voter_ids().any(|voter| voter == to.0) {
            return Err(MembershipError::NoMember { node: to });
        }
        let trigger = self.shared.raft.trigger().transfer_leader(to.0).await;
        trigger.map_err(|fatal| MembershipError::Failed(fatal.to_string()))?;
        let mut leadership = self.leadership();
        let led = leadership.wait_for(|now| now.leader.as_ref().is_some_and(|leader| leader.node == to));
        let patience = Duration::from_millis(4 * self.shared.options.election_max_ms);
        match tokio::time::timeout(patience, led).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(MembershipError::Failed("it has been shut down".to_owned())),
            Err(_) => Err(MembershipError::Unknown {
                reason: format!("{to} does not lead after {patience:?}"),
            }),
        }
    }

    /// Runs one change at a time, in a task of its own.
    async fn change<F>(
        &self,
        carry_out: impl FnOnce(Replica) -> F + Send + 'static,
    ) -> Result<(), MembershipError>
    where
        F: Future<Output = Result<(), MembershipError>> + Send + 'static,
    {
        let replica = self.clone();
        let turn = self.shared.changing.clone().lock_owned().await;
        let task = tokio::spawn(async move {
            let done = carry_out(replica).await;
            drop(turn);
            done
        });
        match tokio::time::timeout(PATIENCE, task).await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => Err(MembershipError::Failed(error.to_string())),
            Err(_) => Err(MembershipError::Unknown {
                reason: format!("it is still going on after {PATIENCE:?}"),
            }),
        }
    }

    async fn carry_out_add(&self, node: NodeId, address: String) -> Result<(), MembershipError> {
        self.finish_interrupted_change().await?;
        let metrics = self.leading()?;
        let voter = metrics.membership_config.voter_ids().any(|voter| voter == node.0);
        match metrics.membership_config.get_node(&node.0) {
            Some(known) if voter || known.addr != address => {
                return Err(MembershipError::Member {
                    node,
                    address: known.addr.clone(),
                });
            }
            Some(_) => {}
            None if self
                .shared
                .storage
                .machine
                .applied()
                .known_nodes
                .contains(&node.0) =>
            {
                return Err(MembershipError::UsedBefore { node });
            }
            None => {
                let learner = BTreeMap::from([(node.0, BasicNode::new(address))]);
                self.change_membership(ChangeMembers::AddNodes(learner), true)
                    .await?;
            }
        }
        self.wait_until_close(node).await?;
        self.change_membership(ChangeMembers::AddVoterIds(BTreeSet::from([node.0])), true)
            .await
    }

    async fn carry_out_remove(&self, node: NodeId) -> Result<(), MembershipError> {
        self.finish_interrupted_change().await?;
        let metrics = self.leading()?;
        let membership = &metrics.membership_config;
        if membership.get_node(&node.0).is_none() {
            return Err(MembershipError::NoMember { node });
        }
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        if voters.len() == 1 && voters.contains(&node.0) {
            return Err(MembershipError::LastVoter { node });
        }
        let nodes = BTreeSet::from([node.0]);
        let changes = if voters.contains(&node.0) {
            ChangeMembers::RemoveVoters(nodes)
        } else {
            ChangeMembers::RemoveNodes(nodes)
        };
        self.change_membership(changes, false).await
    }

    /// Leaves the state between the two steps of a change that nobody is carrying out any more.
    async fn finish_interrupted_change(&self) -> Result<(), MembershipError> {
        if self.leading()?.membership_config.get_joint_config().len() < 2 {
            return Ok(());
        }
        tracing::info!("finishing a change of the membership that was interrupted");
        self.change_membership(ChangeMembers::AddVoterIds(BTreeSet::new()), false)
            .await
    }

    /// Waits until a new node has nearly everything.
    async fn wait_until_close(&self, node: NodeId) -> Result<(), MembershipError> {
        let close = |metrics: &Metrics| {
            if !leads(metrics) {
                return true;
            }
            let matched = metrics
                .replication
                .as_ref()
                .and_then(|matched| matched.get(&node.0))
                .copied()
                .flatten();
            let last = metrics.last_log_index.map_or(0, |last| last + 1);
            matched.is_some() && last - matched.next_index().min(last) <= CLOSE
        };
        // Half of the patience, so that the second step has the other half.
        let wait = self.shared.raft.wait(Some(PATIENCE / 2));
        if wait.metrics(close, "new node caught up").await.is_err() {
            return Err(MembershipError::CatchingUp { node });
        }
        self.leading().map(drop)
    }

    async fn change_membership(&self, changes: Changes, retain: bool) -> Result<(), MembershipError> {
        match self.shared.raft.change_membership(changes, retain).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(error)) => Err(self.not_changed(error)),
            Err(RaftError::Fatal(fatal)) => Err(MembershipError::Failed(fatal.to_string())),
        }
    }

    fn not_changed(&self, error: ClientWriteError<TypeConfig>) -> MembershipError {
        match error {
            ClientWriteError::ForwardToLeader(forward) => MembershipError::NotLeader {
                leader: self.leader_of(forward),
            },
            ClientWriteError::LogEntryDiscarded(_)
            | ClientWriteError::ChangeMembershipError(_)
            | ClientWriteError::PreconditionFailed(_) => MembershipError::Unknown {
                reason: error.to_string(),
            },
        }
    }

    /// The metrics of a node that leads.
    fn leading(&self) -> Result<Metrics, MembershipError> {
        let metrics = self.metrics();
        if leads(&metrics) {
            return Ok(metrics);
        }
        let leader = self.shared.leadership.borrow().leader.clone();
        Err(MembershipError::NotLeader { leader })
    }
}
