//! A schedule as a script that a person can read and change, and back.

use std::fmt::Write as _;

use super::{Fate, Fates, Fault, Harm, Knobs, MessageKey, Move, Schedule, Want, Work};
use crate::message::{kind_name, kind_named};
use crate::node::Node;

impl Schedule {
    /// The script.
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("seed {}\n", self.seed);
        let calm = Knobs::default();
        for ((name, value), (_, usual)) in self.knobs.list().into_iter().zip(calm.list()) {
            if value != usual {
                line(&mut text, format_args!("knob {name} {value}"));
            }
        }
        for work in &self.works {
            line(&mut text, format_args!("work {}", work_line(work)));
        }
        for fault in &self.faults {
            line(&mut text, format_args!("fault {} {}", fault.at_ms, fault.harm));
        }
        match &self.fates {
            Fates::Drawn => line(&mut text, format_args!("fates drawn")),
            Fates::Listed(fates) => {
                for (key, fate) in fates {
                    line(&mut text, format_args!("fate {}", fate_line(key, *fate)));
                }
            }
        }
        text
    }

    /// Reads a script.
    pub(crate) fn from_text(text: &str) -> Result<Self, String> {
        let mut schedule = Self {
            seed: 0,
            knobs: Knobs::default(),
            works: Vec::new(),
            faults: Vec::new(),
            fates: Fates::Listed(std::collections::BTreeMap::new()),
        };
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            schedule
                .read_line(&words)
                .ok_or_else(|| format!("cannot read the line {line:?}"))?;
        }
        let nodes = (schedule.knobs.coordinators, schedule.knobs.participants);
        match nodes {
            (1..=9, 1..=9) => Ok(schedule),
            _ => Err("there are 1 to 9 coordinators and as many participants".to_owned()),
        }
    }

    fn read_line(&mut self, words: &[&str]) -> Option<()> {
        match words {
            ["seed", seed] => self.seed = seed.parse().ok()?,
            ["knob", name, value] => *self.knobs.named(name)? = value.parse().ok()?,
            ["work", rest @ ..] => self.works.push(read_work(rest)?),
            ["fault", at, rest @ ..] => self.faults.push(Fault {
                at_ms: at.parse().ok()?,
                harm: read_harm(rest)?,
            }),
            ["fates", "drawn"] => self.fates = Fates::Drawn,
            ["fate", rest @ ..] => {
                let (key, fate) = read_fate(rest)?;
                match &mut self.fates {
                    Fates::Listed(fates) => fates.insert(key, fate),
                    Fates::Drawn => return None,
                };
            }
            _ => return None,
        }
        Some(())
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing into a string cannot fail.
    let _ = writeln!(text, "{arguments}");
}

fn moves_line(moves: &[(u8, Move)]) -> String {
    let words = moves.iter().map(|(who, what)| format!(" p{}={what}", who + 1));
    words.collect()
}

fn work_line(work: &Work) -> String {
    let Work {
        at_ms,
        transaction,
        node,
        patience_ms,
        want,
    } = work;
    let head = format!("{at_ms} t{transaction} c{} {patience_ms}", node + 1);
    match want {
        Want::Submit { moves, key: None } => format!("{head} submit{}", moves_line(moves)),
        Want::Submit {
            moves,
            key: Some(key),
        } => format!("{head} submit-with-key {key}{}", moves_line(moves)),
        Want::Interactive { moves, aborts: false } => format!("{head} interactive{}", moves_line(moves)),
        Want::Interactive { moves, aborts: true } => format!("{head} interactive-abort{}", moves_line(moves)),
        Want::Abort { members } => {
            let members: String = members.iter().map(|who| format!(" p{}", who + 1)).collect();
            format!("{head} abort{members}")
        }
        Want::Ask => format!("{head} ask"),
    }
}

fn read_work(words: &[&str]) -> Option<Work> {
    let [at, transaction, node, patience, what, rest @ ..] = words else {
        return None;
    };
    let Node::Coordinator(node) = node.parse().ok()? else {
        return None;
    };
    let want = match *what {
        "submit" => Want::Submit {
            moves: read_moves(rest)?,
            key: None,
        },
        "submit-with-key" => Want::Submit {
            key: Some(rest.first()?.parse().ok()?),
            moves: read_moves(&rest[1..])?,
        },
        "interactive" | "interactive-abort" => Want::Interactive {
            moves: read_moves(rest)?,
            aborts: *what == "interactive-abort",
        },
        "abort" => Want::Abort {
            members: rest.iter().map(|word| participant(word)).collect::<Option<_>>()?,
        },
        "ask" => Want::Ask,
        _ => return None,
    };
    Some(Work {
        at_ms: at.parse().ok()?,
        transaction: transaction.strip_prefix('t')?.parse().ok()?,
        node,
        patience_ms: patience.parse().ok()?,
        want,
    })
}

fn participant(word: &str) -> Option<u8> {
    match word.parse().ok()? {
        Node::Participant(place) => Some(place),
        Node::Coordinator(_) | Node::Initiator(_) => None,
    }
}

fn read_moves(words: &[&str]) -> Option<Vec<(u8, Move)>> {
    let read = |word: &&str| {
        let (who, what) = word.split_once('=')?;
        Some((participant(who)?, Move::read(what)?))
    };
    words.iter().map(read).collect()
}

impl std::fmt::Display for Harm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Crash {
                node,
                after,
                down_ms,
                keep,
            } => write!(f, "crash {node} after={after} down={down_ms} keep={keep}"),
            Self::CrashAll { down_ms } => write!(f, "crash-all down={down_ms}"),
            Self::FailSync { node, down_ms } => write!(f, "fail-sync {node} down={down_ms}"),
            Self::Cut { from, to, for_ms } => write!(f, "cut {from} {to} for={for_ms}"),
            Self::Isolate { node, for_ms } => write!(f, "isolate {node} for={for_ms}"),
            Self::Slow { node, times, for_ms } => write!(f, "slow {node} times={times} for={for_ms}"),
            Self::Replay { node, for_ms } => write!(f, "replay {node} for={for_ms}"),
            Self::Jump { node, by_ms } => write!(f, "jump {node} by={by_ms}"),
            Self::Copy { node } => write!(f, "copy {node}"),
            Self::FallBack { node, down_ms } => write!(f, "fall-back {node} down={down_ms}"),
            Self::Restart { node, down_ms } => write!(f, "restart {node} down={down_ms}"),
            Self::Elect { node } => write!(f, "elect {node}"),
        }
    }
}

fn read_harm(words: &[&str]) -> Option<Harm> {
    let node = |place: usize| words.get(place)?.parse::<Node>().ok();
    let named = |name: &str| {
        words
            .iter()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let number = |name: &str| named(name)?.parse::<u64>().ok();
    Some(match *words.first()? {
        "crash" => Harm::Crash {
            node: node(1)?,
            after: number("after")?,
            down_ms: number("down")?,
            keep: number("keep")?,
        },
        "crash-all" => Harm::CrashAll {
            down_ms: number("down")?,
        },
        "fail-sync" => Harm::FailSync {
            node: node(1)?,
            down_ms: number("down")?,
        },
        "cut" => Harm::Cut {
            from: node(1)?,
            to: node(2)?,
            for_ms: number("for")?,
        },
        "isolate" => Harm::Isolate {
            node: node(1)?,
            for_ms: number("for")?,
        },
        "slow" => Harm::Slow {
            node: node(1)?,
            times: number("times")?,
            for_ms: number("for")?,
        },
        "replay" => Harm::Replay {
            node: node(1)?,
            for_ms: number("for")?,
        },
        "jump" => Harm::Jump {
            node: node(1)?,
            by_ms: named("by")?.parse().ok()?,
        },
        "copy" => Harm::Copy { node: node(1)? },
        "fall-back" => Harm::FallBack {
            node: node(1)?,
            down_ms: number("down")?,
        },
        "restart" => Harm::Restart {
            node: node(1)?,
            down_ms: number("down")?,
        },
        "elect" => Harm::Elect { node: node(1)? },
        _ => return None,
    })
}

fn fate_line(key: &MessageKey, fate: Fate) -> String {
    let MessageKey {
        from,
        to,
        kind,
        transaction,
        nth,
    } = key;
    let head = format!("{from} {to} {} t{transaction} {nth}", kind_name(*kind));
    match fate {
        Fate::Lost => format!("{head} lost"),
        Fate::Repeated { again } => format!("{head} repeated {again}"),
        Fate::Replayed { again } => format!("{head} replayed {again}"),
        Fate::Held { by } => format!("{head} held {by}"),
    }
}

fn read_fate(words: &[&str]) -> Option<(MessageKey, Fate)> {
    let [from, to, kind, transaction, nth, fate @ ..] = words else {
        return None;
    };
    let key = MessageKey {
        from: from.parse().ok()?,
        to: to.parse().ok()?,
        kind: kind_named(kind)?,
        transaction: transaction.strip_prefix('t')?.parse().ok()?,
        nth: nth.parse().ok()?,
    };
    let fate = match fate {
        ["lost"] => Fate::Lost,
        ["repeated", again] => Fate::Repeated {
            again: again.parse().ok()?,
        },
        ["replayed", again] => Fate::Replayed {
            again: again.parse().ok()?,
        },
        ["held", by] => Fate::Held { by: by.parse().ok()? },
        _ => return None,
    };
    Some((key, fate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_read_back_as_it_was() {
        for seed in 0..200 {
            let drawn = super::super::draw(seed);
            assert_eq!(Schedule::from_text(&drawn.to_text()), Ok(drawn));
        }
    }

    #[test]
    fn fates_are_read_back_and_nonsense_is_refused() {
        let text = "seed 1\nfate c1 p1 Prepare t3 0 lost\nfate p1 c1 Voted t3 2 held 500\n";
        let schedule = Schedule::from_text(text).unwrap();
        assert_eq!(schedule.to_text(), text);
        for line in [
            "work 5 t1",
            "fault 5 explode p1",
            "fate c1 p1 Sing t1 0 lost",
            "knob volume 11",
            "x",
        ] {
            assert!(Schedule::from_text(line).is_err(), "{line}");
        }
    }
}
