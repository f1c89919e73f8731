use std::collections::BTreeSet;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::Rng as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::time::Instant;
use unanimo_client::Client;

use super::answers::Answers;
use super::kept::{Kept, Memory, Message};
use super::{PATIENCE, SERVES, channel, to_participants};
use crate::cluster::{CLUSTER, Cluster, Member};
use crate::late::{Came, LateAnswers};
use crate::nemesis::{Fault, NemesisError};
use crate::tap::HoldRequest;
use crate::tap::tap_client::TapClient;

/// How long a call to be held is waited for.
const COMES: Duration = Duration::from_secs(4);

/// Some calls do not reach a participant, and reach it later, in another order: when their transactions have moved on, and
/// perhaps after the participant was killed and started again.
#[derive(Default)]
pub(super) struct Hold {
    holding: Option<Holding>,
    answers: Answers,
}

struct Holding {
    at: Member,
    /// Draws the order in which they come.
    random: StdRng,
    restart: bool,
    memory: Memory,
    held: Vec<Kept>,
}

impl Fault for Hold {
    fn name(&self) -> &'static str {
        "hold-messages"
    }

    fn lasts(&self, random: &mut StdRng) -> Duration {
        Duration::from_millis(random.random_range(300..1500))
    }

    fn begin<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        random: &'a mut StdRng,
    ) -> BoxFuture<'a, Result<String, NemesisError>> {
        async move {
            let at = Member::Participant(random.random_range(1..=cluster.layout().participants));
            let hold = HoldRequest {
                prepares: random.random_range(1..6),
                commits: random.random_range(1..6),
                aborts: random.random_range(0..4),
                silent: random.random_bool(0.5),
            };
            let (restart, random) = (random.random_bool(0.4), StdRng::from_rng(random));
            let mut holding = Holding {
                at,
                random,
                restart,
                memory: Memory::default(),
                held: Vec::new(),
            };
            tell(cluster, at, hold).await?;
            let deadline = Instant::now() + COMES;
            while holding.held.is_empty() && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(20)).await;
                holding.look(cluster).await?;
            }
            self.holding = Some(holding);
            Ok(format!(
                "at {at} held, {}: the Prepares of up to {} transactions, {} Commits, {} Aborts; delivered later{}",
                if hold.silent { "in silence" } else { "as unavailable" },
                hold.prepares,
                hold.commits,
                hold.aborts,
                if restart { ", when it was killed and started again" } else { "" },
            ))
        }
        .boxed()
    }

    fn end<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
    ) -> BoxFuture<'a, Result<Option<String>, NemesisError>> {
        async move {
            let Some(mut holding) = self.holding.take() else {
                return Ok(None);
            };
            holding.look(cluster).await?;
            holding.give_up_some(cluster).await?;
            holding.look(cluster).await?;
            // Nothing more is held from here on.
            tell(cluster, holding.at, HoldRequest::default()).await?;
            cluster.note_healed();
            holding.look(cluster).await?;
            if holding.restart {
                cluster.kill_together(&[holding.at])?;
                cluster.start_again(holding.at)?;
                cluster.note_healed();
                cluster.wait_until_whole(SERVES).await?;
            }
            let Some(process) = cluster.process(holding.at) else {
                return Ok(None);
            };
            let mut letters = Vec::new();
            for kept in &holding.held {
                letters.extend(to_participants::again(
                    &holding.memory,
                    process,
                    kept,
                    Came::Late,
                    &mut holding.random,
                ));
            }
            let mut answers = Answers::default();
            answers.add(to_participants::send(cluster, letters, &mut holding.random).await?);
            let summary = answers.summary();
            self.answers.absorb(answers);
            Ok(summary.map(|summary| format!("{} held; delivered late: {summary}", holding.held.len())))
        }
        .boxed()
    }

    fn answers(&self) -> Vec<LateAnswers> {
        self.answers.of(self.name())
    }
}

impl Holding {
    /// What has come so far.
    async fn look(&mut self, cluster: &Cluster) -> Result<(), NemesisError> {
        for kept in super::kept::take(cluster, self.at).await? {
            if kept.held {
                self.held.push(kept);
            } else {
                self.memory.add(kept);
            }
        }
        Ok(())
    }

    /// Some initiators lose patience: their transactions are aborted before the Prepare comes. Who has committed already
    /// stays so.
    async fn give_up_some(&mut self, cluster: &Cluster) -> Result<(), NemesisError> {
        let other = |error: &dyn std::fmt::Display| NemesisError::Other(error.to_string());
        let name = CLUSTER
            .parse()
            .map_err(|error: unanimo_core::IdError| other(&error))?;
        let client =
            Client::connect(name, cluster.addresses().coordinators()).map_err(|error| other(&error))?;
        let mut transactions = BTreeSet::new();
        for kept in &self.held {
            if let Message::Prepare(prepare) = &kept.message
                && self.random.random_bool(0.6)
            {
                let members = prepare.members.iter().map(|name| name.parse());
                let members: Result<unanimo_core::Members, _> = members.collect();
                transactions.insert((kept.transaction, members.map_err(|error| other(&error))?));
            }
        }
        // Whatever it is told: the message comes late all the same.
        let aborts = transactions
            .iter()
            .map(|(transaction, members)| client.abort(transaction.0, members, PATIENCE));
        let _ = futures::future::join_all(aborts).await;
        Ok(())
    }
}

async fn tell(cluster: &Cluster, at: Member, hold: HoldRequest) -> Result<(), NemesisError> {
    let mut request = tonic::Request::new(hold);
    request.set_timeout(PATIENCE);
    let told = TapClient::new(channel(cluster, at)?).hold(request).await;
    told.map(drop)
        .map_err(|status| NemesisError::Other(format!("{at}: {status}")))
}
