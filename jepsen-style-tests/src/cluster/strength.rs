use std::process::ExitStatus;
use std::time::Duration;

use tokio::time::Instant;
use unanimo_proto::v1::GetStatusReply;
use unanimo_proto::v1::get_status_reply::Role;

use super::{Cluster, ClusterError, Member};

/// How long to wait before looking again.
const AGAIN: Duration = Duration::from_millis(30);

impl Cluster {
    /// Waits until the cluster has its full strength: every process runs and serves, all nodes follow one leader and
    /// have what it had when this was asked, and every participant is registered. Then it can lose another one.
    /// A process that has ended by itself ends the wait.
    pub async fn wait_until_whole(&mut self, within: Duration) -> Result<(), ClusterError> {
        let deadline = Instant::now() + within;
        let mut had = None;
        loop {
            if let Some((member, status)) = self.ended().into_iter().next() {
                return Err(ClusterError::Ended { member, status });
            }
            let weak = match self.weakness(&mut had).await {
                None => return Ok(()),
                Some(weak) => weak,
            };
            if Instant::now() >= deadline {
                return Err(ClusterError::Late {
                    what: format!("the full strength of the cluster ({weak})"),
                    within,
                });
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// The same after a fault that may have ended this process, at the time or a moment after it was over: then it is
    /// started again, and how it ended is told.
    pub async fn whole_but_for(
        &mut self,
        member: Member,
        within: Duration,
    ) -> Result<Option<ExitStatus>, ClusterError> {
        let status = match self.wait_until_whole(within).await {
            Ok(()) => return Ok(None),
            Err(ClusterError::Ended {
                member: ended,
                status,
            }) if ended == member => status,
            Err(error) => return Err(error),
        };
        self.start_again(member)?;
        self.wait_until_whole(within).await?;
        Ok(Some(status))
    }

    /// What keeps the cluster from its full strength. `had` is what the leader had at first.
    async fn weakness(&self, had: &mut Option<u64>) -> Option<String> {
        let nodes = self.layout().nodes();
        let asked = nodes.map(|node| async move { (node, self.status(node).await) });
        let mut answers: Vec<(u64, GetStatusReply)> = Vec::new();
        for (node, answer) in futures::future::join_all(asked).await {
            match answer {
                Some(answer) => answers.push((node, answer)),
                None => return Some(format!("{} does not answer", Member::Coordinator(node))),
            }
        }
        let Some((leader, said)) = answers.iter().find(|(_, answer)| answer.ready) else {
            return Some("nobody leads".to_owned());
        };
        let mut voters: Vec<u64> = said
            .nodes
            .iter()
            .filter(|node| node.voter)
            .map(|node| node.node)
            .collect();
        voters.sort_unstable();
        if voters != self.layout().nodes().collect::<Vec<_>>() {
            return Some(format!("the voters are {voters:?}"));
        }
        let had = *had.get_or_insert(said.last_log_index);
        for (node, answer) in &answers {
            let follows = answer.leader == *leader && matches!(answer.role(), Role::Leader | Role::Follower);
            if !follows || answer.applied_index < had {
                return Some(format!("{} has yet to catch up", Member::Coordinator(*node)));
            }
        }
        let participants = 1..=self.layout().participants;
        let asked = participants.map(|number| async move {
            let registered = self
                .store_status(number)
                .await
                .is_some_and(|status| status.registered);
            (!registered).then(|| format!("{} has yet to register", Member::Participant(number)))
        });
        futures::future::join_all(asked)
            .await
            .into_iter()
            .flatten()
            .next()
    }
}
