use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use tokio::time::Instant;

use super::answers::Answers;
use super::kept::{Kept, Memory, Message, Shared};
use super::{SERVES, participants, to_coordinators, to_participants};
use crate::cluster::{Cluster, Member};
use crate::late::{Came, LateAnswers};
use crate::nemesis::{Fault, NemesisError};

/// Kept calls that are sent again in one round.
const ROUND: usize = 60;
/// Transactions that coordinators are told of again in one round.
const TOLD: usize = 8;
/// What is remembered for so long at most is forgotten during a run.
const WINDOW: Duration = Duration::from_secs(20);
/// How long it may take until something was forgotten: a window, and the time until everybody has heard of it.
const FORGETS: Duration = Duration::from_secs(40);

/// Messages are sent again: to participants and coordinators, to some whom they were not meant for, before and after a
/// participant was killed and started again. Those of transactions long past are among them.
pub(super) struct Replay {
    after_forgetting: bool,
    shared: Shared,
    /// What is shared, during its turn.
    memory: Memory,
    answers: Answers,
    /// What this time was answered.
    latest: Option<String>,
}

impl Replay {
    /// Of what the participants remember.
    pub(super) fn soon(shared: Shared) -> Self {
        Self {
            after_forgetting: false,
            shared,
            memory: Memory::default(),
            answers: Answers::default(),
            latest: None,
        }
    }

    /// Of what everybody may have forgotten.
    pub(super) fn after_forgetting(shared: Shared) -> Self {
        Self {
            after_forgetting: true,
            ..Self::soon(shared)
        }
    }

    /// Those that are sent again.
    fn choose(&self, cluster: &Cluster, random: &mut StdRng) -> Vec<Kept> {
        let kept = self.memory.kept();
        let eligible: Vec<&Kept> = kept
            .iter()
            .filter(|kept| !self.after_forgetting || self.memory.is_closed(cluster, kept.transaction))
            .collect();
        eligible
            .choose_multiple(random, ROUND)
            .copied()
            .cloned()
            .collect()
    }

    /// Waits until there is something to send.
    async fn learn(&mut self, cluster: &Cluster) -> Result<(), NemesisError> {
        let within = if self.after_forgetting {
            FORGETS
        } else {
            Duration::from_secs(5)
        };
        let deadline = Instant::now() + within;
        loop {
            self.memory.refresh(cluster).await?;
            let ready = |kept: &Kept| {
                kept.message.method() == "Commit"
                    && (!self.after_forgetting || self.memory.is_closed(cluster, kept.transaction))
            };
            if self.memory.kept().iter().any(ready) || Instant::now() >= deadline {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn to_participants(
        &self,
        cluster: &Cluster,
        chosen: &[Kept],
        random: &mut StdRng,
    ) -> Result<Answers, NemesisError> {
        let mut letters = Vec::new();
        for kept in chosen {
            let Some(process) = cluster.process(kept.to) else {
                continue;
            };
            letters.extend(to_participants::again(
                &self.memory,
                process,
                kept,
                Came::Again,
                random,
            ));
            letters.extend(to_participants::contradiction(&self.memory, process, kept));
            if random.random_bool(0.3) {
                letters.extend(to_participants::to_the_wrong_one(cluster, kept));
            }
        }
        let mut answers = Answers::default();
        answers.add(to_participants::send(cluster, letters, random).await?);
        Ok(answers)
    }

    async fn to_coordinators(
        &self,
        cluster: &Cluster,
        chosen: &[Kept],
        random: &mut StdRng,
    ) -> Result<Answers, NemesisError> {
        let watermark = to_coordinators::watermark(cluster).await;
        let prepares = chosen
            .iter()
            .filter(|kept| matches!(kept.message, Message::Prepare(_)));
        let mut letters: Vec<_> = prepares
            .take(TOLD)
            .flat_map(|kept| to_coordinators::about(&self.memory, kept, watermark))
            .collect();
        letters.extend(to_coordinators::old_lives(cluster).await);
        let mut answers = Answers::default();
        answers.add(to_coordinators::send(cluster, &letters, random).await?);
        Ok(answers)
    }

    /// What happens in one turn, and the same in words.
    async fn send_again(
        &mut self,
        cluster: &mut Cluster,
        random: &mut StdRng,
    ) -> Result<String, NemesisError> {
        self.latest = None;
        self.learn(cluster).await?;
        let chosen = self.choose(cluster, random);
        let mut answers = self.to_participants(cluster, &chosen, random).await?;
        answers.absorb(self.to_coordinators(cluster, &chosen, random).await?);
        let number = random.random_range(1..=participants(cluster).len() as u64);
        let restarted = Member::Participant(number);
        // What it has kept goes with it.
        self.memory.refresh(cluster).await?;
        cluster.kill_together(&[restarted])?;
        cluster.start_again(restarted)?;
        cluster.note_healed();
        cluster.wait_until_whole(SERVES).await?;
        let chosen: Vec<Kept> = self
            .choose(cluster, random)
            .into_iter()
            .chain(chosen)
            .filter(|kept| kept.to == restarted)
            .collect();
        answers.absorb(self.to_participants(cluster, &chosen, random).await?);
        self.latest = answers
            .to_kept(self.after_forgetting)
            .then(|| answers.summary())
            .flatten();
        self.answers.absorb(answers);
        let kept = self.memory.kept().len();
        Ok(format!(
            "of {kept} kept calls some again, to right and wrong ones; then {restarted} was killed and started \
             again, and got some again"
        ))
    }
}

impl Fault for Replay {
    fn name(&self) -> &'static str {
        match self.after_forgetting {
            false => "replay-messages",
            true => "replay-after-forgetting",
        }
    }

    fn retention(&self) -> Option<Duration> {
        self.after_forgetting.then_some(WINDOW)
    }

    fn lasts(&self, random: &mut StdRng) -> Duration {
        // It has happened when it has begun; this is for what follows.
        Duration::from_millis(random.random_range(100..500))
    }

    fn begin<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        random: &'a mut StdRng,
    ) -> BoxFuture<'a, Result<String, NemesisError>> {
        async move {
            self.shared.swap(&mut self.memory);
            let begun = self.send_again(cluster, random).await;
            self.shared.swap(&mut self.memory);
            begun
        }
        .boxed()
    }

    fn end<'a>(&'a mut self, _: &'a mut Cluster) -> BoxFuture<'a, Result<Option<String>, NemesisError>> {
        async move { Ok(self.latest.take()) }.boxed()
    }

    /// A participant that is killed takes with it what it has kept, and the calls of the first seconds are the first that
    /// are forgotten: taken early, they are there when it is this one's turn.
    fn attend<'a>(&'a mut self, cluster: &'a Cluster) -> BoxFuture<'a, ()> {
        async move {
            if !self.after_forgetting {
                return;
            }
            self.shared.swap(&mut self.memory);
            if let Err(error) = self.memory.refresh(cluster).await {
                tracing::debug!(%error, "nothing more is kept for later");
            }
            self.shared.swap(&mut self.memory);
        }
        .boxed()
    }

    fn answers(&self) -> Vec<LateAnswers> {
        self.answers.of(self.name())
    }
}
