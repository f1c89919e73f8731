//! What is counted: bad input by its reason and nothing else with it, and how long branches were in doubt.

use std::time::Duration;

use http::Request;
use tower::{Service as _, ServiceExt as _};
use unanimo_core::Vote;
use unanimo_participant::{Bytes, Context, JoinError, Participant};
use unanimo_proto::transport::Clock as _;
use unanimo_proto::{CONTEXT_KEY, ErrorReason};

use crate::interactive::{refused, service};
use crate::support::{Counted, Peer, World, eventually, once, reason, transaction};

fn context(world: &World, remaining: Duration) -> Context {
    Context {
        cluster: "test".parse().unwrap(),
        transaction: transaction(1),
        deadline: world.clock.now().after(remaining),
        remaining,
    }
}

#[tokio::test]
async fn a_commit_of_what_was_never_prepared_is_refused_counted_and_changes_nothing() {
    let counted = Counted::start();
    let world = World::new();
    let (participant, peer) = world.start().await;
    peer.yes(transaction(1)).await;
    counted.risen();
    let status = peer.commit(transaction(2)).await.unwrap_err();
    assert_eq!(reason(&status), Some(ErrorReason::Violation));
    let expected = [
        "refusals_total{call=commit,reason=VIOLATION}",
        "violations_total{}",
    ];
    assert_eq!(counted.risen(), once(&expected));
    assert_eq!(world.recorder.holds(), [transaction(1)]);
    assert_eq!(world.recorder.applied(transaction(2)), 0);
    assert_eq!(participant.statistics().in_flight, 1);
    // A commit of the application that names us although we never joined: a No, which aborts it.
    let vote = peer.prepare_again(transaction(3)).await.unwrap().vote;
    assert!(matches!(vote, Vote::No { .. }), "{vote}");
    let expected = ["branches_total{outcome=aborted}", "votes_total{vote=no}"];
    assert_eq!(counted.risen(), once(&expected));
    assert_eq!(world.recorder.holds(), [transaction(1)]);
}

#[tokio::test]
async fn messages_of_another_cluster_or_for_somebody_else_are_counted_by_call_and_reason() {
    let counted = Counted::start();
    let world = World::new();
    let (participant, peer) = world.start().await;
    counted.risen();
    let foreign = Peer::message(transaction(1), Some("yes")).to_wire(&"elsewhere".parse().unwrap());
    peer.refused_prepare(foreign).await;
    assert_eq!(
        counted.risen(),
        once(&["refusals_total{call=prepare,reason=WRONG_CLUSTER}"])
    );
    let mut commit = Peer::commit_request(transaction(1));
    commit.participant = "other".to_owned();
    peer.commit_wire(commit).await.unwrap_err();
    assert_eq!(
        counted.risen(),
        once(&["refusals_total{call=commit,reason=WRONG_TARGET}"])
    );
    let mut abort = Peer::abort_request(transaction(1));
    abort.transaction = "t1".to_owned();
    peer.abort_wire(abort).await.unwrap_err();
    assert_eq!(
        counted.risen(),
        once(&["refusals_total{call=abort,reason=MALFORMED}"])
    );
    assert!(world.recorder.calls().is_empty());
    assert_eq!(participant.statistics().in_flight, 0);
}

#[tokio::test]
async fn contexts_that_are_not_fit_for_use_are_counted_by_what_is_wrong_with_them() {
    let counted = Counted::start();
    let world = World::new();
    let (participant, _) = world.start().await;
    let good = context(&world, Duration::from_secs(5));
    let foreign = Context {
        cluster: "elsewhere".parse().unwrap(),
        ..good.clone()
    };
    let expired = context(&world, Duration::ZERO);
    let tampered = good.to_wire().replace(";5000;", ";9000;");
    let cases = [
        (tampered, ErrorReason::BadContext, "wrong_tag"),
        ("nonsense".to_owned(), ErrorReason::BadContext, "other_form"),
        (expired.to_wire(), ErrorReason::BadContext, "expired"),
        (foreign.to_wire(), ErrorReason::WrongCluster, "other_cluster"),
    ];
    counted.risen();
    for (text, expected, kind) in cases {
        let mut request = Request::new("yes");
        request.headers_mut().append(CONTEXT_KEY, text.parse().unwrap());
        let mut service = service(&participant);
        let response = service.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(refused(&response), Some(expected), "{text}");
        assert_eq!(
            counted.risen(),
            once(&[&format!("bad_contexts_total{{kind={kind}}}")]),
            "{text}"
        );
    }
    // A service that reads contexts by itself is counted too.
    let error = participant.join(&foreign, Bytes::from("yes")).await.unwrap_err();
    assert!(matches!(error, JoinError::BadContext(_)), "{error}");
    let expected = [
        "bad_contexts_total{kind=other_cluster}",
        "joins_total{result=bad_context}",
    ];
    assert_eq!(counted.risen(), once(&expected));
    assert!(world.recorder.calls().is_empty());
    assert_eq!(in_flight(&participant), 0);
    participant.join(&good, Bytes::from("yes")).await.unwrap();
    assert_eq!(counted.risen(), once(&["joins_total{result=joined}"]));
}

fn in_flight(participant: &Participant) -> usize {
    participant.statistics().in_flight
}

#[tokio::test]
async fn times_in_doubt_are_told_by_decision_and_the_oldest_while_it_lasts() {
    let counted = Counted::start();
    let world = World::new();
    let (_participant, peer) = world.start().await;
    let (committed, aborted, waiting) = (transaction(1), transaction(2), transaction(3));
    for tx in [committed, aborted, waiting] {
        peer.yes(tx).await;
    }
    peer.no(transaction(4), "no").await;
    let votes = counted.risen();
    assert_eq!(
        (votes["votes_total{vote=yes}"], votes["votes_total{vote=no}"]),
        (3, 1)
    );
    world.clock.advance(Duration::from_secs(2));
    peer.commit(committed).await.unwrap();
    world.clock.advance(Duration::from_secs(3));
    peer.abort(aborted).await.unwrap();
    let times = counted.histograms();
    assert_eq!(times["in_doubt_seconds{decision=commit}"], [2.0]);
    assert_eq!(times["in_doubt_seconds{decision=abort}"], [5.0]);
    world.clock.advance(Duration::from_secs(7));
    eventually("the gauges show it", || {
        let now = counted.gauges();
        now["oldest_in_doubt_seconds{}"] == 12.0
            && (now["in_doubt{}"], now["in_flight{}"], now["registered{}"]) == (1.0, 1.0, 1.0)
    })
    .await;
    peer.commit(waiting).await.unwrap();
    assert_eq!(counted.histograms()["in_doubt_seconds{decision=commit}"], [12.0]);
    eventually("nothing is in doubt", || {
        let now = counted.gauges();
        now["registered{}"] == 1.0 && (now["oldest_in_doubt_seconds{}"], now["in_doubt{}"]) == (0.0, 0.0)
    })
    .await;
}

#[tokio::test]
async fn inquiries_are_counted_in_calls_and_in_branches() {
    let counted = Counted::start();
    let world = World::new();
    let mut options = world.options();
    options.inquiry_after = Duration::from_millis(20);
    let (participant, peer) = world.start_with(options).await;
    for n in 1..=3 {
        world.coordinator.commit(transaction(n));
        peer.yes(transaction(n)).await;
    }
    eventually("all are told", || participant.statistics().in_doubt == 0).await;
    let (risen, statistics) = (counted.risen(), participant.statistics());
    assert!(statistics.inquiries >= 3);
    assert_eq!(risen["inquiries_total{}"], statistics.inquiries);
    assert_eq!(risen["inquiry_calls_total{}"], statistics.inquiry_calls);
}
