//! The power fails at every operation of the disk, in the middle of several transactions, and again during the
//! recovery. Whatever was heard before still holds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use unanimo_core::table::Witness;
use unanimo_core::{TransactionId, Vote};
use unanimo_participant::Participant;

use crate::support::{Call, FakeCoordinator, Peer, World, transaction};

/// What the coordinators of this world have heard and told, which no crash takes away.
#[derive(Clone, Default)]
struct History {
    /// Yes votes, with where they stand.
    heard_yes: BTreeMap<TransactionId, Witness>,
    heard_no: Vec<TransactionId>,
    told_commit: Vec<TransactionId>,
    told_abort: Vec<TransactionId>,
    commit_acknowledged: Vec<TransactionId>,
    abort_acknowledged: Vec<TransactionId>,
}

/// What a transaction of the scenario is meant to do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Plan {
    Commit,
    Abort,
    /// Stays in doubt.
    Wait,
    No,
    /// The Abort comes first.
    AbortFirst,
}

const PLANS: [(u128, Plan); 8] = [
    (1, Plan::Commit),
    (2, Plan::Abort),
    (3, Plan::Wait),
    (4, Plan::No),
    (5, Plan::AbortFirst),
    (6, Plan::Commit),
    (7, Plan::Wait),
    (8, Plan::Commit),
];

type Shared = Arc<Mutex<History>>;

/// One transaction, as far as the participant answers.
async fn run(peer: Peer, history: Shared, tx: TransactionId, plan: Plan) -> Option<()> {
    if plan == Plan::AbortFirst {
        tell_abort(&peer, &history, tx).await?;
    }
    let operation = if plan == Plan::No { "no funds" } else { "yes" };
    let vote = peer.prepare(tx, operation).await.ok()?;
    match vote.vote {
        Vote::Yes => {
            assert_ne!(plan, Plan::AbortFirst, "{tx} was acknowledged as aborted");
            assert_ne!(plan, Plan::No, "{tx}");
            let known = history
                .lock()
                .unwrap()
                .heard_yes
                .insert(tx, vote.witness.unwrap());
            assert_eq!(known, None);
        }
        Vote::No { .. } => {
            history.lock().unwrap().heard_no.push(tx);
            return Some(());
        }
        Vote::ReadOnly => panic!("nothing here only reads"),
    }
    match plan {
        Plan::Commit => tell_commit(&peer, &history, tx).await,
        Plan::Abort => tell_abort(&peer, &history, tx).await,
        Plan::Wait | Plan::No | Plan::AbortFirst => Some(()),
    }
}

async fn tell_commit(peer: &Peer, history: &Shared, tx: TransactionId) -> Option<()> {
    history.lock().unwrap().told_commit.push(tx);
    peer.commit(tx).await.ok()?;
    history.lock().unwrap().commit_acknowledged.push(tx);
    Some(())
}

async fn tell_abort(peer: &Peer, history: &Shared, tx: TransactionId) -> Option<()> {
    history.lock().unwrap().told_abort.push(tx);
    peer.abort(tx).await.ok()?;
    history.lock().unwrap().abort_acknowledged.push(tx);
    Some(())
}

/// One life: starts, runs all transactions at once, and ends without a word. The runtime goes with it, and with the
/// runtime every task.
fn first_life(world: &World) -> History {
    in_a_life(async {
        let history = Shared::default();
        let Some(participant) = start(world).await else {
            return history.lock().unwrap().clone();
        };
        let peer = Peer::new(&participant);
        let running: Vec<_> = PLANS
            .iter()
            .map(|(n, plan)| tokio::spawn(run(peer.clone(), Arc::clone(&history), transaction(*n), *plan)))
            .collect();
        for transaction in running {
            transaction.await.unwrap();
        }
        let history = history.lock().unwrap();
        history.clone()
    })
}

fn in_a_life<T>(life: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(life)
}

/// None if the power failed before the participant had registered.
async fn start(world: &World) -> Option<Participant> {
    let participant = world.try_start(world.options()).await.ok()?;
    let registered = crate::support::eventually("registered", || participant.statistics().registered);
    tokio::select! {
        () = registered => Some(participant),
        _ = participant.stopped() => None,
    }
}

/// What must hold once the participant has come back, whatever it was doing.
async fn check(world: &World, history: &History, context: &str) {
    let participant = start(world).await.expect("it starts again");
    let peer = Peer::new(&participant);
    let recorder = &world.recorder;
    // Holds first: they are there before any message comes in.
    for (tx, witness) in &history.heard_yes {
        let told_commit = history.told_commit.contains(tx);
        let told_abort = history.told_abort.contains(tx);
        let held = recorder.holds().contains(tx);
        let committed = recorder.applied(*tx) == 1;
        assert!(
            held || (told_commit && committed) || told_abort,
            "{context}: the promise {tx} was heard and is not kept"
        );
        assert!(participant.generation() > witness.generation, "{context}");
    }
    for tx in &history.commit_acknowledged {
        assert_eq!(recorder.applied(*tx), 1, "{context}: {tx} was acknowledged");
        assert!(
            !recorder.holds().contains(tx),
            "{context}: {tx} is held after its end"
        );
    }
    for (tx, witness) in &history.heard_yes {
        if history.told_abort.contains(tx) {
            continue;
        }
        let again = peer.prepare_again(*tx).await.unwrap();
        assert_eq!(again.vote, Vote::Yes, "{context}: {tx} takes its promise back");
        let again = again.witness.unwrap();
        assert!(
            again.position >= witness.position,
            "{context}: {tx} stands elsewhere"
        );
        if !history.told_commit.contains(tx) {
            assert_eq!(
                again.position, witness.position,
                "{context}: {tx} stands elsewhere"
            );
        }
    }
    settle(&peer, history, context).await;
    for (n, _) in PLANS {
        let tx = transaction(n);
        let expected = u32::from(history.heard_yes.contains_key(&tx) && !history.told_abort.contains(&tx));
        assert_eq!(recorder.applied(tx), expected, "{context}: the effects of {tx}");
    }
    assert!(
        recorder.holds().is_empty(),
        "{context}: {:?} are still held",
        recorder.holds()
    );
    assert!(recorder.wrong().is_empty(), "{context}: {:?}", recorder.wrong());
    assert_eq!(participant.statistics().violations, 0, "{context}");
    assert_eq!(participant.statistics().in_flight, 0, "{context}");
    participant.shutdown().await;
}

/// Commits whatever a coordinator could commit and aborts the rest, twice.
async fn settle(peer: &Peer, history: &History, context: &str) {
    for _ in 0..2 {
        for (n, _) in PLANS {
            let tx = transaction(n);
            let result = if history.heard_yes.contains_key(&tx) && !history.told_abort.contains(&tx) {
                peer.commit(tx).await
            } else {
                peer.abort(tx).await
            };
            if let Err(status) = result {
                panic!("{context}: {tx}: {status}");
            }
        }
    }
}

#[test]
fn whatever_was_heard_holds_after_a_power_loss_at_any_moment() {
    let coordinator = FakeCoordinator::start();
    let undisturbed = World::with(coordinator.clone());
    let complete = first_life(&undisturbed);
    let operations = undisturbed.disk.operations();
    assert!(operations > 10, "the power has {operations} moments to fail in");
    // The undisturbed run does all that was planned, so that no assertion above is empty.
    assert_eq!(complete.heard_yes.len(), 6);
    assert_eq!(complete.commit_acknowledged.len(), 3);
    assert_eq!(complete.abort_acknowledged.len(), 2);
    assert_eq!(complete.heard_no.len(), 2);

    let (mut promises, mut half_done) = (0, 0);
    for operation in 0..=operations {
        for seed in 0..6 {
            let context = format!("power off at operation {operation}, seed {seed}");
            let world = World::with(coordinator.clone());
            world.disk.power_off_at_operation(operation);
            let history = first_life(&world);
            promises += history.heard_yes.len();
            half_done += history.told_commit.len() - history.commit_acknowledged.len();
            world.crash(seed);
            // The power fails again during the recovery, at another moment for each.
            let again = world.disk.operations() + (operation + seed) % 12;
            world.disk.power_off_at_operation(again);
            in_a_life(async {
                if let Some(participant) = start(&world).await {
                    settle_as_far_as_it_goes(&Peer::new(&participant), &history).await;
                }
            });
            world.crash(seed + 1000);
            in_a_life(check(&world, &history, &context));
        }
    }
    assert!(
        promises > 100 && half_done > 10,
        "{promises} promises, {half_done} half done"
    );
}

async fn settle_as_far_as_it_goes(peer: &Peer, history: &History) {
    for tx in history.heard_yes.keys() {
        if history.told_commit.contains(tx) && peer.commit(*tx).await.is_err() {
            return;
        }
    }
}

#[test]
fn the_resource_manager_hears_a_commit_again_if_the_record_of_it_was_lost() {
    let coordinator = FakeCoordinator::start();
    let mut heard_twice = 0;
    let undisturbed = World::with(coordinator.clone());
    first_life(&undisturbed);
    for operation in 0..=undisturbed.disk.operations() {
        let world = World::with(coordinator.clone());
        world.disk.power_off_at_operation(operation);
        let history = first_life(&world);
        world.crash(0);
        in_a_life(check(&world, &history, "once"));
        for (n, _) in PLANS {
            heard_twice += usize::from(world.recorder.count(Call::Commit, transaction(n)) > 1);
        }
    }
    assert!(
        heard_twice > 0,
        "the moment between effect and record was never hit"
    );
}
