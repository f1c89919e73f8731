//! Messages on their way: late, lost, twice, much later, and cut off.

use super::{Happening, World};
use crate::counters::Sometimes;
use crate::event::Event;
use crate::message::{Envelope, Message, kind_name};
use crate::node::Node;
use crate::schedule::{Fate, Fates, MessageKey, Time};

impl World {
    /// Sends to whoever lives there when it arrives.
    pub(crate) fn send(&mut self, from: Node, to: Node, message: Message) {
        self.send_to_life(from, to, None, message);
    }

    /// Sends to this life only: the answer to a call of it.
    pub(crate) fn reply(&mut self, from: Node, to: Node, life: u32, message: Message) {
        self.send_to_life(from, to, Some(life), message);
    }

    fn send_to_life(&mut self, from: Node, to: Node, life: Option<u32>, message: Message) {
        let (sender, is_up) = self.life(from);
        if !is_up {
            return;
        }
        self.watch.happened(&Event::Sent {
            from,
            to,
            message: &message,
        });
        let key = self.key(from, to, &message);
        let fate = self.fate(&key).filter(|fate| {
            let comes_again = matches!(fate, Fate::Repeated { .. } | Fate::Replayed { .. });
            !(comes_again && message.comes_once())
        });
        if self.is_cut(from, to) {
            self.watch.fault("messages_cut_off");
            return;
        }
        let slowness = self.slowness(from).max(self.slowness(to));
        let delay = key.delay(self.schedule.seed, &self.knobs) * slowness;
        let envelope = Envelope {
            from,
            to,
            life,
            sender,
            receiver: self.life(to).0,
            message,
        };
        let Some(fate) = fate else {
            return self.arrive(delay, envelope);
        };
        self.note_fate(key, fate);
        match fate {
            Fate::Lost => {}
            Fate::Held { by } => self.arrive(delay + by, envelope),
            Fate::Repeated { again } | Fate::Replayed { again } => {
                self.arrive(delay, envelope.clone());
                self.arrive(delay + again, envelope);
            }
        }
    }

    fn note_fate(&mut self, key: MessageKey, fate: Fate) {
        self.fates.push((key, fate));
        let (name, small_talk) = match fate {
            Fate::Lost => ("messages_lost", key.transaction == 0),
            Fate::Repeated { .. } => ("messages_repeated", key.transaction == 0),
            Fate::Replayed { .. } => ("messages_replayed_late", key.transaction == 0),
            Fate::Held { .. } => ("messages_held", key.transaction == 0),
        };
        self.watch.fault(name);
        if !small_talk {
            let MessageKey {
                from,
                to,
                kind,
                transaction,
                nth,
            } = key;
            let key = format!("{from} → {to} {} t{transaction} #{nth}", kind_name(kind));
            self.watch.happened(&Event::Fated { key, fate });
        }
    }

    fn arrive(&mut self, delay: Time, envelope: Envelope) {
        let at = self.now + delay.max(1);
        self.queue.put(at, Happening::Deliver(Box::new(envelope)));
    }

    fn key(&mut self, from: Node, to: Node, message: &Message) -> MessageKey {
        let kind = message.kind();
        let transaction = message.transaction().map_or(0, |id| self.watch.names.number(id));
        let count = self.sent.entry((from, to, kind, transaction)).or_default();
        let nth = *count;
        *count += 1;
        MessageKey {
            from,
            to,
            kind,
            transaction,
            nth,
        }
    }

    fn fate(&self, key: &MessageKey) -> Option<Fate> {
        if !self.is_faulty {
            return None;
        }
        if self.replayed.get(&key.to).is_some_and(|until| self.now < *until) {
            let again = key.replayed_after(self.schedule.seed);
            return Some(Fate::Replayed { again });
        }
        match &self.schedule.fates {
            Fates::Drawn => key.drawn(self.schedule.seed, &self.knobs),
            Fates::Listed(fates) => fates.get(key).copied(),
        }
    }

    fn is_cut(&self, from: Node, to: Node) -> bool {
        if self.cuts.is_empty() && self.isolated.is_empty() {
            return false;
        }
        self.cuts.contains_key(&(from, to))
            || self.isolated.contains_key(&from)
            || self.isolated.contains_key(&to)
    }

    pub(super) fn cut(&mut self, from: Node, to: Node) {
        *self.cuts.entry((from, to)).or_default() += 1;
    }

    pub(super) fn uncut(&mut self, from: Node, to: Node) {
        super::faults::one_less(&mut self.cuts, (from, to));
    }

    pub(super) fn deliver(&mut self, envelope: Envelope) {
        let Envelope {
            from,
            to,
            life,
            sender,
            receiver,
            message,
        } = envelope;
        let (lives, is_up) = self.life(to);
        let why = match life {
            _ if !is_up => Some("it is down"),
            Some(life) if life != lives => Some("that life is over"),
            _ => None,
        };
        if let Some(why) = why {
            let message = &message;
            return self.watch.happened(&Event::Unheard {
                from,
                to,
                message,
                why,
            });
        }
        // Whoever sent it has forgotten it.
        if life.is_none() && self.life(from).0 > sender {
            self.watch.sometimes(Sometimes::MessageOutlivedItsSender);
        }
        if life.is_none() && lives > receiver {
            self.watch.sometimes(Sometimes::LateMessageReachedALaterLife);
        }
        self.watch.happened(&Event::Delivered {
            from,
            to,
            message: &message,
        });
        match to {
            Node::Coordinator(place) => {
                self.coordinator_hears(usize::from(place), from, sender, message);
            }
            Node::Participant(place) => self.participant_hears(usize::from(place), from, sender, message),
            Node::Initiator(place) => self.initiator_hears(usize::from(place), from, message),
        }
    }
}
