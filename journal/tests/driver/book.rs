//! What a journal was told, kept outside of it, to compare with what comes back.

use unanimo_journal::Sequence;

use super::{Driver, Records};

/// One append, by position.
#[derive(Clone, Debug)]
struct Entry {
    payload: Vec<u8>,
    /// Set for a truncation: the last position that it keeps.
    after: Option<u64>,
}

/// The whole truth about a journal over all its lives. It knows vectors and nothing else.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// Entry `n` has position `n + 1`.
    entries: Vec<Entry>,
    /// Positions up to here must never be missing again.
    promised: u64,
    /// Positions before this one may be missing.
    released: u64,
}

impl Book {
    pub fn next(&self) -> u64 {
        self.entries.len() as u64 + 1
    }

    pub fn promised(&self) -> u64 {
        self.promised
    }

    /// The position that many 256ths into all that were given out; 0 if there is none.
    pub fn part_of_all(&self, part: u8) -> u64 {
        self.entries.len() as u64 * u64::from(part) / 255
    }

    pub fn append(&mut self, driver: &Driver, payload: Vec<u8>) {
        let (sequence, answer) = driver.next_answer();
        assert_eq!(sequence.get(), self.next());
        // A journal that has failed takes nothing; what it takes may come back.
        if driver.journal.append(payload.clone(), answer).is_ok() {
            self.entries.push(Entry { payload, after: None });
        }
    }

    pub fn append_lazily(&mut self, driver: &Driver, payload: Vec<u8>) {
        if driver.journal.append_lazily(payload.clone()).is_ok() {
            self.entries.push(Entry { payload, after: None });
        }
    }

    pub fn truncate_after(&mut self, driver: &Driver, after: u64, payload: Vec<u8>) {
        let (sequence, answer) = driver.next_answer();
        assert_eq!(sequence.get(), self.next());
        if driver
            .journal
            .truncate_after(Sequence::new(after), payload.clone(), answer)
            .is_ok()
        {
            self.entries.push(Entry {
                payload,
                after: Some(after),
            });
        }
    }

    pub fn release_before(&mut self, driver: &Driver, before: u64) {
        driver.journal.release_before(Sequence::new(before));
        self.released = self.released.max(before);
    }

    /// Takes note of what was acknowledged so far, and checks the order of the answers.
    pub fn hear(&mut self, driver: &Driver) {
        let acknowledged = driver.acknowledged();
        assert!(
            acknowledged.is_sorted(),
            "answers come in order: {acknowledged:?}"
        );
        let durable = driver.journal.durable();
        assert!(
            acknowledged.last().is_none_or(|last| *last <= durable),
            "acknowledged, not durable"
        );
        self.promised = self.promised.max(durable.get());
    }

    /// Checks what a journal came back with. What it came back with is promised from here on.
    pub fn check(&mut self, driver: &Driver, context: &str) {
        let last = driver.journal.next().get() - 1;
        assert!(
            last >= self.promised,
            "{context}: {} was promised, {last} is the last",
            self.promised
        );
        assert!(
            last < self.next(),
            "{context}: {last} was never appended, the last was {}",
            self.next() - 1
        );
        assert_eq!(
            driver.journal.durable().get(),
            last,
            "{context}: what is replayed is durable"
        );
        self.entries.truncate(last as usize);
        self.promised = last;
        self.check_records(&driver.replayed, context);
        self.check_reads(driver, context);
    }

    /// The replayed records are the live ones; of those only released ones may be missing, and only the oldest.
    fn check_records(&self, replayed: &Records, context: &str) {
        let live = self.live();
        let missing = live.len().saturating_sub(replayed.len());
        let show = |records: &Records| {
            records
                .iter()
                .map(|(sequence, _)| sequence.get())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            show(replayed),
            show(&live[missing..].to_vec()),
            "{context}: positions"
        );
        assert!(*replayed == live[missing..], "{context}: payloads");
        let lost = live[..missing]
            .iter()
            .find(|(sequence, _)| sequence.get() >= self.released);
        assert!(
            lost.is_none(),
            "{context}: {lost:?} is missing, released are those before {}",
            self.released
        );
    }

    /// Everything live that was replayed can be read, and nothing else can.
    pub fn check_reads(&self, driver: &Driver, context: &str) {
        let live = self.live();
        for number in 1..self.next() {
            let sequence = Sequence::new(number);
            let expected = live
                .iter()
                .find(|(live, _)| *live == sequence && sequence >= driver.journal.first());
            let read = driver.journal.read(sequence).ok();
            assert_eq!(
                read.as_deref(),
                expected.map(|(_, payload)| &payload[..]),
                "{context}: {number}"
            );
        }
    }

    fn live(&self) -> Records {
        let mut live: Records = Vec::new();
        for (number, entry) in (1..).zip(&self.entries) {
            if let Some(after) = entry.after {
                live.retain(|(sequence, _)| sequence.get() <= after);
            }
            live.push((Sequence::new(number), entry.payload.clone()));
        }
        live
    }
}
