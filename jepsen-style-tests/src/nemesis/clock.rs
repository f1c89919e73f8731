use std::ops::RangeInclusive;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use tokio::task::JoinHandle;

use super::fake_clock::{FakeClock, Wrong, unavailable};
use super::target::Target;
use super::{Fault, NemesisError, WHOLE};
use crate::cluster::{Cluster, Member};

/// A process whose wall clock is wrong. It is restarted under libfaketime first, and without it afterwards; a node that
/// led before leads again when its clock goes wrong.
pub(super) struct Clock {
    what: Trouble,
    moved: Option<Moved>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// It jumps while the process runs, forward or back; and back again at the end.
    Jump,
    /// It jumps to and fro all the time.
    Strobe,
    /// It runs too fast or too slowly.
    Drift,
}

struct Moved {
    member: Member,
    clock: Clocks,
    /// What shows on it if it is wrong: at least so far from ours (milliseconds), and on this side of it.
    wrong_by_ms: i64,
}

/// Who sets the clock.
enum Clocks {
    Still(FakeClock),
    Strobing(Strobe),
}

/// Sets a clock again and again.
struct Strobe {
    task: JoinHandle<()>,
}

impl Drop for Strobe {
    fn drop(&mut self) {
        // The clock goes with the task.
        self.task.abort();
    }
}

/// Every trouble with wall clocks.
pub(super) fn all() -> Vec<Box<dyn Fault>> {
    [Trouble::Jump, Trouble::Strobe, Trouble::Drift]
        .into_iter()
        .map(|what| Box::new(Clock { what, moved: None }) as Box<dyn Fault>)
        .collect()
}

impl Fault for Clock {
    fn name(&self) -> &'static str {
        match self.what {
            Trouble::Jump => "clock-jump",
            Trouble::Strobe => "clock-strobe",
            Trouble::Drift => "clock-drift",
        }
    }

    fn unavailable(&self) -> Option<String> {
        unavailable()
    }

    fn lasts(&self, random: &mut StdRng) -> Duration {
        Duration::from_millis(random.random_range(1500..4500))
    }

    fn begin<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        random: &'a mut StdRng,
    ) -> BoxFuture<'a, Result<String, NemesisError>> {
        async move {
            let target = Target::any_one(cluster.layout(), random);
            let member = target.member(cluster, random).await?;
            let clock = restart_under(cluster, member).await?;
            if let (Target::Leader, Member::Coordinator(node)) = (target, member) {
                cluster.transfer_leader(node).await?;
            }
            let (what, moved) = self.what.happen(member, clock, random)?;
            self.moved = Some(moved);
            Ok(match target {
                Target::Leader => format!("{member}, the leader: {what}"),
                _ => format!("{member}: {what}"),
            })
        }
        .boxed()
    }

    fn end<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
    ) -> BoxFuture<'a, Result<Option<String>, NemesisError>> {
        async move {
            let Some(moved) = self.moved.take() else {
                return Ok(None);
            };
            let member = moved.member;
            let seen = moved.seen(cluster).await;
            let ended = cluster.restart(member).await?;
            cluster.note_healed();
            moved.over();
            if !ended.success() {
                return Err(NemesisError::Other(format!(
                    "{member} ended with {ended} after SIGTERM"
                )));
            }
            cluster.wait_until_whole(WHOLE).await?;
            Ok(seen)
        }
        .boxed()
    }
}

/// Restarts a process so that its clock can be set, and waits for the cluster to be whole with it.
async fn restart_under(cluster: &mut Cluster, member: Member) -> Result<FakeClock, NemesisError> {
    let unusable = |error| NemesisError::Other(format!("the clock of {member}: {error}"));
    let file = cluster.log(member).with_extension("clock");
    let mut clock = FakeClock::new(file).map_err(unusable)?;
    let surroundings = clock.surroundings().map_err(unusable)?;
    let ended = cluster.restart_in(member, &surroundings).await?;
    if !ended.success() {
        return Err(NemesisError::Other(format!(
            "{member} ended with {ended} after SIGTERM"
        )));
    }
    cluster
        .process(member)
        .into_iter()
        .for_each(|process| clock.belongs_to(process));
    cluster.wait_until_whole(WHOLE).await?;
    Ok(clock)
}

impl Trouble {
    /// Lets it happen, and says what it is.
    fn happen(
        self,
        member: Member,
        clock: FakeClock,
        random: &mut StdRng,
    ) -> Result<(String, Moved), NemesisError> {
        let unusable = |error| NemesisError::Other(format!("the clock of {member}: {error}"));
        Ok(match self {
            Self::Jump => {
                let ms = jump(random);
                clock.set(Wrong::By(ms)).map_err(unusable)?;
                let what = format!("its clock jumps by {:+.3} s", ms as f64 / 1000.0);
                (what, Moved::new(member, Clocks::Still(clock), shown(ms)))
            }
            Self::Strobe => {
                let ms = jump(random);
                let every = Duration::from_millis(random.random_range(20..300));
                let what = format!(
                    "its clock jumps by {:+.3} s, to and fro, every {every:?}",
                    ms as f64 / 1000.0
                );
                let task = tokio::spawn(strobe(clock, ms, every));
                (
                    what,
                    Moved::new(member, Clocks::Strobing(Strobe { task }), shown(ms)),
                )
            }
            Self::Drift => {
                let rate = match random.random_bool(0.5) {
                    true => random.random_range(1.1..3.0),
                    false => random.random_range(0.2..0.9),
                };
                clock.set(Wrong::Rate(rate)).map_err(unusable)?;
                // Less than a tenth of the shortest time that it lasts.
                let wrong_by_ms = if rate > 1.0 { 100 } else { -100 };
                (
                    format!("its clock runs {rate:.2} times as fast"),
                    Moved::new(member, Clocks::Still(clock), wrong_by_ms),
                )
            }
        })
    }
}

/// By how many milliseconds, forward or back: within a call, within what the ids of transactions may be off, or hours.
/// Less than what is remembered: a leader whose clock is ahead by more closes what is running.
fn jump(random: &mut StdRng) -> i64 {
    let most = [5_000, 300_000, 12 * 3_600_000];
    let most = most.choose(random).copied().unwrap_or(5_000);
    let ms = random.random_range(1_000..=most);
    if random.random_bool(0.5) { ms } else { -ms }
}

/// What shows of a jump at least.
fn shown(ms: i64) -> i64 {
    ms - 200 * ms.signum()
}

/// Whether a clock that is ahead of ours by so much, at least and at most, is surely this wrong, and on this side.
fn is_wrong(ahead: &RangeInclusive<i64>, wrong_by_ms: i64) -> bool {
    match wrong_by_ms >= 0 {
        true => *ahead.start() >= wrong_by_ms,
        false => *ahead.end() <= wrong_by_ms,
    }
}

/// Whether it may be as right as ours, and is surely not this wrong.
fn is_right(ahead: &RangeInclusive<i64>, wrong_by_ms: i64) -> bool {
    match wrong_by_ms >= 0 {
        true => *ahead.end() < wrong_by_ms,
        false => *ahead.start() > wrong_by_ms,
    }
}

/// Never ends.
async fn strobe(clock: FakeClock, ms: i64, every: Duration) {
    loop {
        for wrong in [Wrong::By(ms), Wrong::By(0)] {
            if let Err(error) = clock.set(wrong) {
                // Then nothing is seen of it, and it did not happen.
                tracing::error!(%error, "a clock cannot be set");
            }
            tokio::time::sleep(every).await;
        }
    }
}

impl Moved {
    fn new(member: Member, clock: Clocks, wrong_by_ms: i64) -> Self {
        Self {
            member,
            clock,
            wrong_by_ms,
        }
    }

    /// Nobody has the clock any more.
    fn over(self) {
        match self.clock {
            Clocks::Still(clock) => drop(clock),
            Clocks::Strobing(strobe) => drop(strobe),
        }
    }

    /// What the process itself says of its clock, if that is as wrong as it is to be.
    async fn seen(&self, cluster: &Cluster) -> Option<String> {
        let (mut wrong, mut right) = (None, None);
        let looks = match self.clock {
            Clocks::Still(_) => 5,
            Clocks::Strobing(_) => 100,
        };
        for _ in 0..looks {
            match cluster.ahead(self.member).await {
                Some(ahead) if is_wrong(&ahead, self.wrong_by_ms) => wrong = Some(ahead),
                Some(ahead) if is_right(&ahead, self.wrong_by_ms) => right = Some(ahead),
                Some(_) | None => {}
            }
            let enough = match self.clock {
                Clocks::Still(_) => wrong.is_some(),
                Clocks::Strobing(_) => wrong.is_some() && right.is_some(),
            };
            if enough {
                break;
            }
            // Not in step with the strobe.
            tokio::time::sleep(Duration::from_millis(17)).await;
        }
        let member = self.member;
        match (&self.clock, wrong, right) {
            (Clocks::Still(_), Some(wrong), _) => {
                let off = off(&wrong);
                Some(format!("{member} told a time that was {off} ms off"))
            }
            (Clocks::Strobing(_), Some(wrong), Some(right)) => {
                let (wrong, right) = (off(&wrong), off(&right));
                Some(format!(
                    "{member} told times that were {wrong} ms and {right} ms off"
                ))
            }
            _ => None,
        }
    }
}

/// By how much, for people.
fn off(ahead: &RangeInclusive<i64>) -> String {
    format!("{:+} to {:+}", ahead.start(), ahead.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_is_no_drift_and_the_side_counts() {
        // Our clock is right; the answer took 150 ms, before or after the other one told its time.
        let slow = -150..=0;
        for wrong_by_ms in [100, -100] {
            assert!(!is_wrong(&slow, wrong_by_ms), "{wrong_by_ms}");
        }
        assert!(is_wrong(&(-260..=-130), -100));
        assert!(!is_wrong(&(-260..=-130), 100));
        assert!(is_wrong(&(120..=180), 100) && !is_wrong(&(120..=180), -100));
        assert!(is_right(&(-3..=2), 800) && is_right(&(-3..=2), -800));
        assert!(!is_right(&slow, -100), "nobody knows");
        assert_eq!([shown(1000), shown(-1000)], [800, -800]);
    }
}
