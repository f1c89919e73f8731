//! Every service dies at every step of a transaction, as by `kill -9`, and comes back: each journey is still booked at
//! all three services or at none, and its traveller was told the truth.

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use booking::Trade;
use booking::audit::audit;
use booking::cluster::Cluster;
use booking::crash::CrashPoint;
use booking::journey::{Order, Outcome};
use booking::run::{Travel, orders};
use tokio::time::{Instant, sleep};

/// Journeys in each case: the service dies in the middle of them.
const JOURNEYS: usize = 6;
const AT_ONCE: usize = 3;
/// How often a case is tried: on a busy machine the first journey may be asked twice, and meet the crash in the place of the
/// second one.
const ATTEMPTS: usize = 5;
/// How long a service may live before it dies where it was told to.
const PATIENCE: Duration = Duration::from_secs(60);

/// Travellers whose cards nobody has used.
fn travellers(trade: Trade, point: CrashPoint, attempt: usize) -> Vec<Order> {
    let order = |number: usize| Order {
        traveller: format!("traveller-{number}"),
        card: format!("{trade}-{point}-{attempt}-{number}"),
    };
    (0..JOURNEYS).map(order).collect()
}

/// Starts a service again as soon as it has died.
async fn revive(cluster: &mut Cluster, trade: Trade, what: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !cluster.has_died(trade) {
        assert!(Instant::now() < deadline, "{what}: it never came there");
        sleep(Duration::from_millis(10)).await;
    }
    cluster.restart(trade, None).unwrap();
}

/// A service dies at a point. Says whether the second journey, which should meet the crash, was kept if it was promised.
async fn dies(
    cluster: &mut Cluster,
    travel: &Travel,
    (trade, point, attempt): (Trade, CrashPoint, usize),
    outcomes: &mut Vec<Outcome>,
) -> bool {
    let what = format!("{trade} {point}");
    // The second time, so that there is one journey before it.
    cluster.restart(trade, Some(&format!("{point}:2"))).unwrap();
    travel.until_ready(cluster).await.unwrap();
    let orders = travellers(trade, point, attempt);
    // One after the other where it has to be known which one meets the crash.
    let at_once = if point.is_before_promise() { AT_ONCE } else { 1 };
    let (told, ()) = tokio::join!(travel.book(orders, at_once), revive(cluster, trade, &what));
    travel.until_at_rest(cluster).await.unwrap();
    let is = |kind: fn(&Outcome) -> bool| told.iter().map(kind).collect::<Vec<_>>();
    let booked = is(|outcome| matches!(outcome, Outcome::Booked(_)));
    let failed = is(|outcome| matches!(outcome, Outcome::Failed(..)));
    let unknown = is(|outcome| matches!(outcome, Outcome::Unknown(..)));
    assert!(!unknown.contains(&true), "{what}: {told:?}");
    let kept = if point.is_before_promise() {
        // Nobody can tell what it has done, so the journey is given up.
        assert!(failed.contains(&true), "{what}: {told:?}");
        true
    } else {
        // What is promised or decided is kept. The first one is, even if it is the one that met the crash.
        assert!(booked[0], "{what}: {told:?}");
        booked[1]
    };
    outcomes.extend(told);
    let ledgers = travel.ledgers().await.unwrap();
    assert_eq!(audit(outcomes, &ledgers), [], "{what}");
    for trade in Trade::ALL {
        assert_eq!(travel.status(trade).await.unwrap().violations, 0, "{what}");
    }
    kept
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_dies_at_every_step() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(Path::new(env!("CARGO_BIN_EXE_booking")), folder.path()).unwrap();
    let travel = Travel::new(cluster.addresses()).unwrap();
    travel.until_ready(&mut cluster).await.unwrap();
    let mut outcomes = Vec::new();
    for trade in Trade::ALL {
        for point in CrashPoint::ALL {
            let mut attempt = 1;
            while !dies(&mut cluster, &travel, (trade, point, attempt), &mut outcomes).await {
                assert!(
                    attempt < ATTEMPTS,
                    "{trade} {point}: what was promised is never kept"
                );
                attempt += 1;
            }
        }
    }
    let booked = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Outcome::Booked(_)));
    assert!(booked.count() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn journeys_are_booked_or_refused_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(Path::new(env!("CARGO_BIN_EXE_booking")), folder.path()).unwrap();
    let travel = Travel::new(cluster.addresses()).unwrap();
    travel.until_ready(&mut cluster).await.unwrap();
    // Eight journeys on each card, which bears four at most.
    let mut orders = orders(40);
    for (number, order) in orders.iter_mut().enumerate() {
        order.card = format!("card-{}", number % 5);
    }
    let outcomes = travel.book(orders, 8).await;
    travel.until_at_rest(&mut cluster).await.unwrap();
    assert_eq!(audit(&outcomes, &travel.ledgers().await.unwrap()), []);
    let booked = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Outcome::Booked(_)))
        .count();
    let refused = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Outcome::Refused(_, Trade::Payment)))
        .count();
    assert!(
        booked > 0 && refused > 0 && booked + refused == 40,
        "{outcomes:?}"
    );
}
