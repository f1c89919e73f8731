//! Small numbers for the things of a scope, so that states stay small and order by themselves.

use unanimo_core::{
    ClusterId, Limits, Members, Operation, ParticipantId, Request, RequestHash, Timestamp, TransactionId,
};

/// The two participants.
pub(crate) const MEMBERS: usize = 2;

/// When everything happens. Time decides nothing in the model but what is late on purpose.
pub(crate) const NOW: Timestamp = Timestamp::from_unix_ms(1_000);

/// Until when votes are wanted.
pub(crate) const DEADLINE: Timestamp = Timestamp::from_unix_ms(2_000);

/// What the watermark is raised to: every transaction of a scope is below it.
pub(crate) const HORIZON: Timestamp = Timestamp::from_unix_ms(100_000);

/// Who takes part and what is asked.
#[derive(Debug)]
pub(crate) struct Names {
    cluster: ClusterId,
    participants: Vec<ParticipantId>,
    transactions: Vec<TransactionId>,
    requests: Vec<Asked>,
}

/// One request.
#[derive(Debug)]
struct Asked {
    transaction: u8,
    request: Request,
}

impl Names {
    /// One request for each entry: its transaction, and its members as bits.
    pub(crate) fn new(asked: &[(u8, u8)]) -> Self {
        let participants: Vec<ParticipantId> = (1..=MEMBERS)
            .map(|number| ParticipantId::new(&format!("p{number}")).unwrap())
            .collect();
        let transactions = 1 + asked.iter().map(|(transaction, _)| *transaction).max().unwrap();
        let request = |(place, (transaction, members)): (usize, &(u8, u8))| {
            let operation = Operation::new(vec![place as u8]);
            let branches = participants.iter().enumerate();
            let branches = branches.filter(|(number, _)| members & (1 << number) != 0);
            let branches = branches.map(|(_, participant)| (participant.clone(), operation.clone()));
            Asked {
                transaction: *transaction,
                request: Request::new(branches, Limits::default()).unwrap(),
            }
        };
        Self {
            cluster: ClusterId::new("c").unwrap(),
            transactions: (0..transactions)
                .map(|number| TransactionId::new(NOW, number.into()))
                .collect(),
            requests: asked.iter().enumerate().map(request).collect(),
            participants,
        }
    }

    pub(crate) fn cluster(&self) -> ClusterId {
        self.cluster.clone()
    }

    pub(crate) fn participant(&self, number: u8) -> &ParticipantId {
        &self.participants[usize::from(number)]
    }

    pub(crate) fn number_of(&self, participant: &ParticipantId) -> u8 {
        let place = self.participants.iter().position(|known| known == participant);
        place.expect("all participants are known") as u8
    }

    pub(crate) fn transactions(&self) -> impl Iterator<Item = u8> + use<> {
        0..self.transactions.len() as u8
    }

    pub(crate) fn id(&self, transaction: u8) -> TransactionId {
        self.transactions[usize::from(transaction)]
    }

    /// None if nobody began such a transaction.
    pub(crate) fn transaction(&self, id: TransactionId) -> Option<u8> {
        let place = self.transactions.iter().position(|known| *known == id);
        place.map(|place| place as u8)
    }

    pub(crate) fn requests(&self) -> impl Iterator<Item = u8> + use<> {
        0..self.requests.len() as u8
    }

    pub(crate) fn request(&self, number: u8) -> &Request {
        &self.requests[usize::from(number)].request
    }

    pub(crate) fn transaction_of(&self, request: u8) -> u8 {
        self.requests[usize::from(request)].transaction
    }

    /// None for an abort that was asked for when nobody knew the request.
    pub(crate) fn number_of_request(&self, hash: RequestHash) -> Option<u8> {
        let place = self
            .requests
            .iter()
            .position(|asked| asked.request.hash() == hash);
        place.map(|place| place as u8)
    }

    pub(crate) fn hash(&self, request: Option<u8>) -> RequestHash {
        request.map_or(RequestHash::NONE, |number| self.request(number).hash())
    }

    pub(crate) fn members(&self, bits: u8) -> Members {
        let numbers = (0..MEMBERS as u8).filter(|number| bits & (1 << number) != 0);
        numbers.map(|number| self.participant(number).clone()).collect()
    }

    pub(crate) fn bits(&self, members: &Members) -> u8 {
        members
            .iter()
            .fold(0, |bits, member| bits | 1 << self.number_of(member))
    }

    /// Which request an operation or a redo belongs to.
    pub(crate) fn request_in(&self, bytes: &[u8]) -> u8 {
        bytes[0]
    }
}
