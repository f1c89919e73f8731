//! The gRPC services. What makes them part of a transaction is one line: `enlistment.join(…)`.

use prost::Message as _;
use tonic::{Request, Response, Status};
use unanimo_core::TransactionId;
use unanimo_participant::{Enlistment, Participant};

use crate::crash::{CrashPlan, CrashPoint};
use crate::shelf::{Shelf, price_cents};
use crate::wire::{self, Claim, hotel_server, ledger_server, payment_server, seats_server};

/// Serves one trade and its ledger.
#[derive(Clone)]
pub struct TradeService {
    /// What there is.
    pub shelf: Shelf,
    /// The participant beside it.
    pub participant: Participant,
    /// When to die.
    pub crashes: CrashPlan,
}

impl TradeService {
    /// Holds what is claimed for the caller's transaction, and says what it is.
    async fn claim(&self, enlistment: &Enlistment, claim: Claim) -> Result<Claim, Status> {
        self.crashes.pass(CrashPoint::BeforeJoin);
        enlistment.join(claim.encode_to_vec().into()).await?;
        self.crashes.pass(CrashPoint::AfterJoin);
        let held = self.shelf.held_by(enlistment.transaction());
        held.ok_or_else(|| Status::aborted("the transaction was aborted meanwhile"))
    }

    async fn take_any(
        &self,
        enlistment: &Enlistment,
        traveller: String,
    ) -> Result<Response<wire::Taken>, Status> {
        let claim = Claim {
            traveller,
            item: String::new(),
            amount: 1,
        };
        let item = self.claim(enlistment, claim).await?.item;
        let price_cents = price_cents(&item);
        Ok(Response::new(wire::Taken { item, price_cents }))
    }
}

#[tonic::async_trait]
impl seats_server::Seats for TradeService {
    async fn take_seat(
        &self,
        request: Request<wire::TakeSeatRequest>,
    ) -> Result<Response<wire::Taken>, Status> {
        let enlistment = Enlistment::of(&request)?.clone();
        self.take_any(&enlistment, request.into_inner().traveller).await
    }
}

#[tonic::async_trait]
impl hotel_server::Hotel for TradeService {
    async fn take_room(
        &self,
        request: Request<wire::TakeRoomRequest>,
    ) -> Result<Response<wire::Taken>, Status> {
        let enlistment = Enlistment::of(&request)?.clone();
        self.take_any(&enlistment, request.into_inner().traveller).await
    }
}

#[tonic::async_trait]
impl payment_server::Payment for TradeService {
    async fn charge(&self, request: Request<wire::ChargeRequest>) -> Result<Response<wire::Charged>, Status> {
        let enlistment = Enlistment::of(&request)?.clone();
        let message = request.into_inner();
        let claim = Claim {
            traveller: message.traveller,
            item: message.card,
            amount: message.amount_cents,
        };
        self.claim(&enlistment, claim).await?;
        Ok(Response::new(wire::Charged {}))
    }
}

#[tonic::async_trait]
impl ledger_server::Ledger for TradeService {
    async fn list(&self, request: Request<wire::ListRequest>) -> Result<Response<wire::ListReply>, Status> {
        let after = request.into_inner().after;
        let after: Option<TransactionId> = match after.as_str() {
            "" => None,
            text => Some(
                text.parse()
                    .map_err(|error| Status::invalid_argument(format!("field after: {error}")))?,
            ),
        };
        let entries = self.shelf.ledger(after);
        let entries = entries.map_err(|error| Status::internal(error.to_string()))?;
        let entry = |(transaction, claim): (TransactionId, Claim)| wire::Entry {
            transaction: transaction.to_string(),
            claim: Some(claim),
        };
        Ok(Response::new(wire::ListReply {
            entries: entries.into_iter().map(entry).collect(),
        }))
    }

    async fn get_status(
        &self,
        _: Request<wire::GetStatusRequest>,
    ) -> Result<Response<wire::GetStatusReply>, Status> {
        let statistics = self.participant.statistics();
        Ok(Response::new(wire::GetStatusReply {
            registered: statistics.registered,
            holding: self.shelf.holding() as u64,
            in_flight: statistics.in_flight as u64,
            in_doubt: statistics.in_doubt as u64,
            violations: statistics.violations,
        }))
    }
}
