use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use prost::Message;
use tonic::{Request, Response, Status};
use unanimo_participant::Endpoint;
use unanimo_proto::transport::MAX_MESSAGE_BYTES;
use unanimo_proto::v1;
use unanimo_proto::v1::participant_client::ParticipantClient;
use unanimo_proto::v1::participant_server::{Participant, ParticipantServer};

use super::said::Said;
use crate::late::Reaction;
use crate::tap::{self, tap_server};

/// In the metadata of calls that are no coordinator's. They get through, and are not kept.
pub(crate) const LATE: &str = "jepsen-late";
/// Calls kept at most.
const MOST: usize = 2000;
/// Calls in one page.
const PAGE: usize = 500;

/// Keeps the calls of coordinators, and holds some. A clone is another handle.
#[derive(Clone, Default)]
pub(super) struct Tap {
    state: Arc<Mutex<State>>,
    said: Option<Arc<Said>>,
}

#[derive(Default)]
struct State {
    next: u64,
    kept: BTreeMap<u64, Kept>,
    /// Transactions of which so many of the last bits are not zero are not kept, because there are too many.
    sampled: u32,
    hold: tap::HoldRequest,
    /// Transactions whose Prepares are held.
    waiting: BTreeSet<String>,
    held: u64,
}

struct Kept {
    transaction: String,
    call: tap::Call,
    done: bool,
}

/// What becomes of a call.
enum Arrival {
    /// It gets through, kept under this number if at all.
    Through(Option<u64>),
    /// It is held, and its caller is told something.
    Refused,
    /// It is held, and its caller hears nothing.
    Silence,
}

/// The participant's service behind the tap.
#[derive(Clone)]
pub(super) struct Tapped {
    tap: Tap,
    inner: ParticipantClient<ParticipantServer<Endpoint>>,
}

impl Tap {
    /// One that notes what binds before it is said.
    pub(super) fn noting(said: Said) -> Self {
        Self {
            said: Some(Arc::new(said)),
            ..Self::default()
        }
    }

    fn note(&self, method: &str, transaction: &str, answer: &Reaction) -> Result<(), Status> {
        match &self.said {
            Some(said) => said.note(method, transaction, answer),
            None => Ok(()),
        }
    }

    /// The same service, with the tap before it.
    pub(super) fn before(&self, service: ParticipantServer<Endpoint>) -> ParticipantServer<Tapped> {
        let inner = ParticipantClient::new(service)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let tap = self.clone();
        ParticipantServer::new(Tapped { tap, inner })
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrive<M: Message>(&self, method: &str, transaction: &str, request: &Request<M>) -> Arrival {
        if request.metadata().contains_key(LATE) {
            return Arrival::Through(None);
        }
        let call = tap::Call {
            method: method.to_owned(),
            message: Bytes::from(request.get_ref().encode_to_vec()),
            ..tap::Call::default()
        };
        self.state().arrive(transaction, call)
    }

    fn answered(&self, number: Option<u64>, answer: &Reaction) {
        let mut state = self.state();
        if let Some(kept) = number.and_then(|number| state.kept.get_mut(&number)) {
            kept.call.answer = answer.word();
            kept.done = true;
        }
    }
}

impl State {
    fn arrive(&mut self, transaction: &str, mut call: tap::Call) -> Arrival {
        call.held = self.holds(transaction, &call.method);
        let (held, silent) = (call.held, self.hold.silent);
        if !held && !self.samples(transaction) {
            return Arrival::Through(None);
        }
        let number = self.next;
        self.next += 1;
        let kept = Kept {
            transaction: transaction.to_owned(),
            call,
            done: held,
        };
        self.kept.insert(number, kept);
        while self.kept.len() > MOST {
            self.thin_out();
        }
        match (held, silent) {
            (false, _) => Arrival::Through(Some(number)),
            (true, false) => Arrival::Refused,
            (true, true) => Arrival::Silence,
        }
    }

    fn holds(&mut self, transaction: &str, method: &str) -> bool {
        let left = match method {
            "Prepare" if self.waiting.contains(transaction) => return true,
            "Prepare" => &mut self.hold.prepares,
            "Commit" => &mut self.hold.commits,
            _ => &mut self.hold.aborts,
        };
        let Some(fewer) = left.checked_sub(1) else {
            return false;
        };
        *left = fewer;
        if method == "Prepare" {
            self.waiting.insert(transaction.to_owned());
        }
        self.held += 1;
        true
    }

    /// All calls of a transaction or none, so that what is kept of it belongs together. The last bits are random.
    fn samples(&self, transaction: &str) -> bool {
        let last = transaction.get(transaction.len().saturating_sub(8)..);
        let bits = last.and_then(|last| u32::from_str_radix(last, 16).ok());
        bits.is_none_or(|bits| bits.trailing_zeros() >= self.sampled)
    }

    /// Half of them, or so. What is held stays as long as it can.
    fn thin_out(&mut self) {
        if self.sampled < 32 {
            self.sampled += 1;
            let mut kept = std::mem::take(&mut self.kept);
            kept.retain(|_, kept| kept.call.held || self.samples(&kept.transaction));
            self.kept = kept;
        } else {
            self.kept.pop_first();
        }
    }

    fn take(&mut self) -> Vec<tap::Call> {
        let done = self.kept.iter().filter(|(_, kept)| kept.done);
        let numbers: Vec<u64> = done.map(|(number, _)| *number).take(PAGE).collect();
        if numbers.len() < PAGE {
            self.sampled = 0;
        }
        let taken = numbers.iter().filter_map(|number| self.kept.remove(number));
        taken.map(|kept| kept.call).collect()
    }
}

/// What to do with a call that does not get through.
async fn held<A>(silent: bool) -> Result<A, Status> {
    if silent {
        // Until the caller has had enough.
        std::future::pending::<()>().await;
    }
    Err(Status::unavailable("held back"))
}

#[tonic::async_trait]
impl Participant for Tapped {
    async fn prepare(
        &self,
        request: Request<v1::PrepareRequest>,
    ) -> Result<Response<v1::PrepareReply>, Status> {
        let transaction = request.get_ref().transaction.clone();
        let number = match self.tap.arrive("Prepare", &transaction, &request) {
            Arrival::Through(number) => number,
            Arrival::Refused => return held(false).await,
            Arrival::Silence => return held(true).await,
        };
        let reply = self.inner.clone().prepare(request).await;
        let answer = reply.map(Response::into_inner);
        let reaction = Reaction::to_prepare(&answer);
        self.tap.note("Prepare", &transaction, &reaction)?;
        self.tap.answered(number, &reaction);
        answer.map(Response::new)
    }

    async fn commit(&self, request: Request<v1::CommitRequest>) -> Result<Response<v1::CommitReply>, Status> {
        let transaction = request.get_ref().transaction.clone();
        let number = match self.tap.arrive("Commit", &transaction, &request) {
            Arrival::Through(number) => number,
            Arrival::Refused => return held(false).await,
            Arrival::Silence => return held(true).await,
        };
        let reply = self.inner.clone().commit(request).await;
        let reaction = Reaction::to_decision(&reply);
        self.tap.note("Commit", &transaction, &reaction)?;
        self.tap.answered(number, &reaction);
        reply
    }

    async fn abort(&self, request: Request<v1::AbortRequest>) -> Result<Response<v1::AbortReply>, Status> {
        let transaction = request.get_ref().transaction.clone();
        let number = match self.tap.arrive("Abort", &transaction, &request) {
            Arrival::Through(number) => number,
            Arrival::Refused => return held(false).await,
            Arrival::Silence => return held(true).await,
        };
        let reply = self.inner.clone().abort(request).await;
        self.tap.answered(number, &Reaction::to_decision(&reply));
        reply
    }
}

#[tonic::async_trait]
impl tap_server::Tap for Tap {
    async fn hold(&self, request: Request<tap::HoldRequest>) -> Result<Response<tap::HoldReply>, Status> {
        let mut state = self.state();
        state.hold = request.into_inner();
        state.waiting.clear();
        state.held = 0;
        Ok(Response::new(tap::HoldReply {}))
    }

    async fn take(&self, _: Request<tap::TakeRequest>) -> Result<Response<tap::TakeReply>, Status> {
        let mut state = self.state();
        let calls = state.take();
        Ok(Response::new(tap::TakeReply {
            calls,
            process: std::process::id(),
            held: state.held,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str) -> tap::Call {
        tap::Call {
            method: method.to_owned(),
            ..tap::Call::default()
        }
    }

    fn passes(state: &mut State, transaction: &str, method: &str) -> bool {
        matches!(state.arrive(transaction, call(method)), Arrival::Through(_))
    }

    #[test]
    fn so_many_are_held_and_a_prepare_with_all_that_repeat_it() {
        let mut state = State {
            hold: tap::HoldRequest {
                prepares: 1,
                commits: 1,
                ..tap::HoldRequest::default()
            },
            ..State::default()
        };
        assert!(passes(&mut state, "a", "Abort"));
        assert!(!passes(&mut state, "a", "Prepare"));
        assert!(passes(&mut state, "b", "Prepare"));
        assert!(!passes(&mut state, "a", "Prepare"), "a repeated one");
        assert!(!passes(&mut state, "b", "Commit"));
        assert!(passes(&mut state, "b", "Commit"));
        assert_eq!(state.held, 2);
        let taken = state.take();
        let held: Vec<&str> = taken.iter().map(|call| call.method.as_str()).collect();
        assert_eq!(
            held,
            ["Prepare", "Prepare", "Commit"],
            "what was not answered stays"
        );
        assert!(taken.iter().all(|call| call.held));
    }

    #[test]
    fn it_keeps_whole_transactions_and_not_too_many() {
        let mut state = State::default();
        for number in 0..10 * MOST {
            let transaction = format!("0190-{number:08x}");
            passes(&mut state, &transaction, "Prepare");
            passes(&mut state, &transaction, "Commit");
        }
        assert!((100..=MOST).contains(&state.kept.len()));
        let mut calls: BTreeMap<&str, u32> = BTreeMap::new();
        for kept in state.kept.values() {
            *calls.entry(&kept.transaction).or_default() += 1;
        }
        assert!(calls.values().filter(|calls| **calls != 2).count() <= 1);
    }
}
