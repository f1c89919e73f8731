//! The application: one journey, which is a seat, a room and a payment, or nothing.

use std::time::Duration;

use tonic::Status;
use tonic::transport::Channel;
use unanimo_client::{Client, Decision, InteractiveTransaction, TransactionId};
use unanimo_proto::transport::{BadAddress, Connector as _, TcpConnector};

use crate::Trade;
use crate::cluster::Addresses;
use crate::wire::hotel_client::HotelClient;
use crate::wire::payment_client::PaymentClient;
use crate::wire::seats_client::SeatsClient;
use crate::wire::{ChargeRequest, TakeRoomRequest, TakeSeatRequest};

/// How long a journey may hold things before its commit. Many times of what it takes; what a traveller who went away
/// held is free again after it.
pub const TIME: Duration = Duration::from_secs(5);
/// How long one call may take. A service that is being started again is not waited for.
const CALL: Duration = Duration::from_secs(2);
/// How long an outcome is asked for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a traveller wants.
#[derive(Clone, Debug)]
pub struct Order {
    /// Who travels.
    pub traveller: String,
    /// Who pays.
    pub card: String,
}

/// What became of an order.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Booked, all of it.
    Booked(TransactionId),
    /// A service refused, and nothing is booked.
    Refused(TransactionId, Trade),
    /// Something else went wrong, and nothing is booked.
    Failed(Option<TransactionId>, String),
    /// Nobody knows. The audit asks.
    Unknown(TransactionId, String),
}

/// Books journeys. Cheap to clone.
#[derive(Clone)]
pub struct Agency {
    client: Client,
    seats: Channel,
    hotel: Channel,
    payment: Channel,
}

impl Agency {
    /// An agency that knows where everybody serves. Connects when first used.
    pub fn new(client: Client, addresses: &Addresses) -> Result<Self, BadAddress> {
        let channel = |trade| TcpConnector::default().channel(addresses.service(trade));
        Ok(Self {
            client,
            seats: channel(Trade::Seats)?,
            hotel: channel(Trade::Hotel)?,
            payment: channel(Trade::Payment)?,
        })
    }

    /// Books a seat and a room, and pays for both.
    pub async fn book(&self, order: &Order) -> Outcome {
        let transaction = match self.client.begin(TIME).await {
            Ok(transaction) => transaction,
            Err(error) => return Outcome::Failed(None, error.to_string()),
        };
        match self.take_everything(&transaction, order).await {
            Ok(()) => commit(transaction).await,
            Err((trade, status)) => give_up(transaction, trade, &status).await,
        }
    }

    /// One service after the other: the price is known when there are a seat and a room.
    async fn take_everything(
        &self,
        transaction: &InteractiveTransaction,
        order: &Order,
    ) -> Result<(), (Trade, Status)> {
        let seat = SeatsClient::new(transaction.channel(self.seats.clone()))
            .take_seat(in_time(TakeSeatRequest {
                traveller: order.traveller.clone(),
            }))
            .await
            .map_err(|status| (Trade::Seats, status))?
            .into_inner();
        let room = HotelClient::new(transaction.channel(self.hotel.clone()))
            .take_room(in_time(TakeRoomRequest {
                traveller: order.traveller.clone(),
            }))
            .await
            .map_err(|status| (Trade::Hotel, status))?
            .into_inner();
        PaymentClient::new(transaction.channel(self.payment.clone()))
            .charge(in_time(ChargeRequest {
                traveller: order.traveller.clone(),
                card: order.card.clone(),
                amount_cents: seat.price_cents + room.price_cents,
            }))
            .await
            .map_err(|status| (Trade::Payment, status))?;
        Ok(())
    }
}

fn in_time<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL);
    request
}

async fn commit(transaction: InteractiveTransaction) -> Outcome {
    let id = transaction.transaction();
    match transaction.commit(PATIENCE).await {
        Ok(Decision::Commit) => Outcome::Booked(id),
        Ok(Decision::Abort(reason)) => Outcome::Failed(Some(id), reason.to_string()),
        Err(error) if error.is_definite() => Outcome::Failed(Some(id), error.to_string()),
        Err(error) => Outcome::Unknown(id, error.to_string()),
    }
}

async fn give_up(transaction: InteractiveTransaction, trade: Trade, status: &Status) -> Outcome {
    let id = transaction.transaction();
    // A service that says no is the daily business; anything else is a fault.
    let refused = status.code() == tonic::Code::FailedPrecondition;
    match transaction.abort(PATIENCE).await {
        Ok(Decision::Abort(_)) | Err(_) if refused => Outcome::Refused(id, trade),
        Ok(Decision::Abort(_)) | Err(_) => Outcome::Failed(Some(id), format!("{trade}: {status}")),
        Ok(Decision::Commit) => Outcome::Unknown(id, "committed, though nobody asked for it".to_owned()),
    }
}
