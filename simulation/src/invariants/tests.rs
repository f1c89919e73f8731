//! Each invariant sees what breaks it, in events made by hand, and nothing where nothing is wrong.

use std::rc::Rc;

use unanimo_core::table::{Applied, Command, DecisionRecord, Horizon, Proposal, Registration, Witness};
use unanimo_core::{
    AbortReason, BranchPhase, Decision, Finish, Generation, Members, Prepared, RequestHash, Timestamp,
    TransactionId, TransactionPhase, Vote,
};

use super::{History, Invariants, NAMES};
use crate::event::{Conclusion, Effort, Event};
use crate::log::Entry;
use crate::message::{Ask, InquiryAnswer, Message, Told};
use crate::node::{Node, participant_id};

mod deadlines;

const C1: Node = Node::Coordinator(0);
const P1: Node = Node::Participant(0);
const I1: Node = Node::Initiator(0);
const HASH: RequestHash = RequestHash::from_bytes([7; 32]);

fn t(n: u64) -> TransactionId {
    TransactionId::first_at(Timestamp::from_unix_ms(n))
}

fn members() -> Members {
    [participant_id(0), participant_id(1)].into()
}

fn record(decision: Decision) -> DecisionRecord {
    DecisionRecord {
        decision,
        request_hash: HASH,
        members: members(),
        unacknowledged: members(),
        decided_at: Timestamp::default(),
    }
}

/// What `p1` has promised.
fn prepared() -> Prepared {
    Prepared {
        cluster: "simulated".parse().unwrap(),
        members: members(),
        request_hash: HASH,
        redo: "-1".into(),
        deadline: Timestamp::default(),
        prepared_at: Timestamp::default(),
    }
}

fn proposal(id: TransactionId, decision: Decision) -> Command {
    let generation = Generation::of_start(1, 0);
    let position = unanimo_core::Position(1);
    Command::Decide(Proposal {
        transaction: id,
        decision,
        request_hash: HASH,
        members: members(),
        unacknowledged: members(),
        witnesses: [(participant_id(0), Witness { generation, position })].into(),
        decided_at: Timestamp::default(),
    })
}

/// Feeds events to all invariants.
#[derive(Default)]
struct Feed {
    history: History,
    invariants: Invariants,
    index: u64,
    kept: Vec<Rc<Entry>>,
}

impl Feed {
    fn see(&mut self, event: &Event<'_>) -> Option<&'static str> {
        self.see_at(event, 1_000_000)
    }

    fn see_at(&mut self, event: &Event<'_>, now: u64) -> Option<&'static str> {
        self.history.add(event, now);
        let broken = self.invariants.observe(&self.history, event, now);
        broken.map(|(name, _)| name)
    }

    /// The next entry of the log is applied for the first time.
    fn apply(&mut self, command: Command, applied: Applied) -> Option<&'static str> {
        self.apply_at(command, applied, 1_000_000)
    }

    fn apply_at(&mut self, command: Command, applied: Applied, now: u64) -> Option<&'static str> {
        self.index += 1;
        let (term, by) = (1, 0);
        let command = Some(command);
        let entry = Rc::new(Entry { term, command, by });
        self.kept.push(Rc::clone(&entry));
        let event = Event::Applied {
            node: C1,
            index: self.index,
            entry: &entry,
            first: true,
            safe: true,
            applied: Some(&applied),
            before: None,
        };
        self.see_at(&event, now)
    }

    fn decided(decision: Decision) -> Self {
        let mut feed = Self::default();
        let requested = Event::AbortAsked {
            node: C1,
            transaction: t(5),
        };
        assert_eq!(feed.see(&requested), None);
        let applied = Applied::Decided(record(decision.clone()));
        assert_eq!(feed.apply(proposal(t(5), decision), applied), None);
        feed
    }

    fn close_below(&mut self, watermark: TransactionId) {
        let time = Timestamp::from_unix_ms(1);
        let command = Command::Advance(Horizon { time, watermark });
        assert_eq!(self.apply(command, Applied::Advanced), None);
    }

    fn sees_vote(&mut self, vote: &Vote, sound: bool) -> Option<&'static str> {
        self.see(&Event::Votes {
            at: 0,
            transaction: t(5),
            request_hash: HASH,
            vote,
            sound,
        })
    }

    fn sees_move(&mut self, from: &BranchPhase, to: &BranchPhase) -> Option<&'static str> {
        let (at, transaction) = (0, t(5));
        self.see(&Event::BranchMoved {
            at,
            transaction,
            from,
            to,
        })
    }

    fn sees_commit(&mut self, repeated: bool, balance: i64) -> Option<&'static str> {
        self.see(&Event::WorkDone {
            at: 0,
            transaction: t(5),
            what: Effort::Commit,
            result: String::new(),
            repeated,
            changed: true,
            balance,
        })
    }

    fn concludes(&mut self, conclusion: &Conclusion, key: Option<u64>, id: u64) -> Option<&'static str> {
        self.see(&Event::Concluded {
            initiator: I1,
            since: 2_000_000,
            transaction: t(id),
            request_hash: Some(HASH),
            key,
            conclusion,
        })
    }
}

fn sent(message: &Message) -> Event<'_> {
    let (from, to) = (C1, P1);
    Event::Sent { from, to, message }
}

fn abort() -> Decision {
    Decision::Abort(AbortReason::Requested)
}

fn no() -> Vote {
    Vote::No {
        reason: "no".to_owned(),
    }
}

#[test]
fn every_invariant_has_a_name_of_its_own() {
    let mut names = NAMES.to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), NAMES.len());
}

#[test]
fn the_log() {
    let elected = |complete| Event::Elected {
        node: C1,
        term: 1,
        last_index: 0,
        complete,
    };
    let mut feed = Feed::default();
    assert_eq!(feed.see(&elected(true)), None);
    assert_eq!(feed.see(&elected(true)), Some("R1, R2: the log"), "two leaders");
    assert_eq!(Feed::default().see(&elected(false)), Some("R1, R2: the log"));
    let entry = Rc::new(Entry {
        term: 1,
        command: None,
        by: 0,
    });
    let applied = |index, first, safe| Event::Applied {
        node: C1,
        index,
        entry: &entry,
        first,
        safe,
        applied: None,
        before: None,
    };
    assert_eq!(
        Feed::default().see(&applied(1, true, false)),
        Some("R1, R2: the log")
    );
    let mut feed = Feed::decided(Decision::Commit);
    assert_eq!(
        feed.see(&applied(1, false, true)),
        Some("R1, R2: the log"),
        "another entry"
    );
    let truncated = Event::Truncated {
        node: C1,
        entries: 1,
        committed: true,
    };
    assert_eq!(Feed::default().see(&truncated), Some("R1, R2: the log"));
    assert_eq!(
        Feed::default().see(&Event::Differs { node: C1 }),
        Some("R1, R2: the log")
    );
}

#[test]
fn one_decision() {
    let mut feed = Feed::decided(Decision::Commit);
    let applied = Applied::Decided(record(abort()));
    assert_eq!(
        feed.apply(proposal(t(5), abort()), applied),
        Some("R1 one decision")
    );
}

#[test]
fn decide_before_speak() {
    let deliver = |commit| Message::Deliver {
        transaction: t(5),
        request_hash: HASH,
        commit,
        watermark: None,
    };
    let (commit, abort_told) = (deliver(true), deliver(false));
    let rule = Some("R2 decide before you speak");
    assert_eq!(Feed::default().see(&sent(&commit)), rule);
    let mut feed = Feed::decided(Decision::Commit);
    assert_eq!(feed.see(&sent(&commit)), None);
    assert_eq!(feed.see(&sent(&abort_told)), rule);
    let told = Message::Told {
        call: 1,
        told: Told::Decided {
            transaction: t(5),
            decision: abort(),
        },
    };
    assert_eq!(feed.see(&sent(&told)), rule);
    let answers = vec![(t(5), HASH, InquiryAnswer::Decided(abort()))];
    let answered = Message::Inquired { call: 1, answers };
    let delivered = Event::Delivered {
        from: C1,
        to: P1,
        message: &answered,
    };
    assert_eq!(feed.see(&delivered), rule);
}

#[test]
fn promise() {
    let rule = Some("R3 a Yes is a promise");
    assert_eq!(Feed::default().sees_vote(&Vote::Yes, true), None);
    assert_eq!(Feed::default().sees_vote(&Vote::Yes, false), rule);
    let serving = Event::Serving {
        at: 0,
        generation: Generation::of_start(1, 0),
        without_hold: Some(t(5)),
    };
    assert_eq!(Feed::default().see(&serving), rule);
    let promised = BranchPhase::Prepared(prepared());
    let lets_go = BranchPhase::Aborting {
        redo: "-1".into(),
        reason: String::new(),
    };
    assert_eq!(Feed::default().sees_move(&promised, &lets_go), rule);
    assert_eq!(
        Feed::decided(Decision::Commit).sees_move(&promised, &lets_go),
        rule
    );
    assert_eq!(Feed::decided(abort()).sees_move(&promised, &lets_go), None);
    let commits = BranchPhase::Committing(prepared());
    assert_eq!(Feed::decided(abort()).sees_move(&promised, &commits), rule);
}

#[test]
fn tombstone() {
    let mut feed = Feed::default();
    let aborted = BranchPhase::Finished(Finish::Aborted {
        reason: String::new(),
    });
    assert_eq!(feed.sees_move(&BranchPhase::Unknown, &aborted), None);
    let works = Event::WorkBegan {
        at: 0,
        transaction: t(5),
        what: Effort::Prepare,
    };
    assert_eq!(feed.see(&works), Some("R4 No is remembered"));
    assert_eq!(feed.see(&Event::Started { node: P1, life: 2 }), None);
    assert_eq!(feed.see(&works), None, "it was not on disk");
}

#[test]
fn final_no() {
    let mut feed = Feed::default();
    let moved = |from, to| Event::TransactionMoved {
        node: C1,
        transaction: t(5),
        request_hash: HASH,
        from,
        to,
    };
    let tally = unanimo_core::Tally::new(&members());
    let deadline = Timestamp::default();
    let preparing = TransactionPhase::Preparing {
        tally: tally.clone(),
        deadline,
    };
    let commits = TransactionPhase::Deciding {
        proposed: Decision::Commit,
        tally,
        deadline,
    };
    assert_eq!(feed.see(&moved(None, &preparing)), None);
    assert_eq!(feed.see(&moved(Some(&preparing), &commits)), None);
    let vote = no();
    let reached = Event::VoteReached {
        node: C1,
        at: 0,
        transaction: t(5),
        request_hash: HASH,
        vote: &vote,
    };
    assert_eq!(feed.see(&reached), None);
    assert_eq!(
        feed.see(&moved(Some(&preparing), &commits)),
        Some("R4 a No is final")
    );
    assert_eq!(feed.see(&moved(None, &preparing)), None, "another run");
    assert_eq!(feed.see(&moved(Some(&preparing), &commits)), None);
}

#[test]
fn presumed_abort() {
    let answers = vec![(t(5), HASH, InquiryAnswer::Decided(abort()))];
    let message = Message::Inquired { call: 1, answers };
    let sent = Event::Sent {
        from: C1,
        to: P1,
        message: &message,
    };
    assert_eq!(
        Feed::default().see(&sent),
        Some("R5 presumed abort is recorded first")
    );
    assert_eq!(Feed::decided(abort()).see(&sent), None);
    let mut feed = Feed::default();
    feed.close_below(t(6));
    assert_eq!(feed.see(&sent), None);
}

#[test]
fn takeover() {
    let reasons = [
        abort(),
        Decision::Abort(AbortReason::Presumed),
        Decision::Abort(AbortReason::DeadlinePassed { missing: members() }),
        Decision::Abort(AbortReason::VotedNo {
            participant: participant_id(0),
            reason: "no".to_owned(),
        }),
    ];
    for decision in &reasons {
        let applied = Applied::Decided(record(decision.clone()));
        let broken = Feed::default().apply(proposal(t(5), decision.clone()), applied);
        assert_eq!(broken, Some("R6 takeover adopts"), "{decision}");
    }
    let mut feed = Feed::default();
    assert_eq!(feed.sees_vote(&no(), true), None);
    let applied = Applied::Decided(record(reasons[3].clone()));
    assert_eq!(feed.apply(proposal(t(5), reasons[3].clone()), applied), None);
}

#[test]
fn closing() {
    let rule = Some("R7 forget late");
    let kept = record(Decision::Commit);
    let forgotten = Event::Forgotten {
        transaction: t(5),
        record: &kept,
    };
    let mut feed = Feed::decided(Decision::Commit);
    assert_eq!(feed.sees_vote(&Vote::Yes, true), None);
    assert_eq!(feed.see(&forgotten), rule, "not closed");
    feed.close_below(t(6));
    assert_eq!(feed.see(&forgotten), rule, "not on the disk of p1");
    let committed = unanimo_core::Record::Committed {
        transaction: t(5),
        request_hash: HASH,
    };
    let on_disk = Event::OnDisk {
        at: 0,
        position: 3,
        record: &committed,
    };
    assert_eq!(feed.see(&on_disk), None);
    assert_eq!(feed.see(&forgotten), None);
    let applied = Applied::Decided(record(Decision::Commit));
    assert_eq!(
        feed.apply(proposal(t(4), Decision::Commit), applied),
        rule,
        "closed before"
    );
    let closed = |below| Event::Closed { at: 0, below };
    assert_eq!(feed.see(&closed(t(6))), None);
    assert_eq!(feed.see(&closed(t(7))), rule, "nobody has closed that");
    let works = Event::WorkBegan {
        at: 0,
        transaction: t(3),
        what: Effort::Prepare,
    };
    assert_eq!(feed.see(&works), rule);
}

#[test]
fn time() {
    let advance = |ms| {
        let (time, watermark) = (Timestamp::from_unix_ms(ms), t(0));
        Command::Advance(Horizon { time, watermark })
    };
    let mut feed = Feed::default();
    assert_eq!(feed.apply_at(advance(10_000), Applied::Advanced, 0), None);
    assert_eq!(
        feed.apply_at(advance(20_000), Applied::Advanced, 10_000_000),
        None
    );
    let jumped = feed.apply_at(advance(31_000), Applied::Advanced, 20_000_000);
    assert_eq!(jumped, Some("R8 no correctness from clocks"));
}

#[test]
fn alarm() {
    let alarm = Event::Alarm {
        node: P1,
        transaction: t(5),
        what: String::new(),
    };
    assert_eq!(Feed::default().see(&alarm), Some("R9 no alarm"));
    let copied = |old| Event::DiskReplaced {
        node: P1,
        end: 0,
        old,
    };
    let mut feed = Feed::default();
    assert_eq!(feed.see(&copied(true)), None);
    assert_eq!(
        feed.see(&alarm),
        None,
        "nobody has found out that it runs from a copy"
    );
    assert_eq!(feed.see(&copied(false)), None);
    assert_eq!(feed.see(&alarm), Some("R9 no alarm"));
}

#[test]
fn exactly_once() {
    let rule = Some("R9 once");
    let mut feed = Feed::decided(Decision::Commit);
    assert_eq!(feed.sees_commit(false, 1), None);
    assert_eq!(feed.sees_commit(true, 0), rule);
    let acknowledges = Event::AcknowledgesCommit {
        at: 0,
        transaction: t(5),
        sound: false,
    };
    assert_eq!(feed.see(&acknowledges), rule);
    let mut feed = Feed::default();
    assert_eq!(feed.sees_vote(&Vote::Yes, true), None);
    assert_eq!(feed.sees_vote(&no(), true), rule);
}

#[test]
fn fail_stop() {
    let mut feed = Feed::default();
    let message = Message::ClockAsked { round: 1 };
    let sent = Event::Sent {
        from: P1,
        to: C1,
        message: &message,
    };
    assert_eq!(feed.see(&sent), None);
    assert_eq!(feed.see(&Event::SyncFailed { node: P1 }), None);
    assert_eq!(feed.see(&sent), Some("R10 fail stop"));
    assert_eq!(feed.see(&Event::Started { node: P1, life: 2 }), None);
    assert_eq!(feed.see(&sent), None);
}

#[test]
fn identity() {
    let rule = Some("R11 know each other");
    let registered = |missing| Event::Registered {
        at: 0,
        generation: Generation::of_start(2, 0),
        missing,
    };
    assert_eq!(Feed::default().see(&registered(None)), None);
    assert_eq!(Feed::default().see(&registered(Some(t(5)))), rule);
    let mut feed = Feed::default();
    let registration = Registration {
        address: "p1:1".to_owned(),
        witness: Witness {
            generation: Generation::of_start(2, 0),
            position: unanimo_core::Position(1),
        },
    };
    let participant = participant_id(0);
    let register = Command::Register {
        participant,
        registration,
    };
    assert_eq!(feed.apply(register, Applied::Registered), None);
    let applied = Applied::Decided(record(Decision::Commit));
    assert_eq!(feed.apply(proposal(t(5), Decision::Commit), applied), rule);
}

#[test]
fn idempotent() {
    let mut feed = Feed::decided(Decision::Commit);
    let applied = Applied::Decided(record(Decision::Commit));
    assert_eq!(feed.apply(proposal(t(6), Decision::Commit), applied), None);
    assert_eq!(feed.concludes(&Conclusion::Committed, Some(1), 5), None);
    assert_eq!(feed.concludes(&Conclusion::Committed, Some(1), 5), None);
    let other = feed.concludes(&Conclusion::Committed, Some(1), 6);
    assert_eq!(other, Some("R12 idempotent initiators"));
}

#[test]
fn definite() {
    let rule = Some("R13 definite answers");
    assert_eq!(Feed::default().concludes(&Conclusion::Unknown, None, 5), None);
    assert_eq!(Feed::default().concludes(&Conclusion::Aborted, None, 5), rule);
    let mut feed = Feed::decided(Decision::Commit);
    assert_eq!(feed.concludes(&Conclusion::Aborted, None, 5), rule);
    assert_eq!(
        feed.concludes(&Conclusion::Undecided, None, 5),
        rule,
        "it was decided before"
    );
    let mismatch = Conclusion::Refused(crate::message::Why::Mismatch);
    assert_eq!(feed.concludes(&mismatch, None, 5), rule);
}

/// A call for a commit of transaction 5, by which and with which number.
fn asks(initiator: u16, call: u64, transaction: TransactionId) -> (Node, Message) {
    let members = Rc::new(members());
    let ask = Ask::Commit { transaction, members };
    (Node::Initiator(initiator), Message::Call { call, ask })
}

impl Feed {
    fn sees_call(&mut self, (from, message): &(Node, Message)) {
        let (from, to) = (*from, C1);
        assert_eq!(self.see(&Event::Sent { from, to, message }), None);
        assert_eq!(self.see(&Event::Delivered { from, to, message }), None);
    }

    fn is_refused(&mut self, initiator: u16) -> Option<&'static str> {
        self.see(&Event::Concluded {
            initiator: Node::Initiator(initiator),
            since: 2_000_000,
            transaction: t(5),
            request_hash: Some(RequestHash::of_members(&members())),
            key: None,
            conclusion: &Conclusion::Refused(crate::message::Why::UnknownParticipant),
        })
    }

    fn commits_members(&mut self) -> Option<&'static str> {
        let request_hash = RequestHash::of_members(&members());
        let mut committed = record(Decision::Commit);
        committed.request_hash = request_hash;
        self.apply(proposal(t(5), Decision::Commit), Applied::Decided(committed))
    }
}

#[test]
fn definite_refusals() {
    let rule = Some("R13 definite answers");
    let mut feed = Feed::default();
    feed.sees_call(&asks(1, 1, t(5)));
    assert_eq!(feed.is_refused(1), None);
    assert_eq!(feed.commits_members(), rule);

    let mut feed = Feed::default();
    feed.sees_call(&asks(1, 1, t(5)));
    assert_eq!(feed.commits_members(), None);
    assert_eq!(feed.is_refused(1), rule, "it was committed before");

    let mut feed = Feed::default();
    feed.sees_call(&asks(1, 1, t(5)));
    feed.sees_call(&asks(2, 2, t(5)));
    assert_eq!(feed.is_refused(1), None);
    assert_eq!(feed.commits_members(), None, "somebody else has asked for it");
    assert_eq!(feed.is_refused(2), rule);

    let mut feed = Feed::default();
    feed.sees_call(&asks(1, 1, t(5)));
    feed.sees_call(&asks(1, 1, t(5)));
    assert_eq!(feed.is_refused(1), None);
    assert_eq!(feed.commits_members(), None, "its call came twice");
}

#[test]
fn definite_expiry() {
    let rule = Some("R13 definite answers");
    let mut feed = Feed::default();
    assert_eq!(feed.concludes(&Conclusion::Expired, None, 5), rule);
    feed.close_below(t(6));
    assert_eq!(feed.concludes(&Conclusion::Expired, None, 5), None);
}

#[test]
fn bounded() {
    let load = |count| Event::Load {
        node: C1,
        count,
        limit: 2,
    };
    assert_eq!(Feed::default().see(&load(2)), None);
    assert_eq!(Feed::default().see(&load(3)), Some("R14 bounded everything"));
}

#[test]
fn atomicity() {
    assert_eq!(Feed::decided(Decision::Commit).sees_commit(false, 1), None);
    assert_eq!(Feed::decided(abort()).sees_commit(false, 1), Some("atomicity"));
    assert_eq!(Feed::default().sees_commit(false, 1), Some("atomicity"));
}

#[test]
fn conservation() {
    let settled = |balance| Event::Settled {
        at: 0,
        balance,
        expected: 5,
    };
    assert_eq!(Feed::default().see(&settled(5)), None);
    assert_eq!(Feed::default().see(&settled(6)), Some("conservation"));
    let overdrawn = Feed::decided(Decision::Commit).sees_commit(false, -1);
    assert_eq!(overdrawn, Some("conservation"));
}

#[test]
fn progress() {
    let what = "p1 waits".to_owned();
    assert_eq!(Feed::default().see(&Event::Stuck { what }), Some("progress"));
}
