//! One run: a service with fresh data, its lives, and the messages that it gets.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use unanimo_core::Vote;
use unanimo_journal::SimulatedDisk;
use unanimo_participant::{Bytes, ResourceManager as _};
use unanimo_table::MemoryTable;

use crate::life::{Answer, Ended, Life, Message, Overtaken, transaction};
use crate::schedule::Schedule;
use crate::watched::{Gate, Point, Trap};
use crate::{Operations, Service, Storage};

/// How often a message is sent again before the service counts as stuck. Each crash of a run costs one.
const ATTEMPTS: usize = 50;

/// What outlives a crash.
pub(crate) struct World<S> {
    pub(crate) service: S,
    pub(crate) storage: Storage,
    /// The participant's journal and its branch table.
    pub(crate) disk: SimulatedDisk,
    pub(crate) branches: MemoryTable,
    pub(crate) trap: Arc<Trap>,
    pub(crate) lives: u32,
}

/// One run under one schedule.
pub(crate) struct Run<S: Service> {
    world: World<S>,
    life: Option<Life<S::Manager>>,
    schedule: Schedule,
    /// Whether the schedule does its worst at the moment.
    disturbed: bool,
    /// Whether the power is cut after answers, if the schedule does that.
    cuts_answers: bool,
    /// How often the schedule did what it is for.
    deeds: u32,
    /// The write of the participant's disk at which the power is to be cut.
    journal_cut: Option<u64>,
    /// Whether the power is to be cut at a call.
    trapped: bool,
    /// Whether something that the rule is about did not come about.
    missed: bool,
    sent: Vec<(Message, Answer)>,
    /// Transactions that were promised and aborted.
    released: BTreeSet<u8>,
    seed: u64,
    pub(crate) operations: Operations,
    pub(crate) crashes: u32,
}

impl<S: Service> Run<S> {
    pub(crate) fn new(service: S, schedule: Schedule, seed: u64) -> Self {
        let operations = service.operations();
        let world = World {
            service,
            storage: Storage::default(),
            disk: SimulatedDisk::new(),
            branches: MemoryTable::new(),
            trap: Arc::default(),
            lives: 0,
        };
        let mut run = Self {
            world,
            life: None,
            schedule,
            disturbed: true,
            cuts_answers: true,
            deeds: 0,
            journal_cut: None,
            trapped: false,
            missed: false,
            sent: Vec::new(),
            released: BTreeSet::new(),
            seed,
            operations,
            crashes: 0,
        };
        if !schedule.waits_for_a_promise() {
            run.set_trap();
        }
        run
    }

    fn set_trap(&mut self) {
        if let Schedule::At(point) = self.schedule {
            self.world.trap.arm(Some(point));
            self.trapped = true;
        }
    }

    /// Cuts the power at this write of the participant's disk.
    pub(crate) fn power_off_at_journal_write(&mut self, write: u64) {
        self.journal_cut = Some(write);
        self.world.disk.power_off_at_operation(write);
    }

    /// Cuts the power at this write of the service's table.
    pub(crate) fn power_off_at_table_write(&mut self, write: u64) {
        self.world.storage.power_off_at(write);
    }

    /// How many writes there were so far: of the participant, and of the service.
    pub(crate) fn writes(&self) -> (u64, u64) {
        (self.world.disk.operations(), self.world.storage.writes())
    }

    /// Whether what the rule is about came about, and the schedule did what it is for, at least once.
    pub(crate) fn was_reached(&self) -> bool {
        !self.missed && (self.schedule == Schedule::Calm || self.deeds > 0)
    }

    /// Whether the schedule is what cuts the power now.
    fn schedule_cuts(&mut self) -> bool {
        let writes = self.world.disk.operations();
        let at_a_call = self.trapped && !self.world.trap.is_armed();
        let at_a_write = self.journal_cut.is_some_and(|write| writes >= write) || self.world.storage.is_off();
        if at_a_call {
            self.trapped = false;
        }
        if at_a_write {
            self.journal_cut = None;
        }
        self.disturbed && (at_a_call || at_a_write)
    }

    /// From here on nothing goes wrong: what follows is not what the rule is about.
    pub(crate) fn calm(&mut self) {
        self.disturbed = false;
        self.world.trap.arm(None);
        self.world.disk.power_off_at_operation(u64::MAX);
        self.world.storage.power_off_at(u64::MAX);
    }

    /// From here on answers are no longer cut off: the rule cuts the power itself.
    pub(crate) fn cut_no_more_answers(&mut self) {
        self.cuts_answers = false;
    }

    fn cuts_after_answers(&self) -> bool {
        self.disturbed && self.cuts_answers && self.schedule.cuts_after_answers()
    }

    /// Cuts the power; the next message starts the service again.
    pub(crate) fn crash(&mut self) {
        if self.schedule_cuts() {
            self.deeds += 1;
        }
        // Everything that this life was doing ends with its runtime.
        self.life = None;
        self.crashes += 1;
        self.seed += 1;
        self.world.disk.crash(self.seed);
        self.world.branches.crash(self.seed);
        self.world.storage.crash(self.seed);
    }

    fn life(&mut self) -> Result<&mut Life<S::Manager>, String> {
        let mut attempts = 0;
        while self.life.is_none() {
            self.world.lives += 1;
            attempts += 1;
            match Life::start(&self.world)? {
                Ended::Answered(life) => {
                    self.life = Some(life);
                    self.answer_inquiries();
                }
                Ended::Crashed => self.crash(),
                // The power may have been cut meanwhile; without that it stays so.
                Ended::Refused(why) if attempts >= 5 => return Err(why),
                Ended::Refused(_) => self.crash(),
            }
        }
        self.life.as_mut().ok_or_else(|| "it does not run".to_owned())
    }

    /// Who was told an abort may have lost its record of it, and asks about the promise that it finds again.
    fn answer_inquiries(&mut self) {
        for number in self.released.clone() {
            let Some(life) = &mut self.life else { return };
            if let Ended::Crashed = life.send(&Message::Abort(number)) {
                return self.crash();
            }
        }
    }

    /// Sends a message until it is answered, as a coordinator does.
    fn send(&mut self, message: Message) -> Result<Answer, String> {
        let mut refusal = String::new();
        for _ in 0..ATTEMPTS {
            match self.life()?.send(&message) {
                Ended::Answered(answer) => return self.answered(message, answer),
                Ended::Crashed => self.crash(),
                Ended::Refused(why) => {
                    refusal = why;
                    let power_is_off = self.world.storage.is_off();
                    if power_is_off {
                        self.crash();
                    } else {
                        self.life()?.run(tokio::time::sleep(Duration::from_millis(2)));
                    }
                }
            }
        }
        Err(format!("{message:?} is never answered: {refusal}"))
    }

    fn answered(&mut self, message: Message, answer: Answer) -> Result<Answer, String> {
        if self.disturbed && self.schedule == Schedule::Twice {
            self.deeds += 1;
            match self.life()?.send(&message) {
                Ended::Answered(again) if same(&again, &answer) => {}
                Ended::Answered(again) => {
                    return Err(format!("{message:?} is answered {answer:?} and then {again:?}"));
                }
                Ended::Refused(why) => {
                    return Err(format!("{message:?} is answered, and then refused: {why}"));
                }
                Ended::Crashed => return Err("it stops when a message comes twice".to_owned()),
            }
        }
        let is_yes = |(sent, answer): &(Message, Answer), number: u8| {
            matches!(sent, Message::Prepare(of, _) if *of == number) && *answer == Answer::Voted(Vote::Yes)
        };
        if let Message::Abort(number) = message
            && self.sent.iter().any(|sent| is_yes(sent, number))
        {
            self.released.insert(number);
        }
        if answer == Answer::Voted(Vote::Yes) && self.waits_for_this_promise() {
            self.set_trap();
        }
        self.sent.push((message, answer.clone()));
        if self.cuts_after_answers() {
            self.crash();
            self.deeds += u32::from(self.schedule == Schedule::AfterAnswers);
        }
        Ok(answer)
    }

    /// Whether this is the first promise, and the power is to be cut at the start after it.
    fn waits_for_this_promise(&self) -> bool {
        self.disturbed && self.schedule.waits_for_a_promise() && !self.trapped && self.deeds == 0
    }

    /// Prepares, and aborts while the resource manager is held at this point of it. Whatever becomes of the Prepare, the
    /// abort is told until it is acknowledged.
    pub(crate) fn abort_while_at_work(
        &mut self,
        number: u8,
        operation: &Bytes,
        point: Point,
    ) -> Result<(), String> {
        let gate = Gate::at(point);
        let (prepare, abort) = (
            Message::Prepare(number, operation.clone()),
            Message::Abort(number),
        );
        self.life()?;
        self.world.trap.hold(Some(Arc::clone(&gate)));
        let ended = self.life()?.send_overtaking(&prepare, &abort, &gate);
        self.world.trap.hold(None);
        match ended {
            Ended::Answered(Overtaken { vote, was_at_work }) => {
                self.missed |= !was_at_work;
                let aborted = matches!(vote, Vote::No { .. });
                self.sent.push((prepare, Answer::Voted(vote.clone())));
                if was_at_work && !aborted {
                    return Err(format!("it is aborted while it is at work, and votes {vote}"));
                }
                self.answered(abort, Answer::Acknowledged).map(drop)
            }
            Ended::Crashed => {
                self.crash();
                self.abort(number)
            }
            Ended::Refused(_) => self.abort(number),
        }
    }

    /// Asks for a vote.
    pub(crate) fn prepare(&mut self, number: u8, operation: &Bytes) -> Result<Vote, String> {
        match self.send(Message::Prepare(number, operation.clone()))? {
            Answer::Voted(vote) => Ok(vote),
            Answer::Acknowledged => Err("a Prepare is acknowledged".to_owned()),
        }
    }

    /// Prepares what has to be possible.
    pub(crate) fn yes(&mut self, number: u8, operation: &Bytes, when: &str) -> Result<(), String> {
        match self.prepare(number, operation)? {
            Vote::Yes => Ok(()),
            other => Err(format!("{when}: voted {other}")),
        }
    }

    /// Prepares what has to be refused.
    pub(crate) fn no(&mut self, number: u8, operation: &Bytes, when: &str) -> Result<(), String> {
        match self.prepare(number, operation)? {
            Vote::No { .. } => Ok(()),
            other => Err(format!("{when}: voted {other}")),
        }
    }

    pub(crate) fn commit(&mut self, number: u8) -> Result<(), String> {
        self.send(Message::Commit(number)).map(drop)
    }

    pub(crate) fn abort(&mut self, number: u8) -> Result<(), String> {
        self.send(Message::Abort(number)).map(drop)
    }

    /// What has happened to the service's data.
    pub(crate) fn effects(&mut self) -> Result<String, String> {
        if self.world.storage.is_off() {
            self.crash();
        }
        self.life()?;
        let life = self.life.as_ref().ok_or_else(|| "it does not run".to_owned())?;
        Ok(life.run(self.world.service.effects(&life.manager)))
    }

    /// Calls the resource manager itself, for a transaction that it has never seen.
    pub(crate) fn abort_unknown(&mut self, number: u8) -> Result<(), String> {
        let life = self.life()?;
        let aborted = life.run(life.manager.abort(transaction(number), None));
        aborted.map_err(|error| format!("an abort of what it does not know fails: {error}"))
    }

    /// What the schedule still does when the rule has been tested. Nothing of it changes anything.
    pub(crate) fn finish(&mut self) -> Result<(), String> {
        if self.schedule == Schedule::Late {
            let before = self.effects()?;
            self.deeds += self.sent.len() as u32;
            for (message, _) in self.sent.clone().into_iter().rev() {
                // Whatever it answers: a Prepare of what is over may be answered with either vote.
                let _ = self.life()?.send(&message);
            }
            let after = self.effects()?;
            if after != before {
                return Err(format!("late messages change {before:?} into {after:?}"));
            }
        }
        match self.life()?.violations() {
            0 => Ok(()),
            count => Err(format!("{count} messages were refused as contradictions")),
        }
    }
}

/// Whether both say the same; reasons may differ.
fn same(one: &Answer, other: &Answer) -> bool {
    match (one, other) {
        (Answer::Voted(Vote::No { .. }), Answer::Voted(Vote::No { .. })) => true,
        (one, other) => one == other,
    }
}
