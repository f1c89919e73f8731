use std::process::ExitStatus;
use std::time::Duration;

use tokio::time::Instant;
use unanimo_coordinator::{Operator, OperatorError};
use unanimo_proto::v1::GetStatusReply;

use super::{Cluster, ClusterError, Member, Surroundings};

/// How long a node may take to answer once it was started.
const START: Duration = Duration::from_secs(10);
/// How long a process may take to end once it was asked to. A node waits up to 5 s for what is voting.
const END: Duration = Duration::from_secs(10);
/// How long a change of members may take. The last attempt may take as long as an operator waits, besides.
const MEMBERSHIP: Duration = Duration::from_secs(45);
/// How long it may take until another node leads. One attempt takes 2 to 3 s if it fails.
const TRANSFER: Duration = Duration::from_secs(20);
/// How long an election may take.
const ELECTION: Duration = Duration::from_secs(10);

impl Cluster {
    /// Adds a node under an id that was never used, as an operator does. When this returns it votes, and there is one
    /// more node than there is to be: [`remove_oldest`](Self::remove_oldest) is to follow.
    pub async fn add_node(&mut self) -> Result<u64, ClusterError> {
        let node = self.layout.replaced + self.layout.coordinators + 1;
        let member = Member::Coordinator(node);
        let address = self.place.add(member).map_err(|source| ClusterError::Unusable {
            what: format!("an address for {member}"),
            source,
        })?;
        self.add_disk(member)?;
        self.addresses.add(member, address.clone());
        self.start_new(member, true)?;
        self.wait_until_new(node, START).await?;
        let add = |operator: Operator| {
            let address = address.clone();
            async move { operator.add_node(node, address).await }
        };
        self.until_member(node, true, add).await?;
        Ok(node)
    }

    /// Removes the oldest node for good, after another was added, and ends its process. Returns which it was, and how it
    /// ended. Who follows the addresses is told; a participant knows of it from its next start on.
    pub async fn remove_oldest(&mut self) -> Result<(u64, ExitStatus), ClusterError> {
        let node = self.layout.replaced + 1;
        let member = Member::Coordinator(node);
        let remove = |operator: Operator| async move { operator.remove_node(node).await };
        self.until_member(node, false, remove).await?;
        self.layout.replaced += 1;
        self.addresses.remove(member);
        self.terminate(member)?;
        let ended = self.wait_for_end(member, END).await?;
        self.children.remove(&member);
        self.former.push(member);
        self.changes.send_replace(self.addresses.clone());
        for number in 1..=self.layout.participants {
            let participant = Member::Participant(number);
            let arguments = self.arguments(participant, false)?;
            if let Some(child) = self.children.get_mut(&participant) {
                child.set_arguments(arguments);
            }
        }
        Ok((node, ended))
    }

    /// Tells whoever leads until the leader says that the node votes, or is no member. Operators tell it again when a
    /// leader is replaced meanwhile, or the new node has yet to catch up.
    async fn until_member<F>(
        &self,
        node: u64,
        is_to_be: bool,
        tell: impl Fn(Operator) -> F,
    ) -> Result<(), ClusterError>
    where
        F: Future<Output = Result<(), OperatorError>>,
    {
        let deadline = Instant::now() + MEMBERSHIP;
        loop {
            let leader = self.wait_for_leader(ELECTION).await?;
            if let Some(status) = self.status(leader).await {
                let known = status.nodes.iter().find(|known| known.node == node);
                let done = match is_to_be {
                    true => known.is_some_and(|known| known.voter),
                    false => known.is_none(),
                };
                if done {
                    return Ok(());
                }
            }
            let operator = Operator::of(self.addresses.of(Member::Coordinator(leader)))?;
            match tell(operator).await {
                Ok(()) => {}
                Err(error) if Instant::now() >= deadline => return Err(error.into()),
                Err(error) => tracing::warn!(%error, node, "told again"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Hands leadership to another node, as an operator does, and waits until it leads. A leader whose word does not
    /// arrive in time goes on leading, and is told again.
    pub async fn transfer_leader(&self, to: u64) -> Result<GetStatusReply, ClusterError> {
        let deadline = Instant::now() + TRANSFER;
        loop {
            if let Some(status) = self.status(to).await.filter(|status| status.ready) {
                return Ok(status);
            }
            let leader = self.wait_for_leader(ELECTION).await?;
            if leader != to {
                let operator = Operator::of(self.addresses.of(Member::Coordinator(leader)))?;
                match operator.transfer_leader(to).await {
                    Ok(()) => {}
                    Err(error) if Instant::now() >= deadline => return Err(error.into()),
                    Err(error) => tracing::warn!(%error, to, "told again"),
                }
            }
            if Instant::now() >= deadline {
                return Err(ClusterError::Late {
                    what: format!("the leadership of {}", Member::Coordinator(to)),
                    within: TRANSFER,
                });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends a process in order and starts it again, with the arguments it has by now. Says how it ended.
    pub async fn restart(&mut self, member: Member) -> Result<ExitStatus, ClusterError> {
        self.restart_in(member, &Surroundings::default()).await
    }

    /// So too, and it comes back in surroundings that are not the usual ones.
    pub async fn restart_in(
        &mut self,
        member: Member,
        surroundings: &Surroundings,
    ) -> Result<ExitStatus, ClusterError> {
        self.terminate(member)?;
        let ended = self.wait_for_end(member, END).await?;
        self.start_in(member, surroundings)?;
        Ok(ended)
    }

    /// Waits until a node that was started has heard that it is new. One that is added before takes itself for one that
    /// has lost its disk, and ends.
    async fn wait_until_new(&self, node: u64, within: Duration) -> Result<(), ClusterError> {
        let deadline = Instant::now() + within;
        while !self
            .status(node)
            .await
            .is_some_and(|status| status.waiting_to_form)
        {
            if Instant::now() >= deadline {
                return Err(ClusterError::Late {
                    what: format!("{} that waits to be added", Member::Coordinator(node)),
                    within,
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}
