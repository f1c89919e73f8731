//! What a script or a random schedule can do to the world. Every action prints as the command that repeats it, so
//! that the events of a failing run are a script.

use std::fmt;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// `submit c1 t1 p1=yes p2=no`; `submit-blind` by a leader that does not look into the table first.
    Submit {
        node: usize,
        transaction: u64,
        branches: Vec<(usize, String)>,
        blind: bool,
    },
    /// `join p1 t1 yes`: the application brings an operation of an interactive transaction.
    Join {
        participant: usize,
        transaction: u64,
        operation: String,
    },
    /// `expire p1 t1`: the deadline of what was joined passes.
    Expire { participant: usize, transaction: u64 },
    /// `commit c1 t1 p1 p2`: the initiator commits what these have joined.
    Commit {
        node: usize,
        transaction: u64,
        participants: Vec<usize>,
    },
    /// `abort c1 t1`: the initiator asks for it.
    AskForAbort { node: usize, transaction: u64 },
    /// `deadline c1 t1`: the voting deadline passes.
    Deadline { node: usize, transaction: u64 },
    /// `resend c1 t1`: send again what was not answered.
    Resend { node: usize, transaction: u64 },
    /// `read c1 t1`: look the transaction up in the table.
    Read { node: usize, transaction: u64 },
    /// `take-over c1`: resume what the table holds and has not ended.
    TakeOver { node: usize },
    /// `ask p1 t1 c1`: the in-doubt timer of the branch fires, and it asks that node.
    Ask {
        participant: usize,
        transaction: u64,
        node: usize,
    },
    /// `do c1 → p1 Commit t1`: the oldest pending thing that contains these words happens.
    Do(String),
    /// `repeat c1 → p1 Commit t1`: the message is delivered, and stays on its way.
    Repeat(String),
    /// `lose c1 → p1 Commit t1`: the message or proposal is lost.
    Lose(String),
    /// `hold → p1 Commit`: `run` leaves alone what contains these words.
    Hold(String),
    /// `release`: nothing is held any more.
    Release,
    /// `run`: everything happens that is pending and not held, until nothing is left.
    Run,
    /// `crash p1` or `crash p1 keep=1`, where that many records of the un-synced tail reach the disk.
    CrashParticipant { participant: usize, keep: usize },
    /// `restart p1`.
    RestartParticipant { participant: usize },
    /// `crash c1`.
    CrashCoordinator { node: usize },
    /// `restart c1`.
    RestartCoordinator { node: usize },
    /// `clock p1 5000`: its clock shows that many milliseconds.
    SetParticipantClock { participant: usize, at_ms: u64 },
    /// `clock c1 5000`.
    SetCoordinatorClock { node: usize, at_ms: u64 },
    /// `register p1 c1 host-a`: the participant says through that node where it serves.
    Register {
        participant: usize,
        node: usize,
        address: String,
    },
    /// `fall-back p1 2`: the disk of a stopped participant is an old copy with that many records.
    FallBack { participant: usize, records: usize },
    /// `forge c1 p1 commit t1`: a message that no coordinator that keeps the rules would send.
    Forge {
        node: usize,
        participant: usize,
        what: Forged,
        transaction: u64,
    },
}

/// What is forged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forged {
    /// `commit`, of the request that the branch knows.
    Commit,
    /// `commit-other`, of another request.
    CommitOther,
    /// `abort`.
    Abort,
}

impl Action {
    /// Reads a command of a script.
    pub(crate) fn parse(line: &str) -> Result<Self, String> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        let malformed = || format!("cannot read the command {line:?}");
        let number = |place: usize, prefix: char| -> Result<usize, String> {
            let word = words.get(place).and_then(|word| word.strip_prefix(prefix));
            word.and_then(|digits| digits.parse().ok()).ok_or_else(malformed)
        };
        let node = |place| number(place, 'c');
        let participant = |place| number(place, 'p');
        let transaction = |place| number(place, 't').map(|number| number as u64);
        let plain = |place: usize| -> Result<u64, String> {
            words
                .get(place)
                .and_then(|word| word.parse().ok())
                .ok_or_else(malformed)
        };
        let of_coordinator = words.first().is_some_and(|word| word.starts_with('c'));
        Ok(match verb {
            "submit" | "submit-blind" => Self::Submit {
                node: node(0)?,
                transaction: transaction(1)?,
                branches: words[2..]
                    .iter()
                    .map(|word| parse_branch(word).ok_or_else(malformed))
                    .collect::<Result<_, _>>()?,
                blind: verb == "submit-blind",
            },
            "join" => Self::Join {
                participant: participant(0)?,
                transaction: transaction(1)?,
                operation: (*words.get(2).ok_or_else(malformed)?).to_owned(),
            },
            "expire" => Self::Expire {
                participant: participant(0)?,
                transaction: transaction(1)?,
            },
            "commit" => Self::Commit {
                node: node(0)?,
                transaction: transaction(1)?,
                participants: (2..words.len()).map(participant).collect::<Result<_, _>>()?,
            },
            "abort" => Self::AskForAbort {
                node: node(0)?,
                transaction: transaction(1)?,
            },
            "deadline" => Self::Deadline {
                node: node(0)?,
                transaction: transaction(1)?,
            },
            "resend" => Self::Resend {
                node: node(0)?,
                transaction: transaction(1)?,
            },
            "read" => Self::Read {
                node: node(0)?,
                transaction: transaction(1)?,
            },
            "take-over" => Self::TakeOver { node: node(0)? },
            "ask" => Self::Ask {
                participant: participant(0)?,
                transaction: transaction(1)?,
                node: node(2)?,
            },
            "do" => Self::Do(rest.to_owned()),
            "repeat" => Self::Repeat(rest.to_owned()),
            "lose" => Self::Lose(rest.to_owned()),
            "hold" => Self::Hold(rest.to_owned()),
            "release" => Self::Release,
            "run" => Self::Run,
            "crash" if of_coordinator => Self::CrashCoordinator { node: node(0)? },
            "crash" => Self::CrashParticipant {
                participant: participant(0)?,
                keep: match words.get(1) {
                    Some(word) => word
                        .strip_prefix("keep=")
                        .and_then(|n| n.parse().ok())
                        .ok_or_else(malformed)?,
                    None => 0,
                },
            },
            "restart" if of_coordinator => Self::RestartCoordinator { node: node(0)? },
            "restart" => Self::RestartParticipant {
                participant: participant(0)?,
            },
            "clock" if of_coordinator => Self::SetCoordinatorClock {
                node: node(0)?,
                at_ms: plain(1)?,
            },
            "clock" => Self::SetParticipantClock {
                participant: participant(0)?,
                at_ms: plain(1)?,
            },
            "register" => Self::Register {
                participant: participant(0)?,
                node: node(1)?,
                address: (*words.get(2).ok_or_else(malformed)?).to_owned(),
            },
            "fall-back" => Self::FallBack {
                participant: participant(0)?,
                records: plain(1)? as usize,
            },
            "forge" => Self::Forge {
                node: node(0)?,
                participant: participant(1)?,
                what: match words.get(2) {
                    Some(&"commit") => Forged::Commit,
                    Some(&"commit-other") => Forged::CommitOther,
                    Some(&"abort") => Forged::Abort,
                    _ => return Err(malformed()),
                },
                transaction: transaction(3)?,
            },
            _ => return Err(malformed()),
        })
    }
}

fn parse_branch(word: &str) -> Option<(usize, String)> {
    let (participant, operation) = word.split_once('=')?;
    Some((participant.strip_prefix('p')?.parse().ok()?, operation.to_owned()))
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Submit {
                node,
                transaction,
                branches,
                blind,
            } => {
                let verb = if *blind { "submit-blind" } else { "submit" };
                write!(f, "{verb} c{node} t{transaction}")?;
                branches
                    .iter()
                    .try_for_each(|(participant, operation)| write!(f, " p{participant}={operation}"))
            }
            Self::Join {
                participant,
                transaction,
                operation,
            } => write!(f, "join p{participant} t{transaction} {operation}"),
            Self::Expire {
                participant,
                transaction,
            } => write!(f, "expire p{participant} t{transaction}"),
            Self::Commit {
                node,
                transaction,
                participants,
            } => {
                write!(f, "commit c{node} t{transaction}")?;
                participants
                    .iter()
                    .try_for_each(|participant| write!(f, " p{participant}"))
            }
            Self::AskForAbort { node, transaction } => write!(f, "abort c{node} t{transaction}"),
            Self::Deadline { node, transaction } => write!(f, "deadline c{node} t{transaction}"),
            Self::Resend { node, transaction } => write!(f, "resend c{node} t{transaction}"),
            Self::Read { node, transaction } => write!(f, "read c{node} t{transaction}"),
            Self::TakeOver { node } => write!(f, "take-over c{node}"),
            Self::Ask {
                participant,
                transaction,
                node,
            } => write!(f, "ask p{participant} t{transaction} c{node}"),
            Self::Do(words) => write!(f, "do {words}"),
            Self::Repeat(words) => write!(f, "repeat {words}"),
            Self::Lose(words) => write!(f, "lose {words}"),
            Self::Hold(words) => write!(f, "hold {words}"),
            Self::Release => f.write_str("release"),
            Self::Run => f.write_str("run"),
            Self::CrashParticipant { participant, keep: 0 } => write!(f, "crash p{participant}"),
            Self::CrashParticipant { participant, keep } => write!(f, "crash p{participant} keep={keep}"),
            Self::RestartParticipant { participant } => write!(f, "restart p{participant}"),
            Self::CrashCoordinator { node } => write!(f, "crash c{node}"),
            Self::RestartCoordinator { node } => write!(f, "restart c{node}"),
            Self::SetParticipantClock { participant, at_ms } => write!(f, "clock p{participant} {at_ms}"),
            Self::SetCoordinatorClock { node, at_ms } => write!(f, "clock c{node} {at_ms}"),
            Self::Register {
                participant,
                node,
                address,
            } => write!(f, "register p{participant} c{node} {address}"),
            Self::FallBack { participant, records } => write!(f, "fall-back p{participant} {records}"),
            Self::Forge {
                node,
                participant,
                what,
                transaction,
            } => {
                let what = match what {
                    Forged::Commit => "commit",
                    Forged::CommitOther => "commit-other",
                    Forged::Abort => "abort",
                };
                write!(f, "forge c{node} p{participant} {what} t{transaction}")
            }
        }
    }
}
