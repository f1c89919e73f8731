use std::fmt;
use std::ops::{AddAssign, Sub};
use std::time::Duration;

/// What happens to the packets of a link. By default nothing: they pass at once and in order.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rule {
    /// No packet passes.
    pub cut: bool,
    /// No packet passes for a while, then all do for a while, and so on.
    pub flapping: Option<Flapping>,
    /// Each packet is this late at least.
    pub delay: Duration,
    /// Each packet is later than that by up to this. Packets do not overtake each other for it.
    pub jitter: Duration,
    /// The share of the packets that is lost, from 0 to 1.
    pub loss: f64,
    /// The share of the packets that comes twice, from 0 to 1.
    pub duplication: f64,
    /// Packets that later ones may overtake.
    pub reordering: Option<Reordering>,
}

/// When a link is down and when it is up. It is down first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flapping {
    /// For how long no packet passes.
    pub down: Duration,
    /// For how long all do.
    pub up: Duration,
}

/// Which packets are held back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reordering {
    /// The share of the packets that is held back, from 0 to 1.
    pub share: f64,
    /// For how long.
    pub held: Duration,
}

impl Rule {
    /// No packet passes.
    pub fn cut() -> Self {
        Self {
            cut: true,
            ..Self::default()
        }
    }

    /// Whether no packet passes now, this long after the rule came into force.
    pub(super) fn is_down(&self, after: Duration) -> bool {
        let flaps_down = self.flapping.is_some_and(|Flapping { down, up }| {
            let cycle = (down + up).as_nanos().max(1);
            after.as_nanos() % cycle < down.as_nanos()
        });
        self.cut || flaps_down
    }

    /// For how long nothing passes from now on, this long after the rule came into force. None if it is for as long as
    /// the rule is.
    pub(super) fn down_for(&self, after: Duration) -> Option<Duration> {
        if self.cut {
            return None;
        }
        let Some(Flapping { down, up }) = self.flapping else {
            return Some(Duration::ZERO);
        };
        let cycle = (down + up).as_nanos().max(1);
        let into = u64::try_from(after.as_nanos() % cycle).unwrap_or(u64::MAX);
        Some(down.saturating_sub(Duration::from_nanos(into)))
    }

    /// Whether it says what happens to single packets, and not only when and whether bytes pass.
    pub(super) fn is_about_packets(&self) -> bool {
        self.loss > 0.0 || self.duplication > 0.0 || self.reordering.is_some()
    }
}

/// What happened to the packets of a link, or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that were sent.
    pub sent: u64,
    /// Those that were dropped because the link was down.
    pub cut: u64,
    /// Those that were dropped by chance.
    pub lost: u64,
    /// Those that were made late.
    pub delayed: u64,
    /// Those that were delivered twice.
    pub duplicated: u64,
    /// Those that were delivered after a packet that was sent later.
    pub overtaken: u64,
    /// Those that were dropped because there was no room, as any router's.
    pub overflowed: u64,
}

impl Counts {
    fn each(self, other: Self, join: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            sent: join(self.sent, other.sent),
            cut: join(self.cut, other.cut),
            lost: join(self.lost, other.lost),
            delayed: join(self.delayed, other.delayed),
            duplicated: join(self.duplicated, other.duplicated),
            overtaken: join(self.overtaken, other.overtaken),
            overflowed: join(self.overflowed, other.overflowed),
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        *self = self.each(other, |ours, theirs| ours + theirs);
    }
}

impl Sub for Counts {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        self.each(earlier, |now, then| now - then)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "of {} packets", self.sent)?;
        let happened = [
            (self.cut, "were cut off"),
            (self.lost, "were lost"),
            (self.delayed, "were late"),
            (self.duplicated, "came twice"),
            (self.overtaken, "were overtaken"),
            (self.overflowed, "had no room"),
        ];
        for (number, what) in happened.iter().filter(|(number, _)| *number > 0) {
            write!(f, ", {number} {what}")?;
        }
        Ok(())
    }
}
