use std::time::Duration;

use tokio::time::timeout;
use unanimo_client::{CommitError, Decision, InteractiveTransaction};

use super::executor::{Outcome, decided, to_wire, went_away_unanswered};
use super::{Executor, Leaves};
use crate::history::{Action, Answer, Step, Tx};
use crate::wire::ExecuteRequest;
use crate::wire::store_client::StoreClient;

/// How long an interactive transaction may hold things before its commit.
const TIME: Duration = Duration::from_secs(5);
/// The same for one whose client goes away: what it holds is held for so long, and others wait.
const TIME_LEFT: Duration = Duration::from_millis(500);
/// How long one call to a participant may take.
const CALL: Duration = Duration::from_secs(2);

impl Executor {
    /// `Begin`, the calls, `Commit`; or as much of it as there is before its client goes away.
    pub(super) async fn interact(
        &self,
        transaction: &mut Option<Tx>,
        steps: &mut [Step],
        leaves: Option<Leaves>,
    ) -> Outcome {
        let time = match leaves {
            Some(Leaves::AfterBegin | Leaves::AfterCalls) => TIME_LEFT,
            Some(Leaves::Unanswered(_)) | None => TIME,
        };
        let interactive = match self.client.begin(time).await {
            Ok(interactive) => interactive,
            // An id may have been given; nobody has joined it.
            Err(error) => return Outcome::Fail(None, error.to_string()),
        };
        *transaction = Some(Tx(interactive.transaction()));
        if leaves == Some(Leaves::AfterBegin) {
            return abandon(interactive, "after begin");
        }
        let called = self.execute(&interactive, steps).await;
        if leaves == Some(Leaves::AfterCalls) {
            return abandon(interactive, "after its calls");
        }
        if let Err(error) = called {
            return give_up(interactive, self.patience, error).await;
        }
        let committed = commit(interactive, self.patience);
        match leaves {
            Some(Leaves::Unanswered(after)) => timeout(after, committed)
                .await
                .unwrap_or_else(|_| went_away_unanswered()),
            Some(Leaves::AfterBegin | Leaves::AfterCalls) | None => committed.await,
        }
    }

    /// In the order of the steps; those at the same participant that follow each other in one call.
    async fn execute(&self, transaction: &InteractiveTransaction, steps: &mut [Step]) -> Result<(), String> {
        for visit in steps.chunk_by_mut(|one, next| one.participant == next.participant) {
            let participant = &visit[0].participant;
            let Some(channel) = self.stores.get(participant) else {
                return Err(format!("there is no participant {participant}"));
            };
            let asked = visit.iter().map(to_wire).collect();
            let mut request = tonic::Request::new(ExecuteRequest { steps: asked });
            request.set_timeout(CALL);
            let mut store = StoreClient::new(transaction.channel(channel.clone()));
            let reply = store
                .execute(request)
                .await
                .map_err(|status| format!("{participant}: {status}"))?;
            let mut cells = reply.into_inner().read.into_iter();
            for step in visit {
                if let Action::Read { number, list } = &mut step.action {
                    let cell = cells.next().ok_or("a read was not answered")?;
                    (*number, *list) = (Some(cell.number), Some(cell.list));
                }
            }
        }
        Ok(())
    }
}

/// Nobody has asked for the commit, so it cannot have happened. Who takes part lets go when the time is over.
fn abandon(transaction: InteractiveTransaction, when: &str) -> Outcome {
    // Dropped, it would have itself aborted. Who crashes does no such thing.
    std::mem::forget(transaction);
    Outcome::Fail(None, format!("the client went away {when}"))
}

async fn commit(transaction: InteractiveTransaction, patience: Duration) -> Outcome {
    match transaction.commit(patience).await {
        Ok(decision) => decided(decision),
        Err(error @ (CommitError::Unknown { .. } | CommitError::Expired { .. })) => {
            Outcome::Info(error.to_string())
        }
        Err(error) => Outcome::Fail(None, error.to_string()),
    }
}

/// Nobody has asked for the commit, so it cannot have happened, whatever becomes of the abort. If the cluster says that
/// it committed, it is written down as a failure that was told so, which no checker lets pass.
async fn give_up(transaction: InteractiveTransaction, patience: Duration, error: String) -> Outcome {
    gave_up(transaction.abort(patience).await.ok(), error)
}

fn gave_up(told: Option<Decision>, error: String) -> Outcome {
    match told {
        Some(Decision::Commit) => Outcome::Fail(
            Some(Answer::Committed),
            format!("committed, though nobody asked for it; {error}"),
        ),
        Some(Decision::Abort(reason)) => Outcome::Fail(Some(Answer::Aborted(reason.to_string())), error),
        None => Outcome::Fail(None, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_nobody_asked_for_is_a_failure_that_was_told_so() {
        let failed = || "p1: unavailable".to_owned();
        let committed = gave_up(Some(Decision::Commit), failed());
        assert!(matches!(committed, Outcome::Fail(Some(Answer::Committed), _)));
        let aborted = gave_up(
            Some(Decision::Abort(unanimo_core::AbortReason::Requested)),
            failed(),
        );
        assert!(matches!(aborted, Outcome::Fail(Some(Answer::Aborted(_)), _)));
        assert!(matches!(gave_up(None, failed()), Outcome::Fail(None, _)));
    }
}
