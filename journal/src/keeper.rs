//! Keeps the next segment ready and clears released ones away, off the hot path.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use crate::failed::Failed;
use crate::segment::{Segment, Workshop};
use crate::state::Shared;

/// A piece of work on whole segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    Make(u64),
    Remove(u64),
}

/// Either does its jobs when it is told to (in simulations), or on a thread of its own.
pub(crate) struct Keeper {
    workshop: Workshop,
    /// Segments that hold no records yet, in order.
    ready: VecDeque<Segment>,
    /// The highest segment that was made or asked for.
    highest: u64,
    place: Workplace,
}

enum Workplace {
    Here {
        due: VecDeque<Job>,
    },
    Thread {
        jobs: Sender<Job>,
        results: Receiver<Result<Segment, Failed>>,
        thread: JoinHandle<()>,
    },
}

impl Keeper {
    /// A keeper that works when it is told to. `active` is the segment being written, `ready` follow it.
    pub(crate) fn new(workshop: Workshop, active: u64, ready: VecDeque<Segment>) -> Keeper {
        let highest = ready.back().map_or(active, |segment| segment.number);
        Keeper {
            workshop,
            ready,
            highest,
            place: Workplace::Here { due: VecDeque::new() },
        }
    }

    /// Moves the work to a thread, which nudges the writer when it has something to tell.
    pub(crate) fn move_to_thread(&mut self, shared: &Arc<Shared>) -> io::Result<()> {
        let Workplace::Here { due } = &self.place else {
            return Ok(());
        };
        let (jobs, inbox) = mpsc::channel();
        let (outbox, results) = mpsc::channel();
        let (workshop, shared) = (self.workshop.clone(), Arc::clone(shared));
        let name = format!("{}-keeper", shared.options.name);
        let thread = thread::Builder::new().name(name).spawn(move || {
            for job in inbox {
                let Some(result) = perform(&workshop, job).transpose() else {
                    continue;
                };
                let failed = result.is_err();
                if outbox.send(result).is_err() || failed {
                    break;
                }
                shared.nudge();
            }
            // Dropping the outbox tells the writer of the end even if it did not hear why.
            drop(outbox);
            shared.nudge();
        })?;
        for job in due {
            // The thread ends only after a failure, which the writer hears from `results`.
            let _ = jobs.send(*job);
        }
        self.place = Workplace::Thread {
            jobs,
            results,
            thread,
        };
        Ok(())
    }

    /// Asks for the segment after `active`, unless it is there or asked for already.
    pub(crate) fn prepare_after(&mut self, active: u64) {
        if self.highest == active {
            self.highest += 1;
            self.give(Job::Make(self.highest));
        }
    }

    /// Asks for the removal of a segment, the oldest that is left.
    pub(crate) fn remove(&mut self, number: u64) {
        self.give(Job::Remove(number));
    }

    /// Does one job if the work is done here, and takes what a thread has finished. True if it did something.
    pub(crate) fn work(&mut self) -> Result<bool, Failed> {
        match &mut self.place {
            Workplace::Here { due } => {
                let Some(job) = due.pop_front() else {
                    return Ok(false);
                };
                self.ready.extend(perform(&self.workshop, job)?);
                Ok(true)
            }
            Workplace::Thread { results, .. } => {
                let before = self.ready.len();
                while let Ok(result) = results.try_recv() {
                    self.ready.push_back(result?);
                }
                Ok(self.ready.len() > before)
            }
        }
    }

    /// The segment after `active`: at best it is ready, at worst this waits until it is made.
    pub(crate) fn take_after(&mut self, active: u64) -> Result<Segment, Failed> {
        self.prepare_after(active);
        while self.ready.is_empty() {
            match &mut self.place {
                Workplace::Here { .. } => {
                    self.work()?;
                }
                Workplace::Thread { results, .. } => {
                    let gone = || self.workshop.gone(active + 1);
                    self.ready.push_back(results.recv().map_err(|_| gone())??);
                }
            }
        }
        let segment = self
            .ready
            .pop_front()
            .ok_or_else(|| self.workshop.gone(active + 1))?;
        assert_eq!(segment.number, active + 1, "segments are made in order");
        Ok(segment)
    }

    /// Ends the thread; a segment that it is making stays unfinished and is cleared away at the next opening.
    pub(crate) fn stop(&mut self) {
        self.workshop.closing.store(true, Ordering::Relaxed);
        let place = std::mem::replace(&mut self.place, Workplace::Here { due: VecDeque::new() });
        if let Workplace::Thread { jobs, thread, .. } = place {
            drop(jobs);
            if thread.join().is_err() {
                tracing::error!(
                    journal = self.workshop.journal,
                    "the thread that prepares segments panicked"
                );
            }
        }
    }

    fn give(&mut self, job: Job) {
        match &mut self.place {
            Workplace::Here { due } => due.push_back(job),
            // The thread ends only after a failure, which the writer hears from `results`.
            Workplace::Thread { jobs, .. } => drop(jobs.send(job)),
        }
    }
}

fn perform(workshop: &Workshop, job: Job) -> Result<Option<Segment>, Failed> {
    match job {
        Job::Make(number) => workshop.make(number),
        Job::Remove(number) => workshop.remove(number).map(|()| None),
    }
}
