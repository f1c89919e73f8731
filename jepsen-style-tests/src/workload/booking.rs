use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;

use super::chance::{Lot, skewed};
use super::money::{self, add, transact};
use super::{Ask, Leaves, Request, Work, Workload};
use crate::cluster::Layout;
use crate::history::{Answer, Call, Step, Style};

/// Flights, hotels and cards.
const PLACES: u64 = 8;
/// Seats on each flight and rooms in each hotel.
const FREE: i64 = 20;
/// What is on each card at first, but for the last one, which has nothing: who pays with it is always refused.
const CREDIT: i64 = 100;
/// The most that a journey costs.
const DEAREST: i64 = 10;
/// Journeys that a client remembers, to give them back one day.
const REMEMBERED: usize = 8;
/// What each kind of work is of a hundred operations. The rest is bookings.
const AUDITS: u32 = 4;
const CANCELLED: u32 = 35;
const UNANSWERED: u32 = 2;
const AFTER_BEGIN: u32 = 2;
/// Of so many operations, one leaves what it holds to itself: rare, because others wait for it.
const ONE_LEAVES_LOCKS_IN: u32 = 200;

/// Journeys of a seat, a room and a payment, at three participants, booked and given back by interactive transactions.
/// What is taken is counted in a cell of its own, so that every transaction adds up to nothing. Some cards have too
/// little, and some clients go away.
pub(super) struct Booking;

/// Where everything is. With fewer than three participants one has several parts.
#[derive(Clone)]
struct Parts {
    seats: String,
    rooms: String,
    cards: String,
}

#[derive(Clone, Copy)]
struct Journey {
    flight: u64,
    hotel: u64,
    card: u64,
    price: i64,
}

/// What a client waits to hear of.
enum Asked {
    ToBook(Journey),
    ToCancel(Journey),
    Nothing,
}

struct Traveller {
    layout: Layout,
    parts: Parts,
    random: StdRng,
    booked: Vec<Journey>,
    asked: Asked,
}

impl Workload for Booking {
    fn name(&self) -> &'static str {
        "booking"
    }

    fn opening(&self, layout: Layout) -> Vec<Step> {
        let parts = Parts::of(layout);
        let mut steps = Vec::new();
        for place in 0..PLACES {
            let credit = if place == PLACES - 1 { 0 } else { CREDIT };
            steps.push(add(&parts.seats, &format!("flight-{place}"), FREE));
            steps.push(add(&parts.seats, &format!("flight-{place}-taken"), 0));
            steps.push(add(&parts.rooms, &format!("hotel-{place}"), FREE));
            steps.push(add(&parts.rooms, &format!("hotel-{place}-taken"), 0));
            steps.push(add(&parts.cards, &format!("card-{place}"), credit));
            steps.push(add(&parts.cards, &format!("card-{place}-paid"), 0));
        }
        steps
    }

    fn client(&self, layout: Layout, _: usize, random: StdRng) -> Box<dyn Work> {
        Box::new(Traveller {
            layout,
            parts: Parts::of(layout),
            random,
            booked: Vec::new(),
            asked: Asked::Nothing,
        })
    }
}

impl Work for Traveller {
    fn next(&mut self) -> Request {
        self.asked = Asked::Nothing;
        if self.random.random_ratio(1, ONE_LEAVES_LOCKS_IN) {
            return Request::One(Ask::from(self.book()).leaves(Leaves::AfterCalls));
        }
        let mut lot = Lot::draw(&mut self.random);
        if lot.is(AUDITS) {
            return self.audit().into();
        }
        if lot.is(CANCELLED) && !self.booked.is_empty() {
            return self.cancel().into();
        }
        if lot.is(UNANSWERED) {
            let after = Duration::from_millis(self.random.random_range(0..30));
            return Request::One(Ask::from(self.book()).leaves(Leaves::Unanswered(after)));
        }
        if lot.is(AFTER_BEGIN) {
            return Request::One(Ask::from(self.book()).leaves(Leaves::AfterBegin));
        }
        let call = self.book();
        call.into()
    }

    fn told(&mut self, _: &Call, answer: Option<&Answer>) {
        match (std::mem::replace(&mut self.asked, Asked::Nothing), answer) {
            (Asked::ToBook(journey), Some(Answer::Committed)) if self.booked.len() < REMEMBERED => {
                self.booked.push(journey);
            }
            // Still booked.
            (Asked::ToCancel(journey), Some(Answer::Aborted(_))) => self.booked.push(journey),
            // Nobody knows, or nothing is there: it is not asked for again.
            (Asked::ToBook(_) | Asked::ToCancel(_) | Asked::Nothing, _) => {}
        }
    }
}

impl Traveller {
    /// Looks what is free, and takes it, one participant after the other.
    fn book(&mut self) -> Call {
        let journey = Journey {
            flight: skewed(&mut self.random, PLACES),
            hotel: self.random.random_range(0..PLACES),
            card: self.random.random_range(0..PLACES),
            price: self.random.random_range(1..=DEAREST),
        };
        self.asked = Asked::ToBook(journey);
        transact(Style::Interactive, self.parts.steps(journey, 1))
    }

    fn cancel(&mut self) -> Call {
        let place = self.random.random_range(0..self.booked.len());
        let journey = self.booked.swap_remove(place);
        self.asked = Asked::ToCancel(journey);
        transact(Style::Interactive, self.parts.steps(journey, -1))
    }

    /// Everything that is free and taken, all at once.
    fn audit(&self) -> Call {
        let cells = Booking.opening(self.layout).into_iter();
        let mut read: Vec<Step> = cells
            .map(|step| money::read((step.participant, step.cell)))
            .collect();
        // A visit to each: seats, rooms, cards, as those who book do.
        read.sort_by(|one, other| one.participant.cmp(&other.participant));
        transact(Style::Interactive, read)
    }
}

impl Parts {
    fn of(layout: Layout) -> Self {
        let names = layout.names();
        let part = |number: usize| names[number % names.len()].clone();
        Self {
            seats: part(0),
            rooms: part(1),
            cards: part(2),
        }
    }

    /// Takes a journey once, or gives it back (`-1`).
    fn steps(&self, journey: Journey, times: i64) -> Vec<Step> {
        let Journey {
            flight,
            hotel,
            card,
            price,
        } = journey;
        let moved = |participant: &str, cell: String, delta: i64, taken: &str| {
            [
                money::read((participant.to_owned(), cell.clone())),
                add(participant, &cell, -delta),
                add(participant, &format!("{cell}-{taken}"), delta),
            ]
        };
        let steps = [
            moved(&self.seats, format!("flight-{flight}"), times, "taken"),
            moved(&self.rooms, format!("hotel-{hotel}"), times, "taken"),
            moved(&self.cards, format!("card-{card}"), price * times, "paid"),
        ];
        steps.into_iter().flatten().collect()
    }
}
