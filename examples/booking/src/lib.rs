//! Journeys of a seat, a room and a payment: booked at three services, or at none of them.
//!
//! The application ([`journey`]) asks one service after the other, because what the card is charged depends on which
//! seat and which room there were. All three take part in one interactive transaction: nothing that they took is taken
//! before the commit, and all of it is let go if the card has no room, a call fails, or somebody dies.
//!
//! * [`shelf`] is the resource manager: what there is, what is held, what is taken. The same for all three.
//! * [`service`] has the three gRPC services; [`process`] serves one of them beside its participant.
//! * [`journey`] is the application. [`run`] books many journeys, [`audit`] compares what the services say.
//! * [`cluster`] starts the processes, [`crash`] has them die at a named point.

pub mod audit;
pub mod cluster;
pub mod crash;
pub mod journey;
pub mod process;
pub mod run;
pub mod service;
pub mod shelf;

/// The messages and services of booking.proto.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod wire {
    tonic::include_proto!("booking.v1");
}

use std::fmt;
use std::str::FromStr;

/// One of the three services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trade {
    /// Seats of one flight.
    Seats,
    /// Rooms of one hotel.
    Hotel,
    /// Cards with a limit.
    Payment,
}

impl Trade {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Seats, Self::Hotel, Self::Payment];

    /// Its name, which is also its participant's.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Seats => "seats",
            Self::Hotel => "hotel",
            Self::Payment => "payment",
        }
    }
}

impl fmt::Display for Trade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Trade {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|trade| trade.as_str() == name);
        found.ok_or_else(|| format!("{name:?} is no service of this example; use seats, hotel or payment"))
    }
}
