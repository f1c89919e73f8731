//! R6: when a deadline explains an abort.

use unanimo_core::TransactionPhase;

use super::*;
use crate::message::Why;

/// How long the voting phase of the run here lasts, and after how long it asks again.
const VOTING: u64 = 1_000;
const ATTEMPT: u64 = 500;

/// A run of `c1` for `t5` with `p1` and `p2`, which begins at time 0.
struct Run {
    feed: Feed,
    now: u64,
}

impl Run {
    fn new() -> Self {
        let mut run = Self {
            feed: Feed::default(),
            now: 0,
        };
        run.moves(true);
        run
    }

    fn see(&mut self, event: &Event<'_>) {
        assert_eq!(self.feed.see_at(event, self.now), None);
    }

    fn moves(&mut self, begins: bool) {
        let phase = TransactionPhase::Preparing {
            tally: unanimo_core::Tally::new(&members()),
            deadline: Timestamp::default(),
        };
        self.see(&Event::TransactionMoved {
            node: C1,
            transaction: t(5),
            request_hash: HASH,
            from: (!begins).then_some(&phase),
            to: &phase,
        });
    }

    /// The call is sent, and arrives if it may.
    fn asks(&mut self, at: u8, arrives: bool) {
        let message = &Message::Prepare {
            transaction: t(5),
            members: Rc::new(members()),
            request_hash: HASH,
            operation: None,
            remaining_ms: 1,
            watermark: None,
        };
        let (from, to) = (C1, Node::Participant(at));
        self.see(&Event::Sent { from, to, message });
        if arrives {
            self.see(&Event::Delivered { from, to, message });
        }
    }

    /// The member says what it is, and the answer arrives if it may.
    fn says(&mut self, at: u8, message: &Message, arrives: bool) {
        let (from, to) = (Node::Participant(at), C1);
        self.see(&Event::Sent { from, to, message });
        if arrives {
            self.see(&Event::Delivered { from, to, message });
        }
    }

    fn hears(&mut self, at: u8) {
        self.see(&Event::VoteReached {
            node: C1,
            at,
            transaction: t(5),
            request_hash: HASH,
            vote: &Vote::Yes,
        });
    }

    /// The table knows `p1` as this start.
    fn registers(&mut self, generation: Generation) {
        let position = unanimo_core::Position(1);
        let registration = Registration {
            witness: Witness { generation, position },
            address: "p1:1".to_owned(),
        };
        let participant = participant_id(0);
        let command = Command::Register {
            participant,
            registration,
        };
        assert_eq!(self.feed.apply(command, Applied::Registered), None);
    }

    /// At this time the deadline passes without these, and that is decided.
    fn ends(&mut self, at: u64, missing: Members) -> Option<&'static str> {
        self.now = at;
        self.see(&Event::DeadlineFired {
            node: C1,
            transaction: t(5),
            voting: VOTING,
            attempt: ATTEMPT,
        });
        let decision = Decision::Abort(AbortReason::DeadlinePassed { missing });
        let applied = Applied::Decided(record(decision.clone()));
        self.feed.apply(proposal(t(5), decision), applied)
    }
}

fn yes_of(generation: u32) -> Message {
    let generation = Generation::of_start(generation, 0);
    let position = unanimo_core::Position(1);
    Message::Voted {
        transaction: t(5),
        request_hash: HASH,
        vote: Vote::Yes,
        witness: Some(Witness { generation, position }),
    }
}

fn refusal(why: Why) -> Message {
    Message::Refused {
        transaction: t(5),
        request_hash: HASH,
        prepare: true,
        why,
    }
}

const RULE: Option<&str> = Some("R6 takeover adopts");

fn p1() -> Members {
    [participant_id(0)].into()
}

/// `p1` is asked at 0 and at 600; between that and the deadline this happens.
fn with(happens: impl FnOnce(&mut Run)) -> Option<&'static str> {
    let mut run = Run::new();
    run.asks(0, false);
    run.now = 600;
    happens(&mut run);
    run.ends(VOTING, p1())
}

#[test]
fn it_has_lasted_and_whom_it_misses_was_asked_until_the_end() {
    assert_eq!(with(|run| run.asks(0, false)), None, "the call is lost or late");
    assert_eq!(with(|_| {}), RULE, "not asked again");
    let ends = |at, missing| {
        let mut run = Run::new();
        run.now = 600;
        run.asks(0, false);
        run.ends(at, missing)
    };
    assert_eq!(ends(VOTING, p1()), None);
    assert_eq!(ends(VOTING - 1, p1()), RULE, "too early");
    assert_eq!(ends(VOTING, Members::new()), RULE, "nobody is missing");
    assert_eq!(ends(VOTING, members()), RULE, "p2 was not asked");
}

#[test]
fn a_member_that_has_the_call_must_have_been_kept_from_answering() {
    let (at, transaction) = (0, t(5));
    let began = Event::WorkBegan {
        at,
        transaction,
        what: Effort::Prepare,
    };
    let done = Event::WorkDone {
        at,
        transaction,
        what: Effort::Prepare,
        result: String::new(),
        repeated: false,
        changed: false,
        balance: 0,
    };
    let promise = unanimo_core::Record::Prepared(t(5), prepared());
    let written = Event::Written {
        at,
        position: 3,
        record: &promise,
        forced: true,
    };
    let crashed = Event::Crashed {
        node: P1,
        left: None,
        lost: 0,
    };
    let asked_and = |events: &[&Event<'_>]| {
        with(|run| {
            run.asks(0, true);
            for event in events {
                run.see(event);
            }
        })
    };
    assert_eq!(asked_and(&[]), RULE, "it has the call and says nothing");
    assert_eq!(asked_and(&[&began]), None, "its resource manager works");
    assert_eq!(asked_and(&[&began, &done]), RULE, "which is over");
    assert_eq!(asked_and(&[&written]), None, "its promise is not on disk");
    assert_eq!(
        asked_and(&[&written, &Event::Synced { at, upto: 2 }]),
        None,
        "nor is it now"
    );
    assert_eq!(
        asked_and(&[&written, &Event::Synced { at, upto: 3 }]),
        RULE,
        "now it is"
    );
    assert_eq!(asked_and(&[&crashed]), None, "the call is gone with its life");
}

#[test]
fn an_answer_that_arrives_is_heard_unless_it_does_not_count() {
    let answered = |message: &Message, arrives, heard| {
        with(|run| {
            run.registers(Generation::of_start(1, 0));
            run.asks(0, true);
            run.says(0, message, arrives);
            if heard {
                run.hears(0);
            }
        })
    };
    assert_eq!(
        answered(&yes_of(1), false, false),
        None,
        "the vote is lost or late"
    );
    assert_eq!(answered(&yes_of(1), true, true), RULE, "it has voted");
    assert_eq!(
        answered(&yes_of(1), true, false),
        RULE,
        "it has voted, and nobody listened"
    );
    assert_eq!(
        answered(&yes_of(2), true, false),
        None,
        "it has to register first (R11)"
    );
    assert_eq!(answered(&refusal(Why::Overloaded), true, false), None);
}

#[test]
fn who_votes_again_is_asked_again() {
    let heard_before = |asked_again| {
        with(|run| {
            run.asks(0, true);
            run.says(0, &yes_of(1), true);
            run.hears(0);
            run.moves(false);
            if asked_again {
                run.asks(0, false);
            }
        })
    };
    assert_eq!(heard_before(true), None);
    assert_eq!(heard_before(false), RULE);
}

#[test]
fn what_is_promised_is_not_refused() {
    let refuses = |why| {
        let mut run = Run::new();
        assert_eq!(run.feed.sees_vote(&Vote::Yes, true), None);
        let (from, to, message) = (P1, C1, &refusal(why));
        run.feed.see(&Event::Sent { from, to, message })
    };
    assert_eq!(refuses(Why::Overloaded), RULE);
    assert_eq!(refuses(Why::NoLeader), None, "it does not serve yet");
    let mut run = Run::new();
    run.asks(0, true);
    run.says(0, &refusal(Why::Overloaded), true);
}
